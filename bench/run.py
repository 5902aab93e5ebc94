"""All measurements, one after the other: `make bench`, or `python -m bench [names]`."""

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence

from bench.harness import Result, add_options, keep, machine, options_of, say, table

BENCHES = (
    "audit_append",
    "audit_export",
    "audit_prune",
    "audit_verify",
    "recording",
    "policy",
    "probe",
    "fleet",
    "history",
    "live",
    "runs",
    "output",
    "terminal",
    "recovery",
    "start",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print each table as it is ready, and keep them together. 1 when a bench could not measure."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure the console against its goals and its peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {' '.join(BENCHES)} (all)")
    add_options(parser)
    given = parser.parse_args(arguments)
    unknown = set(given.names) - set(BENCHES)
    if unknown:
        parser.error(f"there is no bench {' '.join(sorted(unknown))}; there are {' '.join(BENCHES)}")
    facts = machine()
    results: list[Result] = []
    failed: list[str] = []
    for name in given.names or BENCHES:
        say(f"--- {name}")
        try:
            result = importlib.import_module(f"bench.{name}").measure(options_of(given))
        except Exception:  # noqa: BLE001  # One bench that cannot run must not hide what the others found.
            traceback.print_exc()
            failed.append(name)
            continue
        print(table(result), flush=True)
        keep(result.name, [result], facts)
        results.append(result)
    if results:
        print(f"written to {keep('all', results, facts)}")
    if failed:
        print(f"could not measure: {' '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())

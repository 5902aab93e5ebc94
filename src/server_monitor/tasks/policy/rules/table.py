"""All built-in rules, and where to look for those about a program."""

from server_monitor.tasks.policy.rules import accounts, code, filesystem, kernel, network, packages, records, system
from server_monitor.tasks.policy.rules.rule import Match, Rule

RULES: tuple[Rule, ...] = (
    *filesystem.RULES,
    *system.RULES,
    *accounts.RULES,
    *packages.RULES,
    *kernel.RULES,
    *network.RULES,
    *code.RULES,
    *records.RULES,
)

BY_ID: dict[str, Rule] = {rule.id: rule for rule in RULES}


def _by_program() -> dict[str, tuple[tuple[str, Match], ...]]:
    found: dict[str, list[tuple[str, Match]]] = {}
    for rule in RULES:
        for row in rule.matches:
            for program in row.programs:
                found.setdefault(program, []).append((rule.id, row))
    return {program: tuple(rows) for program, rows in found.items()}


BY_PROGRAM = _by_program()

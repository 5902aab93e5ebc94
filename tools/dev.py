#!/usr/bin/env python3
"""The one command of this repository: set it up, run it, test it.

This file alone must parse on every Python a machine may call `python3`, so that an old one is told
what is missing instead of printing a syntax error. Everything else lives in the modules beside it.
"""

import os
import sys

OLDEST = (3, 11)
NAMES = ["python3.14", "python3.13", "python3.12", "python3.11"]


def newer_python():
    """Path of an interpreter on the PATH that is new enough, or None."""
    for name in NAMES:
        for folder in os.environ.get("PATH", "").split(os.pathsep):
            path = os.path.join(folder, name)
            if os.access(path, os.X_OK) and os.system('"%s" -c pass >/dev/null 2>&1' % path) == 0:
                return path
    return None


def main():
    if sys.version_info < OLDEST:
        found = newer_python()
        if found is None:
            sys.exit(
                "server-monitor needs Python %d.%d or newer; this is %d.%d (%s).\n"
                "Install one (Debian 12 and Ubuntu 24.04 have it: apt-get install python3 python3-venv),\n"
                "then run: python3.11 tools/dev.py %s"
                % (OLDEST + sys.version_info[:2] + (sys.executable, " ".join(sys.argv[1:]) or "help"))
            )
        os.execv(found, [found, os.path.abspath(__file__)] + sys.argv[1:])
    from workshop import commands

    sys.exit(commands.main(sys.argv[1:]))


if __name__ == "__main__":
    main()

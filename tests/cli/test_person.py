"""Who is taken to be at the shell."""

import os
import pwd
import subprocess
import sys

import pytest

from tests.support.patience import PATIENCE_S

ASK = """
import os, sys
from server_monitor.cli.output import person
os.setuid(int(sys.argv[1]))  # only now: this account may not be able to read the program
print(person())
"""
ACCOUNT = "daemon"  # one that every machine has
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="Only root can become somebody else.")


def person(as_account: str | None = None, **environment: str) -> str:
    """As the program tells it, run by this account with these variables."""
    uid = pwd.getpwnam(as_account).pw_uid if as_account else os.getuid()
    told = subprocess.run(
        [sys.executable, "-c", ASK, str(uid)],
        env={"PATH": os.environ["PATH"], **environment},
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    return told.stdout.strip()


def me() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def test_variables_that_anybody_can_set_name_nobody() -> None:
    assert person(USER="bob", LOGNAME="bob", USERNAME="bob", LNAME="bob") == me()


@needs_root
def test_behind_sudo_is_the_person_and_not_root() -> None:
    assert person(SUDO_USER=ACCOUNT) == ACCOUNT


@needs_root
def test_an_account_that_is_not_there_is_nobody_behind_sudo() -> None:
    assert person(SUDO_USER="no-such-account") == me()


@needs_root
def test_who_is_not_root_cannot_say_that_somebody_else_is_behind_them() -> None:
    assert person(ACCOUNT, SUDO_USER="root") == ACCOUNT

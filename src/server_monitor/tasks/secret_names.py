"""Which names the variables may have that hold a run's secrets. Pure.

The policy reads the command without their values. A name is therefore taken only when it says that it holds a secret,
and no program that we know lets itself be steered by it.
"""

import re
from typing import Final

from server_monitor.tasks.policy.effects import STEERING

RULE: Final = (
    "has at least 3 capitals, digits and underscores, and as one of its words PASSWORD, PASS, SECRET, TOKEN, KEY, "
    "CREDENTIAL, DSN, URL, USER, AUTH, PIN, CERT or SALT, or SECRET_ at the beginning; names that steer the shell or "
    "programs are not taken"
)

_FORM = re.compile(r"[A-Z][A-Z0-9_]{2,63}")
# A word of the name, or its beginning or end: PGPASSWORD, PASSPHRASE, CREDENTIALS.
_SAYS_SECRET = re.compile(
    r"(?:^|_)(?:\w*(?:PASSWORD|SECRET|TOKEN)|(?:PASSWORD|PASSPHRASE|PASSWD|CREDENTIAL|CERT)[A-Z]*|"
    r"(?:SSH|API)?(?:PASS|KEY)S?\d*|[A-Z]*DSN|URL|(?:PG)?USER(?:NAME)?|AUTH|PIN|SALT)(?:_|\d*$)"
)
_OF_THE_SHELL = frozenset({"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "PWD", "OLDPWD"})
# What runs, loads, trusts or installs something else by a variable of its own, whatever the rest of the name says.
_STEERING_BEGINNINGS = (
    *("BASH", "LD_", "DYLD_", "LC_", "GIT_", "PYTHON", "PERL", "RUBY", "SUDO_", "DBUS_", "XDG_", "SYSTEMD_"),
    *("PIP_", "UV_", "NPM_CONFIG_", "CARGO_", "BUNDLE_", "GEM_", "COMPOSER_", "SSL_CERT", "SERVER_MONITOR_"),
)
_STEERING_WORD = re.compile(
    r"(?:^|_)\w*(?:COMMAND|CMD|ASKPASS|PROGRAM|PROG|HELPER|HOOK|FILE|PATH|DIR|HOME|SOCK|OPTIONS?|OPTS?|FLAGS?|ARGS?|"
    r"EDITOR|PAGER|PROVIDER|PLUGIN|PRELOAD)(?:_|$)"
)


def is_name_of_secret(name: str) -> bool:
    if not _FORM.fullmatch(name) or name in STEERING or name in _OF_THE_SHELL:
        return False
    if name.startswith(_STEERING_BEGINNINGS) or _STEERING_WORD.search(name):
        return False
    return name.startswith("SECRET_") or bool(_SAYS_SECRET.search(name))

"""Commands that run another command: for each of them what finds out what is inside."""

from __future__ import annotations

from collections.abc import Callable

from server_monitor.tasks.policy.calls import Call
from server_monitor.tasks.policy.remote import REMOTE
from server_monitor.tasks.policy.values import Parts
from server_monitor.tasks.policy.wrapping import accounts, environment, lists
from server_monitor.tasks.policy.wrapping.building import BUILDERS
from server_monitor.tasks.policy.wrapping.code import (
    COMMAND_OPTIONS,
    OPERANDS_AS_CODE,
    WORDS_AS_CODE,
    in_operands,
    in_words,
    with_command_option,
)
from server_monitor.tasks.policy.wrapping.later import LATER
from server_monitor.tasks.policy.wrapping.prefixes import PREFIXES, behind_prefix
from server_monitor.tasks.policy.wrapping.roots import OTHER_ROOTS
from server_monitor.tasks.policy.wrapping.supervising import SUPERVISORS

WRAPPERS: dict[str, Callable[[Call], Parts]] = {
    **dict.fromkeys(PREFIXES, behind_prefix),
    **dict.fromkeys(COMMAND_OPTIONS, with_command_option),
    **dict.fromkeys(OPERANDS_AS_CODE, in_operands),
    **dict.fromkeys(WORDS_AS_CODE, in_words),
    **REMOTE,
    **SUPERVISORS,
    **OTHER_ROOTS,
    **LATER,
    **BUILDERS,
    "sudo": accounts.sudo,
    "su": accounts.su,
    "runuser": accounts.su,
    "sg": accounts.sg,
    "newgrp": accounts.newgrp,
    "env": environment.env,
    "xargs": lists.xargs,
    "parallel": lists.parallel,
    "find": lists.find,
    "fd": lists.find,
}

"""Why a task ended as it did: for every cause code a sentence. The codes of `fleet/reasons.py` occur too."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

CAUSES: Mapping[str, str] = MappingProxyType(
    {
        "exit_status": "The command ended with an exit status other than 0.",
        "signal": "The command was ended by a signal.",
        "timeout": "The command ran longer than it may; it was ended on its host.",
        "cancelled": "Somebody cancelled it.",
        "not_confirmed": "It was to be ended, and its host could not confirm that it is gone.",
        "host_rebooted": "Its host was started anew while it ran.",
        "vanished": "It is gone and left no exit status: it, or the shell that watched over it, was killed from "
        "outside, or its disk was full.",
        "never_started": "It had not started when the connection was cut, twice.",
        "cannot_tell": "Whether it ever started cannot be told; it is not run a second time.",
        "unreachable": "Its host could not be reached again in time; what became of the command is not known.",
        "connection_lost": "The connection was cut. A command that had begun is ended once its host notices that; "
        "until then it may still run.",
        "console_died": "The console died. The command is ended once its host notices that; "
        "until then it may still run.",
        "console_stopped": "The console was stopped, and ended the command as it is set to.",
        "console_failed": "The console made a mistake of its own over this task, and its log says which. "
        "Look at the host: the command may run there, or have run.",
        "not_stored": "What its host told of its end is nothing that can be stored.",
        "no_bash": "This host has no bash, and in its sh the policy does not let the command pass.",
        "no_directory": "Nothing can be written where the command was to be kept on this host; it was not started.",
        "secrets_unreadable": "Its secrets cannot be opened: the master key is missing, or it is another one.",
        "max_failures": "The run stopped because too many servers failed.",
        "canary_failed": "The run stopped because a canary failed.",
        "server_unfit": "The server was removed, switched off, or put at capability observe before its turn came.",
        "server_removed": "The server was removed before the end of the command was known. It may have run there, and "
        "may still.",
        "rejected": "A second person refused it.",
        "expired": "Nobody approved it in time.",
        "policy": "The command policy does not allow it.",
        "policy_changed": "The command policy changed before its turn came, and does not allow it any more.",
        "not_judged": "The console failed to judge it again before its turn came, and its log says why.",
        "user_gone": "Whoever asked for it may not run commands there any more.",
    }
)

# Of an interrupted task: its command may run on, or may begin once its host is heard of again.
MAY_STILL_RUN: Final = frozenset(
    {
        "not_confirmed",
        "cannot_tell",
        "unreachable",
        "connection_lost",
        "console_died",
        "console_failed",
        "server_removed",
    }
)

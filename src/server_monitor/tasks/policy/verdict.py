"""What the engine answers, and what it is asked about.

```json
{"verdict":"deny","rule":"fs.rm_critical_tree","reason":"deletes /etc with everything in it","span":[0,11],
 "digest":"sha256:…","engine":"1.0.0+shfmt3.14.1","mode":"denylist","findings":[…],
 "limits":{"bytes":11,"depth":1,"commands":1},"ms":3.1}
```
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from server_monitor.tasks.policy.values import Span

ENGINE = "1.0.0"


class Ruling(StrEnum):
    ALLOW = "allow"
    NEEDS_APPROVAL = "needs_approval"
    DENY = "deny"

    @property
    def weight(self) -> int:
        return ("allow", "needs_approval", "deny").index(self.value)


class Mode(StrEnum):
    DENYLIST = "denylist"
    ALLOWLIST = "allowlist"


@dataclass(frozen=True, slots=True)
class Context:
    """Where and as whom a command would run. `labels` are those that all its hosts share.

    `secret_names` are variables that hold what the policy does not see.
    """

    shell: Literal["bash", "sh"] = "bash"
    user: str = ""
    role: str = ""
    hosts: int = 1
    host_ids: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    secret_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """A finding with what its rule says about it."""

    rule: str
    category: str
    severity: str
    verdict: Ruling
    span: Span
    why: str
    hint: str
    via: tuple[str, ...] = ()
    resolved: str = ""
    payload_span: Span | None = None

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "rule": self.rule,
            "category": self.category,
            "severity": self.severity,
            "verdict": self.verdict.value,
            "span": list(self.span),
            "via": list(self.via),
            "resolved": self.resolved,
            "why": self.why,
            "hint": self.hint,
        }
        if self.payload_span is not None:
            found["payload_span"] = list(self.payload_span)
        return found


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer. `rule`, `reason` and `span` are those of the worst finding; `digest` binds it to what was judged."""

    ruling: Ruling
    digest: str
    engine: str
    mode: Mode
    findings: tuple[Judged, ...] = ()
    bytes: int = 0
    depth: int = 0
    commands: int = 0
    ms: float = 0.0

    @property
    def worst(self) -> Judged | None:
        return self.findings[0] if self.findings else None

    @property
    def rule(self) -> str | None:
        return self.worst.rule if self.worst else None

    @property
    def reason(self) -> str | None:
        return self.worst.why if self.worst else None

    @property
    def span(self) -> Span | None:
        return self.worst.span if self.worst else None

    def as_json(self) -> dict[str, Any]:
        """The verdict as it is stored in tasks and audit records and sent to clients."""
        return {
            "verdict": self.ruling.value,
            "rule": self.rule,
            "reason": self.reason,
            "span": list(self.span) if self.span else None,
            "digest": self.digest,
            "engine": self.engine,
            "mode": self.mode.value,
            "findings": [finding.as_json() for finding in self.findings],
            "limits": {"bytes": self.bytes, "depth": self.depth, "commands": self.commands},
            "ms": self.ms,
        }


def digest_of(command: str, context: Context) -> str:
    """What an approval is bound to: the exact bytes, the shell, the account and the set of hosts."""
    parts = [
        hashlib.sha256(command.encode("utf-8", "surrogatepass")).hexdigest(),
        context.shell,
        context.user,
        sorted(context.host_ids),
    ]
    return "sha256:" + hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()

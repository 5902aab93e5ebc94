"""The decision: gate, walk, the operator's patterns, and the worst of all that was found.

Nothing weakens a verdict: a limit that is reached, a text that does not parse or an engine that fails adds a finding.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import perf_counter

from server_monitor.tasks.policy import gate, paths
from server_monitor.tasks.policy.endless import endless_part
from server_monitor.tasks.policy.invoke import invoke
from server_monitor.tasks.policy.parsing import (
    Dialect,
    NotParsed,
    Parse,
    ParserFailed,
    SyntaxWrong,
    TooComplex,
    once_for_all,
)
from server_monitor.tasks.policy.patterns import Patterns
from server_monitor.tasks.policy.rules.table import BY_ID
from server_monitor.tasks.policy.shell import Account, Finding
from server_monitor.tasks.policy.state import fresh_state
from server_monitor.tasks.policy.verdict import ENGINE, Context, Judged, Mode, Ruling, Verdict, digest_of
from server_monitor.tasks.policy.walk import Walker

MAX_FINDINGS = 32
APPROVE_LABEL = ("policy", "approve")

# Findings that no rule of the tables makes: category, severity, ruling in denylist mode, hint.
_OWN: dict[str, tuple[str, str, Ruling, str]] = {
    "lexical": ("lexical", "high", Ruling.DENY, "type the command anew, with plain characters"),
    "engine.error": ("engine", "high", Ruling.NEEDS_APPROVAL, "report the command to whoever maintains the console"),
    "engine.parser": ("engine", "high", Ruling.NEEDS_APPROVAL, "install the tested version of shfmt"),
    "user.deny": ("settings", "high", Ruling.DENY, "ask whoever set TASK_DENY_PATTERNS"),
    "user.not_allowed": ("settings", "medium", Ruling.DENY, "add a pattern to TASK_ALLOW_PATTERNS"),
    "user.opaque": ("settings", "medium", Ruling.DENY, "write out what is not known"),
    "user.write": ("settings", "medium", Ruling.DENY, "add the path to TASK_ALLOW_WRITE_PATHS"),
    "context.hosts": ("context", "medium", Ruling.NEEDS_APPROVAL, "choose fewer hosts, or ask for approval"),
    "context.label": ("context", "medium", Ruling.NEEDS_APPROVAL, "ask for approval"),
}


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The rules in force: the built-in ones, in a mode, with the operator's patterns.

    `approve_above_hosts` makes a command on more hosts need approval; 0 never does. `parser` is the parser's version.
    """

    mode: Mode = Mode.DENYLIST
    deny: Patterns = field(default_factory=Patterns)
    allow: Patterns = field(default_factory=Patterns)
    write_paths: tuple[str, ...] = ()
    allow_overrides_deny: bool = False
    approve_above_hosts: int = 0


def decide(command: str, context: Context, rules: RuleSet, parse: Parse, *, parser_version: str = "") -> Verdict:
    """The verdict on a command that would run in this context. Raises nothing that the text can cause."""
    begin = perf_counter()
    text = command.replace("\r\n", "\n")
    findings: list[Finding] = []
    account = Account(text.encode("utf-8", "surrogatepass"), parse, "bash")
    stopped = gate.stopped(text)
    if stopped is not None:
        findings.append(Finding(stopped.rule, stopped.why, stopped.span))
    else:
        dialects = _dialects(context)
        parse = once_for_all(parse) if len(dialects) > 1 else parse
        for dialect in dialects:
            if account.is_spent:
                break  # What was too much to read once is not read again.
            account = _walked(text, context, parse, dialect)
            findings += account.findings
    findings += _of_context(context, rules, account)
    findings += _of_patterns(text, rules, account, is_read=stopped is None)
    judged = _judged(findings, rules, command, text)
    return Verdict(
        max((finding.verdict for finding in judged), key=lambda ruling: ruling.weight, default=Ruling.ALLOW),
        digest_of(command, context),
        f"{ENGINE}+shfmt{parser_version or 'none'}",
        rules.mode,
        tuple(judged[:MAX_FINDINGS]),
        bytes=len(command.encode("utf-8", "surrogatepass")),
        depth=account.deepest + 1,
        commands=len(account.commands),
        ms=round((perf_counter() - begin) * 1000, 2),
    )


def failed(command: str, context: Context, rules: RuleSet, rule: str, why: str) -> Verdict:
    """The verdict when the engine or its parser failed: never allow."""
    finding = Finding(rule, why, (0, len(command.encode("utf-8", "surrogatepass"))))
    judged = _judged([finding], rules, command, command)
    return Verdict(
        judged[0].verdict,
        digest_of(command, context),
        f"{ENGINE}+shfmtnone",
        rules.mode,
        tuple(judged),
        bytes=len(command.encode("utf-8", "surrogatepass")),
    )


def _dialects(context: Context) -> tuple[Dialect, ...]:
    """A task for `sh` may meet a `/bin/sh` that is bash: it is read as both, and the worse verdict counts."""
    return ("bash",) if context.shell == "bash" else ("posix", "bash")


def _walked(text: str, context: Context, parse: Parse, dialect: Dialect) -> Account:
    raw = text.encode("utf-8", "surrogatepass")
    account = Account(raw, parse, dialect)
    whole = (0, len(raw))
    walker = Walker(account, fresh_state(context.user, context.secret_names), invoke, dialect, carrier=whole)
    try:
        printed = walker.run(parse(text, dialect).stmts)
        gap = endless_part(printed)
        if gap is not None and gap.detail:
            account.findings.append(Finding("bomb.fill", f"never stops printing {gap.detail}", whole))
    except SyntaxWrong as wrong:
        place = min(wrong.offset or 0, len(raw))
        account.findings.append(Finding("opaque.syntax", f"cannot be parsed: {wrong}", (place, len(raw))))
    except TooComplex as limit:
        account.findings.append(Finding("opaque.limit", _lower(str(limit)), whole))
    except ParserFailed as failure:
        account.findings.append(Finding("engine.parser", _lower(str(failure)), whole))
    except NotParsed as other:
        account.findings.append(Finding("engine.error", _lower(str(other)), whole))
    except RecursionError:
        account.findings.append(Finding("opaque.limit", "nests deeper than can be judged", whole))
    except Exception as error:  # noqa: BLE001  # A bug of ours must never let a command through.
        account.findings.append(Finding("engine.error", f"made the policy engine fail ({type(error).__name__})", whole))
    return account


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].rstrip(".")


def _of_context(context: Context, rules: RuleSet, account: Account) -> Iterable[Finding]:
    whole = (0, len(account.text))
    if 0 < rules.approve_above_hosts < context.hosts:
        why = f"runs on {context.hosts} hosts, more than {rules.approve_above_hosts}"
        yield Finding("context.hosts", why, whole)
    name, value = APPROVE_LABEL
    if context.labels.get(name) == value:
        yield Finding("context.label", f"runs on a host that is labelled {name}={value}", whole)


def _of_patterns(text: str, rules: RuleSet, account: Account, *, is_read: bool) -> Iterable[Finding]:
    if (hit := rules.deny.found_in(text)) is not None:
        pattern, (start, end) = hit
        span = (len(text[:start].encode("utf-8", "surrogatepass")), len(text[:end].encode("utf-8", "surrogatepass")))
        yield Finding("user.deny", f"matches the denied pattern {pattern!r}", span)
    for command in account.commands:
        hits = (rules.deny.found_in(form) for form in dict.fromkeys((command.rendered, command.called)))
        if (hit := next((hit for hit in hits if hit is not None), None)) is not None:
            why = f"matches the denied pattern {hit[0]!r}"
            yield Finding("user.deny", why, command.span, command.via, command.rendered)
    if rules.mode is Mode.ALLOWLIST and is_read:
        yield from _not_allowed(rules, account)


def _not_allowed(rules: RuleSet, account: Account) -> Iterable[Finding]:
    if not account.commands:
        yield Finding("user.not_allowed", "runs no command that a pattern allows", (0, 0))
    for found in account.search_paths:
        why = f"lets programs come from other places than the system's, by {found.name}={found.value}"
        yield Finding("user.not_allowed", why, found.span)
    for command in account.commands:
        if command.is_opaque:
            why = f"runs {command.rendered}, of which a part is not known"
            yield Finding("user.opaque", why, command.span, command.via, command.rendered)
        elif not any(rules.allow.match_whole(form) for form in command.forms):
            why = f"runs {command.called}, which no pattern allows"
            yield Finding("user.not_allowed", why, command.span, command.via, command.called)
    for write in account.writes:
        if write.path is None or not _may_write(write.path, rules.write_paths):
            yield Finding("user.write", f"writes to {write.path or 'a file that is not known'}", write.span)


def _may_write(path: str, allowed: tuple[str, ...]) -> bool:
    harmless = ("/dev/null", "/dev/stdout", "/dev/stderr", "/dev/tty")
    return path in harmless or any(paths.is_in(path, paths.normal(folder)) for folder in allowed)


def _judged(findings: list[Finding], rules: RuleSet, command: str, text: str) -> list[Judged]:
    """Worst first; within one ruling, in the order of the text."""
    shift = _returns(command, text)
    found = [_with_rule(finding, rules, shift) for finding in findings]
    if (
        rules.mode is Mode.ALLOWLIST
        and rules.allow_overrides_deny
        and not any(f.rule.startswith("user.") for f in found)
    ):
        found = [f for f in found if f.rule not in BY_ID]
    unique = list(dict.fromkeys(found))
    return sorted(unique, key=lambda f: (-f.verdict.weight, _SEVERITIES.index(f.severity), f.span))


_SEVERITIES = ("critical", "high", "medium")


def _with_rule(finding: Finding, rules: RuleSet, shift: list[int]) -> Judged:
    rule = BY_ID.get(finding.rule)
    severity: str
    if rule is not None:
        category, severity, ruling, hint = rule.category, rule.severity, Ruling(rule.ruling), rule.hint
    else:
        key = finding.rule if finding.rule in _OWN else finding.rule.partition(".")[0]
        category, severity, ruling, hint = _OWN[key]
    # In a mode where everything is known in advance, what is not known is not asked about but refused.
    if rules.mode is Mode.ALLOWLIST and finding.rule.partition(".")[0] in ("opaque", "engine"):
        ruling = Ruling.DENY
    span = (_shifted(finding.span[0], shift), _shifted(finding.span[1], shift))
    return Judged(
        finding.rule,
        category,
        severity,
        ruling,
        span,
        finding.why,
        hint,
        finding.via,
        finding.resolved,
        finding.payload_span,
    )


def _returns(command: str, text: str) -> list[int]:
    """Byte offsets, in the text with LF alone, of each line end that was CRLF."""
    if len(command) == len(text):
        return []
    raw = command.encode("utf-8", "surrogatepass")
    found: list[int] = []
    position = raw.find(b"\r\n")
    while position >= 0:
        found.append(position - len(found))
        position = raw.find(b"\r\n", position + 2)
    return found


def _shifted(offset: int, returns: list[int]) -> int:
    return offset + bisect_left(returns, offset)

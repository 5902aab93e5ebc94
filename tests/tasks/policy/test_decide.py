"""The verdict: its shape, its spans, its modes, and what happens when the engine fails."""

import pytest

from server_monitor.tasks.judge import Judge
from server_monitor.tasks.policy.decide import RuleSet, decide
from server_monitor.tasks.policy.parsing import Dialect, ParserFailed
from server_monitor.tasks.policy.patterns import compiled
from server_monitor.tasks.policy.tree import File
from server_monitor.tasks.policy.verdict import Context, Mode, Ruling, digest_of
from server_monitor.tasks.shell_parser import ShellParser

ALLOWLIST = RuleSet(mode=Mode.ALLOWLIST, allow=compiled([r"systemctl (status|restart) \S+", r"df( -h)?", r"tail .*"]))


def test_a_verdict_names_rule_reason_and_span_of_the_worst_finding(judge: Judge) -> None:
    verdict = judge.judge_now("ls; sudo sh -c 'rm -rf /etc'", Context(user="deploy"))
    shown = verdict.as_json()

    assert shown["verdict"] == "deny"
    assert shown["rule"] == shown["findings"][0]["rule"] == "fs.rm_critical_tree"
    assert shown["reason"] == "deletes /etc with everything in it"
    assert shown["findings"][0]["via"] == ["sudo", "sh -c"]
    assert "ls; sudo sh -c 'rm -rf /etc'"[slice(*shown["span"])] == "/etc"
    assert shown["mode"] == "denylist"
    assert shown["engine"].startswith("1.0.0+shfmt3.")
    assert shown["limits"]["bytes"] == 28


def test_spans_count_bytes_and_survive_line_ends_of_windows(judge: Judge) -> None:
    command = "echo \u00fc\r\nrm -rf /etc\r\n"
    verdict = judge.judge_now(command, Context())

    assert verdict.span is not None
    assert command.encode()[slice(*verdict.span)] == b"/etc"


def test_a_decoded_payload_is_shown_by_what_carries_it(judge: Judge) -> None:
    command = "echo cm0gLXJmIC9ldGM= | base64 -d | sh"
    verdict = judge.judge_now(command, Context())

    assert verdict.ruling is Ruling.DENY
    assert verdict.span is not None
    assert command[slice(*verdict.span)] == "sh"
    assert verdict.worst is not None
    assert verdict.worst.payload_span == (7, 11)


def test_the_digest_binds_bytes_shell_account_and_hosts() -> None:
    base = Context(user="a", host_ids=("1", "2"))
    others = [
        digest_of("ls ", base),
        digest_of("ls", Context(shell="sh", user="a", host_ids=("1", "2"))),
        digest_of("ls", Context(user="b", host_ids=("1", "2"))),
        digest_of("ls", Context(user="a", host_ids=("1",))),
    ]

    assert digest_of("ls", base) == digest_of("ls", Context(user="a", host_ids=("2", "1")))
    assert digest_of("ls", base) not in others


@pytest.mark.parametrize("command", ["df -h", "systemctl restart nginx", "tail -f x > /dev/null", "sh -c 'df -h'"])
def test_in_allowlist_mode_every_command_must_match_whole(parser: ShellParser, command: str) -> None:
    rules = RuleSet(mode=Mode.ALLOWLIST, allow=compiled([*ALLOWLIST.allow.texts, r"sh -c .*"]))
    assert decide(command, Context(), rules, parser.parse).ruling is Ruling.ALLOW


@pytest.mark.parametrize(
    "command",
    [
        "df -h; ls",
        "xdf -h",
        "df -hT",
        "df -h $(ls)",
        "df -h $(date)",
        "df -h > /etc/x",
        "tail x > /tmp/y",
        "echo df | sh",
        "bash -c 'df -h'",
        "x=1",
        "tail $(cat list)",
    ],
)
def test_in_allowlist_mode_everything_else_is_denied(parser: ShellParser, command: str) -> None:
    assert decide(command, Context(), ALLOWLIST, parser.parse).ruling is Ruling.DENY


OWN_PROGRAMS = [
    "./uptime",
    "~/uptime",
    "/home/deploy/uptime",
    "/opt/evil/df -h",
    "$HOME/df -h",
    "../bin/uptime",
    "/usr/bin/../../opt/df -h",
    "/proc/self/root/usr/bin/uptime",
    "/usr/bin/x/uptime",
    "sudo ./uptime",
    "sh -c ./uptime",
    "cd /opt/evil && ./uptime",
    "/opt/evil/d? -h",
    "/opt/*/uptime",
    "PATH=/opt/evil:$PATH uptime",
    "export PATH=~/bin:$PATH; uptime",
    "PATH=; uptime",
    "unset PATH; uptime",
    "env PATH=/opt/evil uptime",
    "LD_LIBRARY_PATH=/opt/evil uptime",
    "hash -p /opt/evil/uptime uptime; uptime",
    "alias uptime=/opt/evil/uptime; uptime",
    "uptime() { /opt/evil/uptime; }; uptime",
    "python3 /opt/x.py",
]


@pytest.mark.parametrize("command", OWN_PROGRAMS)
def test_an_allowed_name_is_not_a_program_of_that_name_in_another_place(parser: ShellParser, command: str) -> None:
    allow = ["uptime", "df .*", "(sudo|sh -c|env|cd|hash|alias|python3) .*/.*", "env PATH=.*", "export .*", "alias .*"]
    rules = RuleSet(mode=Mode.ALLOWLIST, allow=compiled(allow if "python3" not in command else ["uptime"]))

    assert decide(command, Context(), rules, parser.parse).ruling is Ruling.DENY


@pytest.mark.parametrize(
    ("pattern", "command"),
    [
        ("uptime", "/usr/bin/uptime"),
        ("uptime", "/bin/uptime"),
        ("df .*", "/usr/local/sbin/df -h"),
        ("uptime", "PATH=/usr/bin:/bin uptime"),
        ("/opt/app/bin/check .*", "/opt/app/bin/check -v"),
        (r"\./check", "./check"),
        ("/home/[a-z]+/check", "~/check"),
        ("apt list", "apt list"),
        ("apt-get list", "apt list"),
        ("python3 -m x", "python3 -m x"),
    ],
)
def test_an_allowed_program_is_matched_by_its_name_or_as_it_was_called(
    parser: ShellParser, pattern: str, command: str
) -> None:
    rules = RuleSet(mode=Mode.ALLOWLIST, allow=compiled([pattern]))

    assert decide(command, Context(user="ada"), rules, parser.parse).ruling is Ruling.ALLOW


def test_allowed_paths_may_be_written(parser: ShellParser) -> None:
    rules = RuleSet(mode=Mode.ALLOWLIST, allow=ALLOWLIST.allow, write_paths=("/srv/out",))

    assert decide("df -h > /srv/out/x", Context(), rules, parser.parse).ruling is Ruling.ALLOW
    assert decide("df -h > /srv/out/../x", Context(), rules, parser.parse).ruling is Ruling.DENY


def test_builtin_rules_hold_in_allowlist_mode_unless_they_are_overridden(parser: ShellParser) -> None:
    allow = compiled(["reboot"])
    held = RuleSet(mode=Mode.ALLOWLIST, allow=allow)
    overridden = RuleSet(mode=Mode.ALLOWLIST, allow=allow, allow_overrides_deny=True)

    assert decide("reboot", Context(), held, parser.parse).ruling is Ruling.DENY
    assert decide("reboot", Context(), overridden, parser.parse).ruling is Ruling.ALLOW
    assert decide("halt", Context(), overridden, parser.parse).ruling is Ruling.DENY


def test_denied_patterns_are_found_in_the_text_and_in_every_resolved_command(parser: ShellParser) -> None:
    rules = RuleSet(deny=compiled([r"\bfrobnicate\b"]))

    for command in ("frobnicate x", "echo frobnicate", "frob''nicate", "sh -c 'frob\"nicate\"'", "x=frob; ${x}nicate"):
        assert decide(command, Context(), rules, parser.parse).rule == "user.deny"
    assert decide("ls", Context(), rules, parser.parse).ruling is Ruling.ALLOW


def test_more_hosts_than_allowed_or_a_label_ask_for_approval(parser: ShellParser) -> None:
    rules = RuleSet(approve_above_hosts=10)

    assert decide("ls", Context(hosts=10), rules, parser.parse).ruling is Ruling.ALLOW
    assert decide("ls", Context(hosts=11), rules, parser.parse).rule == "context.hosts"
    assert decide("ls", Context(labels={"policy": "approve"}), RuleSet(), parser.parse).rule == "context.label"


def broken(_text: str, _dialect: Dialect) -> File:
    raise ZeroDivisionError


def absent(_text: str, _dialect: Dialect) -> File:
    raise ParserFailed("The parser is absent.")


@pytest.mark.parametrize(("parse", "rule"), [(broken, "engine.error"), (absent, "engine.parser")])
def test_an_engine_that_fails_never_allows(parse: object, rule: str) -> None:
    asked = decide("ls", Context(), RuleSet(), parse)  # type: ignore[arg-type]
    refused = decide("ls", Context(), ALLOWLIST, parse)  # type: ignore[arg-type]

    assert (asked.ruling, asked.rule) == (Ruling.NEEDS_APPROVAL, rule)
    assert refused.ruling is Ruling.DENY


def test_a_command_for_sh_is_read_in_both_dialects(parser: ShellParser) -> None:
    verdict = decide("echo a &> /etc/passwd", Context(shell="sh"), RuleSet(), parser.parse)

    assert verdict.ruling is Ruling.DENY

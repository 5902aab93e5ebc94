"""Files that run by themselves later: what the task puts there is judged as if it ran now.

Jobs of cron, unit files, hooks of git, makefiles, `setup.py`, start-up files of shells, rules of udev.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from server_monitor.tasks.policy import critical, guessed, paths
from server_monitor.tasks.policy.calls import Call
from server_monitor.tasks.policy.crontabs import cron_commands
from server_monitor.tasks.policy.options import named, split
from server_monitor.tasks.policy.values import Gap, Parts, Source, shown, text_of

if TYPE_CHECKING:
    from server_monitor.tasks.policy.walk import Walker
_SHELL_START = (
    ".bashrc",
    ".bash_profile",
    ".profile",
    ".zshrc",
    ".zprofile",
    ".bash_login",
    ".bash_logout",
    ".zshenv",
    ".envrc",
    ".kshrc",
    ".xinitrc",
    ".xsession",
)
# Files of build tools in languages of their own: what looks like a command in them is judged.
_PROJECT_FILES = named(
    "CMakeLists.txt build.xml pom.xml build.sbt justfile Justfile .justfile Taskfile.yml Taskfile.yaml meson.build "
    "BUILD BUILD.bazel WORKSPACE Tiltfile Earthfile tasks.py fabfile.py noxfile.py dodo.py tox.ini mix.exs dune"
)
# Whichever directory a setting says that they are in.
_HOOKS = named(
    "applypatch-msg pre-applypatch post-applypatch pre-commit pre-merge-commit prepare-commit-msg commit-msg "
    "post-commit pre-rebase post-checkout post-merge pre-push pre-receive post-receive post-update "
    "reference-transaction push-to-checkout pre-auto-gc post-rewrite sendemail-validate fsmonitor-watchman"
)
_NODE_CONFIGURATION = re.compile(
    r"(?:gulpfile|Gruntfile|(?:webpack|vite|vitest|jest|rollup|babel|next|eslint|postcss|metro)\.config)\.[cm]?[jt]s"
)
_UNIT = re.compile(r"\.(service|timer|socket|path|mount|conf)$")
_EXEC = re.compile(r"^\s*(?:Exec\w+|OnFailure|ListenStream)\s*=\s*[-@:+!|]*\s*(.+?)\s*$", re.MULTILINE)
_RUN = re.compile(r"(?:RUN|PROGRAM)\+?=\"([^\"]+)\"")
_HOOK = re.compile(r"(Invoke|Invoke-Success|Pre-Install-Pkgs)\W+\{?\s*\"([^\"]+)\"")
_RECIPE = re.compile(r"^(?:\t|[^#:=\n]+:[^=\n]*;)[-@+]*(.*)$", re.MULTILINE)


def judge(path: str, content: Parts, walker: Walker) -> None:
    """Judge what was just written to `path`, when it is a file that something runs."""
    kind = _kind(path)
    if kind is None:
        return
    text = text_of(content)
    if text is None:
        if any(isinstance(part, Gap) and part.source is Source.NETWORK for part in content):
            why = f"puts a download where it runs by itself, in {path}"
            walker.find("rce.download_to_interpreter", why, walker.carrier)
            return
        text = shown(content).replace("…", "")
    if kind is not _script:
        guessed.texts(guessed.lines(text), path, walker.carrier, walker)
    for command in kind(path, text):
        if command.strip() and walker.depth < 10:
            walker.run_text(command, path, walker.carrier)


def _kind(path: str) -> Callable[[str, str], list[str]] | None:
    folder, _, name = path.rpartition("/")
    if paths.in_any(path, ("/etc/cron.d", "/etc/crontab")):
        return _crontab_with_user
    if paths.is_in(path, "/var/spool/cron"):
        return _crontab
    if _UNIT.search(name) and ("systemd" in folder or "/etc/init" in folder):
        return lambda _path, text: [match[1] for match in _EXEC.finditer(text)]
    if "/.git/hooks" in folder or folder.endswith((".githooks", ".husky")) or name in _HOOKS:
        return _script
    if paths.in_any(path, critical.STARTS_CODE_TREES) or name in _SHELL_START or path == "/etc/rc.local":
        return _udev_or_script
    if name in ("Makefile", "makefile", "GNUmakefile") or name.endswith(".mk"):
        return lambda _path, text: (
            [m[1].replace("$$", "$") for m in _RECIPE.finditer(text)] + re.findall(r"\$\(shell ([^)]*)\)", text)
        )
    return _kind_of_project(name)


def _kind_of_project(name: str) -> Callable[[str, str], list[str]] | None:
    if name in (
        "setup.py",
        "conftest.py",
        "sitecustomize.py",
        "usercustomize.py",
        "wscript",
        "SConstruct",
        "manage.py",
    ):
        return lambda _path, text: [f"python3 -c {_quoted(text)}"]
    if _NODE_CONFIGURATION.fullmatch(name):
        return lambda _path, text: [f"node -e {_quoted(text)}"]
    if name == "package.json":
        return _package_scripts
    if name in _PROJECT_FILES or name.endswith((".cmake", ".gradle", ".ninja", ".just")):
        return lambda _path, _text: []
    if name == "Dockerfile":
        return None
    if name in ("Rakefile", "Gemfile", "Vagrantfile"):
        return lambda _path, text: [f"ruby -e {_quoted(text)}"]
    return None


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _script(_path: str, text: str) -> list[str]:
    match = re.match(r"#!\s*(?:/usr/bin/env\s+)?(\S+)", text)
    program = match[1].rpartition("/")[2] if match else "sh"
    if program.startswith(("python", "perl", "ruby", "node")):
        return [f"{program} {'-c' if program.startswith('python') else '-e'} {_quoted(text)}"]
    return [text]


def _udev_or_script(path: str, text: str) -> list[str]:
    if "udev" in path:
        return [match[1] for match in _RUN.finditer(text)]
    if "apt.conf.d" in path:
        return [match[2] for match in _HOOK.finditer(text)]
    if paths.in_any(path, ("/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system")):
        return [match[1] for match in _EXEC.finditer(text)]
    return _script(path, text)


def _crontab(_path: str, text: str) -> list[str]:
    return cron_commands(text)


def _crontab_with_user(_path: str, text: str) -> list[str]:
    return cron_commands(text, has_user=True)


def _package_scripts(_path: str, text: str) -> list[str]:
    try:
        scripts = json.loads(text).get("scripts", {})
    except (ValueError, AttributeError):
        return []
    return [value for value in scripts.values() if isinstance(value, str)] if isinstance(scripts, dict) else []


def make(call: Call) -> None:
    """A makefile that was given on the command line or on standard input."""
    options = split(call.args, ("f", "C", "j", "I", "o", "W", "eval", "file", "makefile", "directory"))
    file = options.value("f", "file", "makefile")
    if file is not None and file.text in ("-", "/dev/stdin") and call.stdin is not None:
        judge("Makefile", call.stdin, call.walker)
    elif file is not None and not (file.text or "").endswith(("akefile", ".mk")):
        place = call.place(file)
        if place.text in call.state.files:
            judge("Makefile", call.state.files[place.text].content, call.walker)
    for value in options.all_values("eval"):
        judge("Makefile", ("\t" + re.sub(r"^[^:]*:", "", value.shown).lstrip(";\n\t "),), call.walker)
        judge("Makefile", value.parts, call.walker)


CHECKS: dict[str, Callable[[Call], None]] = {"make": make}

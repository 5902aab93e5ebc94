"""Commands in the arguments of any program: `-o '|cmd'`, `tool record bash -c '…'`.

What the tables do not name is found by its form. An argument that begins with a pipe or an exclamation mark is a
command to nearly every program that takes one there; a shell with `-c` among the arguments will be started. What runs
is judged; that something runs is no finding by itself.
"""

from __future__ import annotations

import re
from functools import partial
from itertools import pairwise

from server_monitor.tasks.policy import carriers, guessed, programs, scripts
from server_monitor.tasks.policy.calls import READERS, Call, again
from server_monitor.tasks.policy.options import named
from server_monitor.tasks.policy.parsing import SyntaxWrong
from server_monitor.tasks.policy.values import Field, Gap, known, text_of
from server_monitor.tasks.policy.wrapping.wrappers import WRAPPERS

# Programs to which their arguments are text.
_TEXT = named(
    "echo printf grep egrep fgrep rg ag zgrep sed awk logger wall write git man which type apropos whatis jq yq tr "
    "expr test [ cut sort basename dirname history notify-send figlet cowsay mail mutt sendmail pgrep pkill kill "
    "killall apt-get dpkg yum dnf rpm zypper pacman apk find ls cat rm cp mv touch ansible salt vi ed ex"
)
# Programs that only look at, move or pack a file.
_READS = READERS | named(
    "less more most bat diff cmp wc file stat md5sum sha1sum sha256sum tar zip scp rsync chown test source . tee dd "
    "install mktemp readlink realpath du split curl wget aws gpg openssl logger mail docker kubectl shellcheck"
)
_LANGUAGES = {"py": "python", "rb": "ruby", "js": "node", "mjs": "node", "cjs": "node", "ts": "node", "pl": "perl"}
_LANGUAGES |= {"lua": "lua", "php": "php", "tcl": "tclsh", "exp": "expect"}
_PIPE = re.compile(r"^(?:-\w|--[\w-]+=)?\s*[|!]\s*([A-Za-z_./({$\"'].*)", re.DOTALL)


def judge(call: Call) -> None:
    """Judge the commands that stand in the arguments of this call by their form."""
    if call.name in _TEXT or call.name in programs.SHELLS:
        return
    for arg in call.args:
        if (match := _PIPE.match(arg.text or "")) is not None:
            _run(match[1], arg, call)
    _files(call)
    is_known = call.name in WRAPPERS or call.name in carriers.CODE_OPTIONS
    if not is_known and (place := _shell(call.args)) is not None:
        again(call, call.args[place:], call.name)
    elif not is_known and call.args:
        _guess(call)
    if call.name == "split":
        _split(call)
    elif call.name == "nmap":
        _nmap(call)


_TAKES_A_COMMAND = re.compile(
    r"--?(?:[\w-]+-)?(?:c|x|e|exec|execute|command|cmd|run|shell|hook|on-\w+|launcher|wrapper|runner)"
)


def _guess(call: Call) -> None:
    """A program that nobody here knows, and words behind it that would be a denied command."""
    walker, texts = call.walker, call.texts
    names = [programs.canonical(text) for text in texts]
    place = next((i for i, name in enumerate(names[:-1]) if name in guessed.DESTROYERS), None)
    if place is None and "--" in texts[:-1]:
        place = texts.index("--") + 1
    if place is not None and (names[place] in guessed.COMMANDS or names[place] in WRAPPERS):
        guessed.denials(lambda: again(call, call.args[place:], call.name), walker)
    for option, value in pairwise(texts):
        if _TAKES_A_COMMAND.fullmatch(option):
            guessed.texts([value], call.name, call.span, walker)
    values = [text.partition("=") for text in texts if "=" in text]
    codes = [v for option, _, v in values if option.isidentifier() or _TAKES_A_COMMAND.fullmatch(option)]
    guessed.texts(codes, call.name, call.span, walker)


def _files(call: Call) -> None:
    """A file that the task wrote, given to a program that may run what stands in it."""
    if call.name in _READS or call.name in carriers.CODE_OPTIONS or call.name in ("awk", "make"):
        return
    for arg in call.args:
        for text in call.written_files(arg):
            guessed.texts(guessed.lines(text), call.name, arg.span, call.walker)
            language = _LANGUAGES.get((arg.text or "").rpartition(".")[2])
            if language is not None:
                code = partial(carriers.judge_code, language, (text,), call, arg.span)
                guessed.denials(code, call.walker)


def _run(text: str, arg: Field, call: Call) -> None:
    """Judge a text that may be a command. One that no shell could read is none."""
    try:
        call.walker.account.tree(text, call.walker.dialect)
    except SyntaxWrong:
        return
    scripts.run_parts((text,), call, call.name, arg.span)


def _shell(args: list[Field]) -> int | None:
    """Where a shell with a command string begins."""
    for place, arg in enumerate(args[:-1]):
        name = programs.canonical(arg.text or "")
        if name in programs.SHELLS and re.fullmatch(r"-\w*c", args[place + 1].text or ""):
            return place
    return None


def _split(call: Call) -> None:
    """`split --filter=sh FILE`: the pieces of the file are what the filter reads."""
    for place, arg in enumerate(call.args):
        option, equals, value = (arg.text or "").partition("=")
        if option != "--filter":
            continue
        code = known(value, arg.span) if equals else next(iter(call.args[place + 1 :]), None)
        file = next((a for a in call.args if not a.prefix.startswith("-") and a is not code), None)
        content = call.walker.content(file) if file is not None and not call.stdin else call.stdin
        text = text_of(code.parts) if code is not None else None
        if text is not None and content is not None and text.split()[:1]:
            program = programs.canonical(text.split()[0])
            if program in programs.SHELLS and "-c" not in text.split():
                inner = Call("", [], arg.span, call.walker, stdin=content)
                scripts.run_parts(content, inner, "split --filter", arg.span, is_stdin=True)


def _nmap(call: Call) -> None:
    """A script of nmap is a program in Lua. Those that come with it are named without a path."""
    for place, arg in enumerate(call.args):
        option, equals, value = (arg.text or "").partition("=")
        if option not in ("--script", "-script"):
            continue
        script = known(value, arg.span) if equals else next(iter(call.args[place + 1 :]), None)
        if script is None or re.fullmatch(r"[\w*-]+(?:,[\w*-]+)*|\(?[\w* -]+\)?", script.text or "/"):
            continue
        call.walker.find("rce.code_primitive", f"makes nmap run {script.shown}", script.span)
        content = call.walker.content(script)
        if not all(isinstance(part, Gap) for part in content):
            carriers.judge_code("lua", content, call, script.span)

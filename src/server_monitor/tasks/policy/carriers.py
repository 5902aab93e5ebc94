"""Programs that carry code in another language: interpreters, editors, debuggers, and options that run a command.

What is inside is searched for the primitives that start a process, delete, write, load or talk to the network. Text
literals given to such a primitive are judged as shell. What looks harmless is data.
"""

from __future__ import annotations

import re

from server_monitor.tasks.policy import ansi_c, constants, gtfo, python_code, scripts
from server_monitor.tasks.policy.calls import Call, again
from server_monitor.tasks.policy.options import Options, named, split
from server_monitor.tasks.policy.removing import removal
from server_monitor.tasks.policy.values import (
    Field,
    Gap,
    Parts,
    Shape,
    Source,
    Span,
    flat,
    globbed,
    joined,
    known,
    text_of,
)
from server_monitor.tasks.policy.writing import write

# How each takes code on its command line, and which of its options take a value.
CODE_OPTIONS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "python": (named("c"), named("c m W X Q")),
    "perl": (named("e E"), named("e E I M m F i l 0 C D x")),
    "ruby": (named("e"), named("e r I C E K F")),
    "node": (named("e p eval print pe"), named("e p r eval print require C import input-type")),
    "php": (
        named("r B R E run process-code process-begin process-end"),
        named("r f B R E F d c z S t run process-code"),
    ),
    "lua": (named("e"), named("e l")),
    "tclsh": (named("c"), named("c encoding")),
    "Rscript": (named("e"), named("e")),
    "julia": (named("e E eval print"), named("e E eval print L load p t")),
    "guile": (named("c"), named("c l e s L")),
    "racket": (named("e"), named("e f t l r")),
    "groovy": (named("e"), named("e")),
    "osascript": (named("e"), named("e l s")),
    "pwsh": (named("c Command command EncodedCommand e"), named("c Command command File f EncodedCommand e")),
    "elixir": (named("e eval"), named("e eval r")),
    "erl": (named("eval"), named("eval s run noshell")),
    "ghci": (named("e"), named("e")),
    "swift": (named("e"), named("e")),
    "deno": (named("eval"), named("eval")),
    "bun": (named("e eval"), named("e eval")),
    "expect": (named("c"), named("c f")),
    "scala": (named("e"), named("e")),
    "jshell": (named(""), named("")),
}
SINGLE_DASH = named("erl pwsh")

_PROCESS = re.compile(
    r"\b(?:system|exec[lv]?p?e?|popen[23]?|spawn\w*|execSync|execFile\w*|shell_exec|passthru|proc_open|pcntl_exec|backtick|"
    r"qx|Open3|IO\.popen|os\.execute|io\.popen|subprocess|child_process|Kernel\.fork|fork|syscall|ProcessBuilder|Runtime|"
    r"Process\.(?:spawn|Start|start)|run_command|do shell script|sys\.process|open-pipe|open-input-pipe|Start-Process|"
    r"Invoke-\w+|iex|pipe|process/ports|sh\s+-c|:os\.cmd|os:cmd|System\.cmd|!\!|run\(|cmd\()|`[^`]+`|%x[\[({|!]",
)
_DELETES = re.compile(
    r"\b(?:unlink\w*|rmtree|rmdir\w*|rm_rf?|rm_r|remove_tree|remove_dir_all|FileUtils|rmSync|unlinkSync|rmdirSync|truncate\w*|"
    r"File\.(?:delete|write|open|rename|chmod)|fs\.(?:rm|unlink|write\w*|rename\w*|chmod\w*|truncate\w*|append\w*)|"
    r"os\.remove|os\.rename|"
    r"file_put_contents|fwrite|fopen|rename|chmod|chown|symlink|Remove-Item|Set-Content|Clear-\w+|Stop-\w+|"
    r"Restart-\w+|file delete|"
    r"writeFile\w*|appendFile\w*|createWriteStream|Deno\.(?:remove|write|rename|truncate|chmod|chown|copy|symlink)\w*|Dir\.(?:delete|rmdir|unlink)|copy_file|delete-file)\b|\bkill\b|\.(?:rm|rmdir|unlink|truncate)(?:Sync)?\s*\("
)
_OPEN_WRITE = re.compile(r"open\w*\s*\(?[^;)]*?[\"']\s*(?:>{1,2}|\+?[wa]\+?b?[\"']|\|)|\|-|-\|")
_NETWORK = re.compile(
    r"\b(?:socket|TCPSocket|fsockopen|IO::Socket|net\.(?:connect|Socket|createConnection)|require\(['\"]net['\"]\)|"
    r"Net::HTTP|LWP|open-uri|urllib|http\.get|https\.get|fetch\(|curl_exec|Net\.WebClient|DownloadString|socket\.tcp)"
)
_EVAL = re.compile(
    r"\b(?:eval|instance_eval|class_eval|Function\(|loadstring|load\(|create_function|assert\(|unserialize|require_once|include)\b"
)
_STRING = re.compile(
    r"\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'|`([^`]*)`|%x[\[({|!]([^\])}|!]*)[\])}|!]|q[qx]?[\[({/|!]([^\])}/|!]*)[\])}/|!]",
    re.DOTALL,
)
_LOOPS = re.compile(
    r"\bwhile\s*\(?\s*(?:1|true|!0|\"\w+\")\s*\)?|\bfor\s*\(\s*;\s*;|\bloop\s*(?:do|\{)|\buntil\s*\(?\s*(?:0|false)\b|\bredo\b|"
    r"\bwhile\s+(?:1|true|sleep)\b|(?:^|;|\{)\s*while\s*\{\s*1",
    re.IGNORECASE,
)
_PACED = re.compile(
    r"sleep|\blast\b|\bexit\b|\bbreak\b|<STDIN>|<>|\baccept|\bgets\b|\breturn\b|\bwait|getline|readline|recv|select\("
)
_FORKS = re.compile(r"fork\b|spawn|popen|system|exec|Process", re.IGNORECASE)
_HUGE = re.compile(
    r"\bx\s*=?\s*(?:1e\d\d|10\*\*\d\d|\d{10,}|2\*\*\d\d)|\*\s*(?:10\*\*\d\d|\d{10,}|2\*\*\d\d)|"
    r"(?:repeat|str_repeat|alloc\w*|Array|fill|range)\([^)]*(?:\d{10,}|1e\d\d)|\*\s*1024\s*\*\s*1024\s*\*\s*1024",
    re.IGNORECASE,
)
_SQL = re.compile(
    r"\bdrop\s+(?:database|table|schema|keyspace|collection|user|role|index|view)\b|\btruncate\s+(?:table\s+)?[a-z_]\w*\s*(?:[;'\"]|$)|"
    r"\bdelete\s+from\s+[\w.`]+\s*(?:[;'\"]|$|where\s+(?:1|true)\b)|"
    r"dropDatabase|\bflush(?:all|db)\b|deleteMany\(\s*\{\s*\}|\bremove\(\s*\{\s*\}\s*\)|dropCollection",
    re.IGNORECASE,
)


def judge(call: Call) -> None:
    """Judge the code that this call carries, in options, in operands or on its standard input."""
    if call.name == "awk":
        _awk(call)
    elif call.name in CODE_OPTIONS:
        _interpreter(call)
    if gtfo_check := gtfo.CHECKS.get(call.name):
        gtfo_check(call)


def judge_code(language: str, parts: Parts, call: Call, span: Span) -> None:
    """Judge code in a language. Gaps in it are code that nobody has seen."""
    text = text_of(parts)
    if text is None:
        gap = next((part for part in parts if isinstance(part, Gap)), Gap())
        network = any(isinstance(part, Gap) and part.source is Source.NETWORK for part in parts)
        if network:
            call.walker.find(
                "rce.download_to_interpreter", f"runs what {gap.detail or 'a download'} fetches as {language}", span
            )
            return
        texts = [part for part in parts if isinstance(part, str)]
        if not any(t.strip() for t in texts) or (gap.shape is Shape.ANY and language == "python"):
            call.walker.find("opaque.interpreter", f"runs {language} code that comes from {gap.source.value}", span)
        text = "".join(part if isinstance(part, str) else "0" for part in parts)
    if language != "python":
        text = constants.folded(text)
    judge_data(language, text, call, span)
    if language == "python":
        python_code.judge(text, call, span)
    else:
        _search(language, text, call, span)


def _interpreter(call: Call) -> None:
    code_options, takes = CODE_OPTIONS[call.name]
    args = _clustered(call.args, code_options) if call.name in ("perl", "ruby") else call.args
    options = split(args, takes, stops=True, single_dash=call.name in SINGLE_DASH)
    code = options.all_values(*code_options)
    for piece in code:
        for parts in (piece.parts, *piece.alts):
            judge_code(call.name, flat(parts), call, piece.span)
    _judge_file_option(options, call)
    if call.name == "python":
        _python_module(options.value("m"), options.operands, call)
    if code or options.has("m", "version", "V", "v", "help", "h"):
        return
    operands = options.operands
    if call.name in ("deno", "bun") and len(operands) > 1 and operands[0].text == "eval":
        judge_code("node", flat(operands[1].parts), call, operands[1].span)
        return
    if operands and operands[0].text not in ("-", "/dev/stdin", None):
        _file(operands[0], call)
    elif operands and operands[0].text is None:
        judge_code(call.name, call.walker.content(operands[0]), call, operands[0].span)
    elif call.stdin is not None:
        given = call.stdin
        if any(isinstance(part, Gap) for part in given) and not any(
            isinstance(p, Gap) and p.source is Source.NETWORK for p in given
        ):
            call.walker.find("opaque.interpreter", f"runs {call.name} code from its standard input", call.span)
            return
        judge_code(call.name, given, call, call.span)


def _judge_file_option(options: Options, call: Call) -> None:
    file = options.value("f", "F", "File") if call.name in ("expect", "php", "pwsh") else None
    if file is not None:
        _file(file, call)


def _clustered(args: list[Field], code: frozenset[str]) -> list[Field]:
    """`-ne CODE` and `-pi -e CODE` with the code letter as an option of its own."""
    found: list[Field] = []
    for arg in args:
        text = arg.text or ""
        match = re.fullmatch(r"-([a-zA-Z0-9]*?)([eE])", text)
        if match and len(text) > 2 and match[2] in code:
            found += [
                known("-" + match[1].replace("i", "") if match[1] != "i" else "-w", arg.span),
                known("-" + match[2], arg.span),
            ]
        else:
            found.append(arg)
    return found


def _file(file: Field, call: Call) -> None:
    place = call.place(file)
    if place.is_exact and place.text in call.state.files:
        judge_code(call.name, call.state.files[place.text].content, call, file.span)
    elif place.text.startswith(("/dev/fd/", "/proc/self/fd/")) or place.text.startswith(("/dev/tcp", "http")):
        judge_code(call.name, call.walker.content(file), call, file.span)
    elif re.match(r"https?://", file.text or ""):
        call.walker.find("rce.download_to_interpreter", f"runs {file.shown} unseen", file.span)
    else:
        scripts.judge_place(place.text, call)


_SAFE_MODULES = named(
    "http.server json.tool venv pip ensurepip zipfile tarfile timeit unittest pytest site sysconfig calendar cProfile "
    "compileall py_compile this platform base64 gzip uuid ast dis tokenize trace SimpleHTTPServer virtualenv "
    "build twine black "
    "ruff mypy flake8 pylint isort poetry pipx ansible flask gunicorn uvicorn celery django alembic coverage "
    "sphinx doctest"
)


def _python_module(module: Field | None, rest: list[Field], call: Call) -> None:
    if module is None:
        return
    name = module.text or ""
    if name == "pip":
        again(call, [known("pip", module.span), *rest], "python -m")
    elif name == "timeit" and rest:
        judge_code("python", rest[-1].parts, call, rest[-1].span)
    elif name in ("pty", "code", "pdb", "webbrowser"):
        call.walker.find("rce.code_primitive", f"starts {name} of Python", module.span)


def _awk(call: Call) -> None:
    options = split(call.args, named("F v f e i E l assign file source include exec load field-separator"), stops=True)
    sources = options.all_values("e", "source")
    file = options.value("f", "file", "E", "exec")
    if not sources and file is None:
        sources = options.operands[:1]
    if file is not None:
        place = call.place(file)
        if place.text in call.state.files:
            sources = [*sources, Field(call.state.files[place.text].content, file.span)]
        else:
            scripts.judge_place(place.text, call)
    for source in sources:
        text = source.text
        if text is None:
            gap = source.gap
            if gap is not None and gap.source is Source.NETWORK:
                call.walker.find("rce.download_to_interpreter", "runs a download as awk", source.span)
            text = "".join(part if isinstance(part, str) else "0" for part in source.parts)
        _awk_program(text, call, source.span)
        _awk_variables(text, options.all_values("v", "assign"), call, source.span)


def _awk_variables(text: str, assigned: list[Field], call: Call, span: Span) -> None:
    """`awk -v f=FILE '… > f'`: the file that the variable names."""
    values = dict(value.shown.partition("=")[::2] for value in assigned)
    for name, file in values.items():
        if (match := re.search(rf"(>{{1,2}})\s*\(?\s*{re.escape(name)}\b", text)) is not None and file:
            write(known(file, span), (Gap(Source.OUTPUT),), call.walker, is_appended=match[1] == ">>")


_AWK_SYSTEM = re.compile(r"\bsystem\s*\(")
_AWK_PIPE = re.compile(r"(?<!\|)\|&?(?!\|)\s*(?:getline\b|\"|[a-zA-Z_]\w*)|\"\s*\|&?\s*getline|/inet\d?/")
_AWK_WRITE = re.compile(r"\bprintf?\b[^;}\n|]*>{1,2}\s*\"([^\"]+)\"")


def _awk_program(text: str, call: Call, span: Span) -> None:
    bare = re.sub(r"\"(?:[^\"\\]|\\.)*\"", '""', text)
    bare = re.sub(r"(?:^|[\s(,!~{;&|])/(?:[^/\\\n]|\\.)+/", " // ", bare)
    has_pipe = re.search(r"(?<!\|)\|&?(?!\|)", bare) is not None
    if "/inet" in text and "|&" in text:
        call.walker.find("rce.reverse_shell", "talks to the network from awk", span)
    if _AWK_SYSTEM.search(bare) or has_pipe:
        _literals(text, call, span, "awk", "runs a command from awk")
    for match in _AWK_WRITE.finditer(text):
        write(known(match[1], span), (Gap(Source.OUTPUT),), call.walker, is_appended=">>" in match[0])
    if not has_pipe:
        judge_loops("awk", bare, call, span)


def _search(language: str, text: str, call: Call, span: Span) -> None:
    """Look for primitives in code that is not parsed. Comments are not code."""
    code = _without_comments(language, text)
    bare = re.sub(r"\"(?:[^\"\\`]|\\.)*\"|'(?:[^'\\]|\\.)*'", '""', code)
    judge_loops(language, bare, call, span)
    if language == "expect":
        _expect(code, call, span)
        return
    _device(code, call, span, language)
    dynamic = constants.DYNAMIC.get(language)
    if dynamic is not None and dynamic.search(code):
        call.walker.find("rce.code_primitive", f"calls what {language} works out by name", span)
    starts = _PROCESS.search(bare) or _starts_differently(language, code)
    network = _NETWORK.search(code)
    if network and (starts or re.search(r"\b(exec|spawn|/bin/(ba)?sh|cmd\.exe)\b", code)):
        call.walker.find("rce.reverse_shell", f"connects a process with the network from {language}", span)
    elif network and _EVAL.search(bare):
        call.walker.find("rce.download_to_interpreter", f"runs what {language} fetches", span)
    if starts:
        _literals(code, call, span, language, f"starts a process from {language}")
    elif _DELETES.search(bare) or (_DELETES.search(code) and not _is_print(bare)) or _OPEN_WRITE.search(code):
        _touches(code, call, span, language)
    elif _EVAL.search(bare):
        call.walker.find("rce.code_primitive", f"evaluates text as code in {language}", span)


_DISK = re.compile(r"/dev/(?:sd|vd|xvd|hd|nvme|mmcblk|dm-|md|mapper/|disk/|loop|mem\b|kmem\b|port\b|sr\d)\w*")
_WRITES = re.compile(
    r"[\"'\s,{(]\+?(?:r\+b?|rb\+|w[b+]*|a[b+]*|x|\+?>{1,2}|\+<)[\"'\s;)\]},:]|O_WRONLY|O_RDWR|[Ww]rite|put_contents|"
    r"\b(?:syswrite|puts|dump|binwrite|truncate|copyFile\w*|openSync\([^)]*[\"'](?:r\+|w|a))|[\"'][+]?>"
)


def _device(code: str, call: Call, span: Span, language: str) -> None:
    """A disk that is opened for writing, in whatever language."""
    if (disk := _DISK.search(code)) is not None and _WRITES.search(code):
        call.walker.find("fs.write_device", f"writes to {disk[0]} from {language}", span)


def judge_loops(language: str, bare: str, call: Call, span: Span) -> None:
    """Loops that nothing ends or slows down, and sizes that no host has."""
    if _HUGE.search(bare):
        call.walker.find("bomb.fill", f"fills memory or a disk from {language}", span)
    if _LOOPS.search(bare) is None or _PACED.search(bare):
        if re.search(r"fork\b.*\bfork\b.*(?:while|redo|goto|&)|fork\s+while|while\s*\(?\s*fork", bare):
            call.walker.find("bomb.fork", f"starts processes without end from {language}", span)
        return
    if _FORKS.search(bare):
        call.walker.find("bomb.fork", f"starts processes without end from {language}", span)
    else:
        call.walker.find("bomb.fill", f"loops without end in {language}", span)


def judge_data(language: str, text: str, call: Call, span: Span) -> None:
    """Statements for a database, in whatever language they are sent."""
    if _SQL.search(text):
        call.walker.find("data.drop", f"destroys data from {language}", span)


def _is_print(bare: str) -> bool:
    return re.fullmatch(r"\s*(?:print|puts|say|echo|console\.log|p)\b[^;]*;?\s*", bare) is not None


def _starts_differently(language: str, code: str) -> bool:
    if language in ("tclsh", "wish", "expect"):
        return re.search(r"\bexec\b|open\s+[\"{]?\|", code) is not None
    if language == "perl":
        return re.search(r"\bopen\s*\(?[^;]*[\"']\s*\||\|\s*[\"']|\bdo\s+[\"'`]|\bsyscall\b", code) is not None
    if language == "node":
        return "child_process" in code or "process.binding" in code
    if language == "ruby":
        return re.search(r"\bopen\s*\(?\s*[\"']\|", code) is not None
    return False


def _without_comments(language: str, text: str) -> str:
    if language in ("node", "php", "groovy", "scala", "swift", "deno", "bun"):
        return re.sub(r"(?m)(?<![:\"'])//.*$", "", text)
    if language == "lua":
        return re.sub(r"(?m)--.*$", "", text)
    return re.sub(r"(?m)(?:^|\s)#(?!\{).*$", "", text)


def _literals(code: str, call: Call, span: Span, language: str, why: str) -> None:
    """The strings in code that starts a process are judged as shell; approval is needed in any case."""
    call.walker.find("rce.code_primitive", why, span)
    texts = [unescaped(next(g for g in m.groups() if g is not None)) for m in _STRING.finditer(code)]
    texts = [text for text in texts if text.strip()]
    for text in _unique([*texts[:8], " ".join(texts[:12]), "".join(texts[:12])]):
        if _looks_like_command(text):
            scripts.run_parts((text,), call, language, span)


def _unique(texts: list[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _looks_like_command(text: str) -> bool:
    return bool(re.match(r"\s*[\w./\\$({:!\[~-]", text)) and len(text) < 4000 and "\0" not in text


def unescaped(text: str) -> str:
    return ansi_c.decoded(text) if "\\" in text else text


def _touches(code: str, call: Call, span: Span, language: str) -> None:
    """Code that deletes or writes: the paths in it are judged as if `rm -rf` and a redirection named them."""
    for match in _STRING.finditer(code):
        text = unescaped(next(g for g in match.groups() if g is not None)).lstrip("><+ ")
        if not re.match(r"[/~.]", text) or "\n" in text:
            continue
        before = len(call.walker.account.findings)
        field = Field(joined(tuple(_path_parts(text))), span)
        if re.search(r"rm|unlink|delete|remove|rmdir|Tree|truncate", code):
            removal(field, call, is_tree=True)
        if len(call.walker.account.findings) == before and re.search(
            r"write|open|>|put|copy|symlink|rename|append", code
        ):
            write(field, (Gap(Source.OUTPUT),), call.walker, is_appended=">>" in code or "'a'" in code)
    call.walker.find("rce.code_primitive", f"deletes or writes from {language}", span)


def _path_parts(text: str) -> Parts:
    return globbed(text)


def _expect(code: str, call: Call, span: Span) -> None:
    call.walker.find("rce.code_primitive", "drives a program with expect", span)
    for match in re.finditer(r"(?:spawn|send|exec|system)\s+(?:--?\s*)?\"?([^\"\n;}]+)\"?", code):
        text = match[1].replace("\\r", "").replace("\\n", "")
        scripts.run_parts((text,), call, "expect", span)

"""Options by which ordinary programs run a command, read code or write a file: what GTFOBins collects.

Most are data: a program, the options whose value is a command, and patterns of arguments that start one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from server_monitor.tasks.policy import scripts, version_control
from server_monitor.tasks.policy.calls import Call, again
from server_monitor.tasks.policy.options import named, split
from server_monitor.tasks.policy.values import Field, Gap, Source, known
from server_monitor.tasks.policy.writing import write

Check = Callable[[Call], None]


@dataclass(frozen=True, slots=True)
class Row:
    """`options` take a command as their value; `pattern` finds one in any argument, in its first group if it has one.

    With `is_shell`, the command is read by a shell and judged; else it is only reported. `asks` is false for commands
    that are harmless as long as what they run is.
    """

    options: frozenset[str] = frozenset()
    pattern: str = ""
    asks: bool = True


def _row(options: str = "", pattern: str = "", *, asks: bool = True) -> Row:
    return Row(named(options), pattern, asks)


ROWS: dict[str, Row] = {
    "tar": _row(
        "--to-command -I --use-compress-program --rsh-command --info-script -F --new-volume-script",
        r"--checkpoint-action=['\"]?exec=(.*)|--(?:to-command|use-compress-program|rsh-command|info-script|new-volume-script)=(.*)|^-I(.+)",
        asks=False,
    ),
    "zip": _row("-TT --unzip-command", r"--unzip-command=(.*)"),
    "rsync": _row("-e --rsh --rsync-path", r"--(?:rsh|rsync-path)=(.*)|^-e(.+)", asks=False),
    "git": _row(
        "",
        r"(?:core\.(?:pager|sshCommand|fsmonitor|editor|hooksPath|askPass|gitProxy)|alias\.[\w-]+|pager\.\w+|diff\.external|credential\.helper|sequence\.editor|gpg\.program|filter\.\w+\.\w+|uploadpack\.packObjectsHook|protocol\.ext\.allow|diff\.\w+\.\w+|merge\.\w+\.driver|interactive\.diffFilter|receive\.\w+)=!?(.*)|^--(?:upload-pack|receive-pack|exec|open-files-in-pager|ext-diff|extcmd|exec-path)=(.*)|^ext::(.*)",
        asks=False,
    ),
    "svn": _row("--diff-cmd --diff3-cmd --editor-cmd", r"--(?:diff|diff3|editor)-cmd=(.*)", asks=False),
    "man": _row("-P --pager -H", r"--(?:pager|html)=(.*)|^-[PH](.+)"),
    "tcpdump": _row("-z", r"^-z(.+)"),
    "split": _row("--filter", r"--filter=(.*)", asks=False),
    "apt-get": _row(
        "",
        r"(?i)(?:Pre-Invoke|Post-Invoke|Post-Invoke-Success|Pre-Install-Pkgs|Dir::Bin::\w+|ProxyAutoDetect|Invoke)[^=]*=['\"]?(.*?)['\"]?$",
    ),
    "nmap": _row("--script", r"--script=(?:/|\./|.*\.nse)(.*)|--interactive"),
    "sqlite3": _row(
        "",
        r"\.(?:shell|system|load|import ['\"]?\||output ['\"]?\||once ['\"]?\|)\s*(.*)|\bload_extension\s*\((.*)\)|\bedit\s*\(",
    ),
    "mysql": _row(
        "--pager", r"\\!\s*(.*)|\bsystem\s+(.*)|--pager=(.*)|\bsys_exec\w*\((.*)\)|into\s+(?:out|dump)file|load_file\("
    ),
    "psql": _row(
        "",
        r"\\!\s*(.*)|(?i:program)\s+'([^']*)'|\\(?:o|g|w)\s*\|(.*)|\b(?i:lo_import|lo_export|pg_read_file|pg_ls_dir|lo_from_bytea)\s*\(",
    ),
    "vi": _row("-c --cmd", r"^\+?:?!(.*)|^\+?:?(?:silent\s+)?!(.*)|^\+(.+)|^-c(.+)"),
    "ed": _row("", r"^!(.*)"),
    "less": _row("", r"^\+!(.*)"),
    "more": _row("", r"^\+!(.*)"),
    "gdb": _row(
        "-ex --eval-command -x -iex",
        r"^(?:-ex=|-iex=)?(?:shell|!|python|pi|py|make|call|compile code|source|system)\s*(.*)",
    ),
    "lldb": _row("-o --one-line -O -s", r"^(?:platform shell|script|command script)\s*(.*)"),
    "make": _row("", r"^SHELL=(.*)|^\.SHELLFLAGS="),
    "cmake": _row("", r"-DCMAKE_\w+_(?:LAUNCHER|COMPILER_LAUNCHER)=(.*)", asks=False),
    "ninja": _row("", r"$^"),
    "gcc": _row("-wrapper", r"^-wrapper"),
    "cc": _row("-wrapper", r"^-wrapper"),
    "g++": _row("-wrapper", r"^-wrapper"),
    "wget": _row("--use-askpass", r"--use-askpass=(.*)|--use_askpass"),
    "scp": _row("-S", r"^-S(.+)|^-oProxyCommand[= ](.*)|^-o\s*ProxyCommand[= ](.*)|^ProxyCommand[= ](.*)", asks=False),
    "sftp": _row("-S", r"^-S(.+)|^-?o?\s*ProxyCommand[= ](.*)", asks=False),
    "ssh-keygen": _row("-D", r"^-D(.+)"),
    "ssh-agent": _row("", r"$^"),
    "ansible-playbook": _row("", r"$^"),
    "rpm": _row("--pipe", r"--eval[= ]?['\"]?%\{lua|%\(|--pipe=(.*)|--eval=(.*)"),
    "rpmbuild": _row("", r"%\{?lua|%\((.*)\)"),
    "dpkg": _row("", r"--(?:pre|post)-invoke=(.*)"),
    "yum": _row("", r"--plugins|-c\s*/tmp|--setopt=.*plugin"),
    "dnf": _row("", r"--setopt=.*plugin"),
    "logrotate": _row("", r"^/tmp/|^/dev/shm/|^/var/tmp/"),
    "crash": _row("", r"^!(.*)"),
    "ftp": _row("", r"^!(.*)"),
    "telnet": _row("", r"^!(.*)"),
    "socat": _row("", r"(?i)(?:exec|system|shell):['\"]?([^,'\"]*)"),
    "jrunscript": _row("-e", r"exec\((.*)\)"),
    "emacs": _row(
        "--eval -eval --execute", r"\(shell-command\s+\"([^\"]*)\"|\(call-process|\(delete-|\(write-region|--eval=(.*)"
    ),
    "facter": _row("--custom-dir", r"--custom-dir"),
    "gawk-ext": _row("", r"$^"),
    "pip": _row("", r"$^"),
    "npm": _row("", r"--(?:script-shell|node-options)=(.*)"),
    "composer": _row("", r"$^"),
    "cargo": _row("", r"--config=.*(?:runner|linker|rustc-wrapper)=(.*)"),
    "go": _row("-exec -toolexec", r"-(?:exec|toolexec)=(.*)"),
    "openvpn": _row(
        "--up --down --route-up --ipchange --tls-verify --plugin --client-connect --learn-address",
        r"--(?:up|down)=(.*)",
    ),
    "pppd": _row("connect disconnect pty init welcome", r"$^"),
    "dmidecode": _row("", r"--dump-bin"),
    "exiftool": _row("-if -p -execute", r"\bsystem\s*[({](.*)"),
    "ffmpeg": _row("", r"$^"),
    "byebug": _row("", r"(.*)"),
    "cpan": _row("", r"^!(.*)"),
    "dialog": _row("", r"$^"),
    "docker-buildx": _row("", r"$^"),
    "hping3": _row("", r"$^"),
    "latex": _row("", r"\\write18\{(.*)\}|-shell-escape|--shell-escape"),
    "pdflatex": _row("", r"\\write18\{(.*)\}|-shell-escape|--shell-escape"),
    "tex": _row("", r"\\write18\{(.*)\}|-shell-escape|--shell-escape"),
    "lualatex": _row("", r"os\.execute|\\write18\{(.*)\}|-shell-escape"),
    "mail": _row("--exec", r"--exec=['\"]?!?(.*)|^~!(.*)"),
    "mutt": _row("", r"$^"),
    "nano": _row("-s --speller", r"--speller=(.*)"),
    "pico": _row("-s", r"$^"),
    "pdb": _row("", r"(.*)"),
    "restic": _row("--password-command", r"--password-command=(.*)"),
    "rlogin": _row("", r"$^"),
    "run-parts": _row("", r"^/tmp|^/dev/shm|^/var/tmp"),
    "run-mailcap": _row("", r"$^"),
    "service": _row("", r"^(?:\.\./)+(.*)"),
    "slsh": _row("-e", r"system\((.*)\)"),
    "smbclient": _row("-c", r"^!(.*)"),
    "snap": _row("", r"--dangerous"),
    "sysctl": _row("", r"$^"),
    "systemctl": _row("", r"^/tmp/|^/dev/shm/"),
    "valgrind-ms": _row("", r"$^"),
    "wireshark": _row("", r"-X\s*lua_script"),
    "tshark": _row("-X", r"lua_script:(.*)"),
    "xdotool": _row("exec", r"^exec$"),
    "xargs-extra": _row("", r"$^"),
    "xelatex": _row("", r"\\write18\{(.*)\}|-shell-escape"),
    "zsoelim": _row("", r"$^"),
    "zathura": _row("-x", r"$^"),
    "pg_dump": _row("", r"$^"),
    "pg_basebackup": _row("", r"$^"),
    "sort": _row("--compress-program", r"--compress-program=(.*)"),
    "aria2c": _row(
        "--on-download-complete --on-download-start --on-download-error --on-download-stop --on-bt-download-complete",
        r"--on-[\w-]+=(.*)",
    ),
    "curl": _row("", r"$^"),
    "dstat": _row("", r"--plugin"),
    "tcpreplay": _row("", r"$^"),
    "mosquitto_sub": _row("", r"$^"),
    "nohup-x": _row("", r"$^"),
    "inotifywait": _row("", r"$^"),
    "vagrant": _row("", r"$^"),
    "terraform": _row("", r"$^"),
    "bundler": _row("", r"$^"),
    "openssl": _row("-engine", r"^-engine$"),
    "ip": _row("", r"$^"),
    "redis-cli": _row("", r"(?i)os\.execute\((.*)\)|module\s+load\s+(.*)|io\.popen\((.*)\)"),
    "mongo": _row("", r"run(?:Program)?\((.*)\)"),
    "conky": _row("", r"\$\{?exec\s+(.*)"),
    "gimp": _row("-b", r"os\.system\((.*)\)"),
    "octave": _row("--eval", r"system\s*\(\s*['\"]([^'\"]*)"),
    "R": _row("-e", r"system\s*\(\s*['\"]([^'\"]*)"),
    "gnuplot": _row("-e", r"system\s*\(?\s*['\"]([^'\"]*)|^!(.*)"),
    "bc": _row("", r"$^"),
    "dc": _row("", r"^!(.*)"),
    "m4": _row("", r"(?:sysc|e)(?:md|syscmd)\(`?(.*?)'?\)"),
    "irb": _row("", r"(.*)"),
    "iconv-x": _row("", r"$^"),
    "lua-x": _row("", r"$^"),
    "sendmail": _row("", r"-O(?:QueueDirectory|.*Path)=|-X"),
    "exim": _row("-be", r"\$\{run\{(.*)\}\}"),
    "lftp": _row("-c -e", r"(?:^|;)\s*!(.*)"),
    "mtr": _row("", r"$^"),
    "watchexec": _row("", r"$^"),
}

COST_OF_A_COMMAND = 100  # in characters looked at
_READ_SCRIPTS = named("sqlite3 mysql psql ed ftp vi gdb m4 dc gnuplot ex")
_SHELL_WORD = re.compile(r"[A-Za-z_./\\$({!]")


def _check(call: Call) -> None:
    row = ROWS[call.name]
    for place, arg in enumerate(call.args):
        text = arg.text if arg.text is not None else arg.shown
        if text in row.options and place + 1 < len(call.args):
            following = call.args[place + 1]
            if call.name in ("vi", "gdb", "lldb", "mail", "smbclient", "lftp") or call.name == "nmap":
                continue
            _run(following.parts, arg, call, row)
        else:
            _matched(arg, text, call, row)
    if call.stdin is not None and call.name in _READ_SCRIPTS:
        for line in "".join(part for part in call.stdin if isinstance(part, str)).splitlines():
            _matched(call.word, line, call, row)
    if call.name in _READ_SCRIPTS and call.state.files:
        for arg in call.args:
            for text in call.written_files(arg):
                for line in text.splitlines():
                    _matched(call.word, line, call, row)


def _matched(arg: Field, text: str, call: Call, row: Row) -> None:
    if row.pattern and (match := re.search(row.pattern, text, re.DOTALL)) is not None:
        code = next((group for group in match.groups() if group), "")
        _run((code,) if code else (), arg, call, row)


def _run(parts: tuple[object, ...], arg: Field, call: Call, row: Row) -> None:
    call.walker.account.look(COST_OF_A_COMMAND)
    if row.asks:
        call.walker.find(
            "rce.code_primitive",
            f"makes {call.name} run a command",
            arg.span,
            resolved=call.line,
        )
    text = _unquoted("".join(part if isinstance(part, str) else "x" for part in parts).strip())
    if call.name == "git" and _is_harmless_git(arg.text or "", text):
        return
    if not text or not _SHELL_WORD.match(text):
        return
    text = text.removeprefix("!")
    if not row.asks and re.fullmatch(r"[\w./-]+(?: -[\w-]+(?:[ =][\w./@:~-]+)?)*", text):
        program = text.split()[0].rpartition("/")[2]
        if program in HARMLESS_PROGRAMS:
            return
    before = len(call.walker.account.findings)
    scripts.run_parts((text,), call, call.name, arg.span)
    if call.name in ("split", "rsync"):
        return
    if not row.asks and len(call.walker.account.findings) == before:
        call.walker.find(
            "rce.code_primitive",
            f"makes {call.name} run a command",
            arg.span,
            resolved=call.line,
        )


def _unquoted(text: str) -> str:
    """The text without quotes around it, or one that is left at its end."""
    for quote in "\"'":
        if text[:1] == quote == text[-1:]:
            return text[1:-1]
        if text[-1:] == quote and text.count(quote) % 2:
            return text[:-1]
    return text


HARMLESS_PROGRAMS = named(
    "pigz gzip zstd xz bzip2 lz4 lzop zstdmt pbzip2 pixz lbzip2 ssh rsh rsync sudo zstd cat less vim nano store cache osxkeychain unzip diff colordiff meld vimdiff kdiff3 delta difft wdiff icdiff"
)


def _is_harmless_git(arg: str, text: str) -> bool:
    if arg.startswith("core.hooksPath=") and not text.startswith(("/", "~")) and ".." not in text:
        return True  # Hooks of the repository itself; one that the task writes is judged where it is written.
    return ("alias." in arg and not text.startswith("!") and "!" not in arg.partition("=")[2][:1]) or text in (
        "",
        "cat",
        "less",
        "true",
        "vim",
        "nano",
    )


_TAKES_COMMAND = re.compile(r"-[a-zA-Z]*[cS]|--cmd")


def _vi(call: Call) -> None:
    """Editor commands: `:!cmd`, `:w file`, `:e` and scripts."""
    commands = [following for arg, following in pairwise(call.args) if _TAKES_COMMAND.fullmatch(arg.text or "")]
    commands += [known((arg.text or "")[1:], arg.span) for arg in call.args if (arg.text or "").startswith("+")]
    for command in commands:
        text = (command.text or command.shown).lstrip(": ")
        match = re.match(r"(?:silent!?\s*|%|\d+,?\d*|exe\w*\s+['\"]?|normal\s+:)*!+(.*)", text, re.DOTALL)
        if match is not None:
            call.walker.find("rce.code_primitive", f"makes {call.name} run a command", command.span)
            scripts.run_parts((match[1],), call, call.name, command.span)
        elif (
            re.match(
                r"(?:py|python|py3|python3|lua|perl|ruby|call|exec|source|so|let|term|terminal|r !|r!|w !|redir)", text
            )
            or "system(" in text
            or "!" in text[:4]
        ):
            call.walker.find("rce.code_primitive", f"makes {call.name} run code", command.span)
            inner = re.search(r"system\(['\"](.*?)['\"]\)|[rw] ?!(.*)", text)
            if inner is not None:
                scripts.run_parts((inner[1] or inner[2] or "",), call, call.name, command.span)
    _editor_writes(call, [c.text or "" for c in commands])


def _editor_writes(call: Call, commands: list[str]) -> None:
    """An editor that is told to write changes the file that it was opened on."""
    saves = any(
        re.search(r"(?:^|\||:)\s*(?:w|wq|x|wq!|w!|up|update)\b", command) for command in commands
    ) or call.name in ("ed", "ex")
    if not saves or (call.name == "ed" and call.stdin is None):
        return
    skip = False
    for arg in call.args:
        if skip:
            skip = False
        elif _TAKES_COMMAND.fullmatch(arg.text or "") or arg.text in ("-u", "-i", "-s", "-T", "-p"):
            skip = arg.text not in ("-s", "-p")
        elif not arg.prefix.startswith(("-", "+")) and arg.parts:
            write(arg, (Gap(Source.FILE),), call.walker, is_appended=False)


def _ed(call: Call) -> None:
    _editor_writes(call, [])
    _check(call)


def _gdb(call: Call) -> None:
    row = ROWS[call.name]
    for arg in call.args:
        text = arg.text or ""
        if (match := re.match(row.pattern, text, re.DOTALL)) is not None:
            call.walker.find("rce.code_primitive", f"makes {call.name} run code", arg.span)
            code = match[1] if match.groups() else ""
            inner = re.search(r"(?:system|popen|call)\w*\(\s*\\?[\"'](.*?)\\?[\"']\s*\)", code)
            scripts.run_parts(((inner[1] if inner else code),), call, call.name, arg.span) if code else None
    for place, arg in enumerate(call.args[:-1]):
        if arg.text in ("--args", "-args"):
            again(call, call.args[place + 1 :], call.name)
            return


_SED_RUNS = re.compile(
    r"(?:^|[;{}\n]|\d|\$|/)\s*e(?:\s+(.*))?$|s(.)(?:(?!\2).)*\2((?:(?!\2).)*)\2[gpiI0-9]*e", re.MULTILINE
)
_SED_WRITES = re.compile(
    r"(?:^|[;{}\n]|\d|\$|/)\s*[wW]\s+(\S+)|s(.)(?:(?!\2).)*\2(?:(?!\2).)*\2[gpiI0-9]*w\s*(\S+)", re.MULTILINE
)


def _sed(call: Call) -> None:
    options = split(call.args, named("e f l E expression file line-length"))
    files = options.all_values("f", "file")
    pieces = options.all_values("e", "expression") or ([] if files else options.operands[:1])
    pieces += [known(text, file.span) for file in files for text in call.written_files(file)]
    for piece in pieces:
        text = piece.text or ""
        if (match := _SED_RUNS.search(text)) is not None and _is_sed_execute(text, match):
            call.walker.find("rce.code_primitive", "makes sed run a command", piece.span)
            code = match[1] or match[3] or ""
            if code.strip():
                scripts.run_parts((code,), call, "sed", piece.span)
            elif call.stdin is not None:
                scripts.run_parts(call.stdin, call, "sed", piece.span)
        if (wrote := _SED_WRITES.search(text)) is not None:
            target = wrote[1] or wrote[3] or ""
            if "/" in target or target:
                write(known(target, piece.span), (Gap(Source.OUTPUT),), call.walker, is_appended=False)


def _is_sed_execute(text: str, match: re.Match[str]) -> bool:
    if match[2] is not None:
        return True
    whole = match[0].strip()
    return re.fullmatch(r"(?:\d+|\$|[;{}/])?\s*e(\s+.*)?", whole, re.DOTALL) is not None and not re.fullmatch(
        r"s?/.*", text.strip()[:1] + "x"
    )


def _git(call: Call) -> None:
    version_control.git(call)
    _check(call)
    for setting in version_control.settings(call):
        _matched(setting, setting.text or setting.shown, call, ROWS["git"])


CHECKS: dict[str, Check] = {
    **dict.fromkeys(ROWS, _check),
    "vi": _vi,
    "ex": _vi,
    "ed": _ed,
    "gdb": _gdb,
    "lldb": _gdb,
    "sed": _sed,
    "git": _git,
    "hg": version_control.hg,
}

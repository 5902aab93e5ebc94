"""Checks of programs that write: copies, disk dumps, edits in place, links, unpacking, mounting, fetching."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from server_monitor.tasks.policy import critical, paths, searching
from server_monitor.tasks.policy.calls import Call
from server_monitor.tasks.policy.options import named, split
from server_monitor.tasks.policy.paths import Place
from server_monitor.tasks.policy.programs import CURL_VALUES, LENDERS, WGET_VALUES
from server_monitor.tasks.policy.rules.kernel import TUNING
from server_monitor.tasks.policy.values import Field, Gap, Parts, Source, known, shown, text_of
from server_monitor.tasks.policy.writing import is_program, judge_content, special, write

if TYPE_CHECKING:
    pass
MAX_FILL_BYTES = 100 * 10**9
_TUNED = re.compile(TUNING)
_UNITS = {
    "": 1,
    "c": 1,
    "w": 2,
    "b": 512,
    "k": 2**10,
    "K": 2**10,
    "M": 2**20,
    "G": 2**30,
    "T": 2**40,
    "P": 2**50,
    "E": 2**60,
}


def tee(call: Call) -> None:
    options = split(call.args)
    for operand in options.operands:
        content = call.stdin if call.stdin is not None else (Gap(Source.INPUT),)
        write(operand, content, call.walker, is_appended=options.has("a", "append"))


def dd(call: Call) -> None:
    values = {name: arg for arg in call.args for name, eq, _ in [arg.prefix.partition("=")] if eq}
    target, source = values.get("of"), values.get("if")
    given = _value_of(source)
    content = call.walker.content(given) if given is not None else call.stdin
    if given is not None and (place := call.place(given)).text in ("/dev/mem", "/dev/kmem", "/proc/kcore", "/dev/port"):
        call.walker.find("kernel.raw_memory", f"reads memory through {place.text}", given.span)
    size = _dump_size(values)
    parts = content if content is not None else (Gap(Source.INPUT),)
    if size is not None and size <= MAX_FILL_BYTES:
        parts = (Gap(Source.FILE),)
    file = _value_of(target)
    if target is not None and file is not None and not file.prefix and file.gap is not None:
        call.walker.find("opaque.target", f"writes to what {file.gap.source.value} names", file.span)
    elif target is not None and file is not None:
        is_kept = "notrunc" in (values["conv"].prefix if "conv" in values else "")
        write(file, parts if content != () or is_kept else (), call.walker, is_appended=False)


def _value_of(arg: Field | None) -> Field | None:
    if arg is None:
        return None
    first = arg.prefix.partition("=")[2]
    rest = arg.parts[1:]
    return Field(((first, *rest) if first else rest), arg.span)


def _dump_size(values: dict[str, Field]) -> int | None:
    if "count" not in values:
        return None
    count = _bytes((values["count"].text or "").partition("=")[2])
    block = _bytes((values["bs"].text or "").partition("=")[2]) if "bs" in values else 512
    return None if count is None or block is None else count * block


def _bytes(text: str) -> int | None:
    match = re.fullmatch(r"(\d+)([cwbkKMGTPE]?)(i?B)?", text)
    return int(match[1]) * _UNITS[match[2]] if match else None


def truncate(call: Call) -> None:
    options = split(call.args, named("s r o size reference"))
    size = options.value("s", "size")
    empties = size is not None and (size.text or "").strip("-0") in ("", "K", "M")
    for operand in options.operands:
        if empties:
            write(operand, (), call.walker, is_appended=False)
        elif (loss := paths.file_loss(call.place(operand))) or paths.is_log(call.place(operand)):
            call.walker.find("fs.truncate_critical", f"changes the size of {loss or operand.shown}", operand.span)


_CP = named("t S target-directory suffix m o g mode owner group")


def _is_whole(place: Place) -> bool:
    """A tree of the system from its top, as against one directory somewhere in it."""
    return place.text in critical.SYSTEM_TREES or place.text in ("/", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64")


def cp(call: Call) -> None:
    options = split(call.args, _CP)
    target = options.value("t", "target-directory")
    sources = options.operands if target is not None else options.operands[:-1]
    target = target or (options.operands[-1] if len(options.operands) > 1 else None)
    keeps = options.has("p", "a", "archive") or any(arg.prefix.startswith("--preserve") for arg in call.args)
    for source in sources:
        read_secret(source, call)
        name = (source.text or "").rpartition("/")[2]
        if call.name == "cp" and keeps and name in LENDERS and is_program(call.place(source).text):
            call.walker.find("perm.setuid", f"copies {source.shown} with the rights that it lends", source.span)
    if call.name == "install" and options.has("d", "directory"):
        return
    if target is not None:
        copied_into(target, sources, call)


def copied_into(target: Field, sources: list[Field], call: Call) -> None:
    """What lands where: in the target, or under its own name in the directory that the target is."""
    place = call.place(target)
    everything = next((s for s in sources if (s.text or "").endswith("/.") or s.shown.endswith("/*")), None)
    if call.name == "cp" and split(call.args, _CP).has("T", "no-target-directory") and _is_whole(place):
        call.walker.find("fs.sync_into_system", f"copies a whole directory over {place.text}", target.span)
    if everything is not None and _is_whole(place):
        call.walker.find("fs.sync_into_system", f"copies a whole directory over {place.text}", target.span)
    for source in sources:
        content = call.walker.content(source)
        from_place = call.place(source)
        if from_place.text == "/dev/null":
            content = ()
        name = from_place.text.rpartition("/")[2] if from_place.is_exact else ""
        text = target.text
        is_directory = text is not None and (
            text.endswith(("/", "/.")) or text in (".", "..") or place.text in _DIRECTORIES or len(sources) > 1
        )
        if text is None or not is_directory or not name:
            write(target, content, call.walker, is_appended=False)
        else:
            write(known(f"{place.text.rstrip('/')}/{name}", target.span), content, call.walker, is_appended=False)
        is_stream = paths.descriptor(from_place) is not None
        if place.is_exact and from_place.is_exact and not is_stream and from_place.text not in call.state.files:
            path = f"{place.text.rstrip('/')}/{name}" if is_directory else place.text
            call.state.programs[path] = from_place.text


_DIRECTORIES = frozenset(
    (*critical.SYSTEM_TREES, *critical.CONTAINERS, "/usr/bin", "/usr/sbin", "/usr/lib", "/etc/cron.d")
)


def ln(call: Call) -> None:
    options = split(call.args, named("t S target-directory suffix"))
    words = options.operands
    if len(words) < 2:
        return
    target, source = words[-1], words[0]
    place = call.place(target)
    if options.has("f", "force") or options.has("s", "symbolic"):
        is_null = source.text == "/dev/null"
        if options.has("f", "force") or is_null:
            write(
                target, () if is_null and paths.is_log(place) else (Gap(Source.FILE),), call.walker, is_appended=False
            )
    if place.is_exact and source.text is not None:
        there = paths.absolute(source.text, call.state)
        path = place.text
        if target.text is not None and target.text.endswith("/"):
            path = f"{path}/{source.text.rpartition('/')[2]}"
        if there is not None and there != path:
            call.state.files.pop(path, None)
            call.state.links[path] = there


def sed_in_place(call: Call) -> None:
    options = split(call.args, named("e f l expression file line-length"))
    if not (options.has("in-place", "i") or any(re.match(r"-[nrEsz]*i", a.prefix) for a in call.args)):
        return
    files = options.operands if options.has("e", "expression", "f", "file") else options.operands[1:]
    script = " ".join(field.shown for field in (options.all_values("e", "expression") or options.operands[:1]))
    for file in files:
        place = call.place(file)
        judge_content(place.text, _put_there(script), call.walker, file.span)
        if place.text == "/etc/hosts" and not re.search(
            r"s(.)\^?\.\*\$?\1|^\s*(\d+,)?\$?\s*d\s*$|/\s*d\s*$|\d+\.\d+.*\d+\.\d+", script
        ):
            continue
        if place.text == "/etc/selinux/config" and "disabled" not in script and "permissive" not in script:
            continue
        if place.text in (
            "/etc/fstab",
            "/etc/ssh/sshd_config",
            "/etc/environment",
            "/etc/profile",
        ) and script.strip().startswith("s"):
            _judge_edit(place, script, file, call)
            continue
        _edited(file, call)


def _edited(file: Field, call: Call) -> None:
    """A file that is changed in place. A log is not something to edit, whichever it is."""
    place = call.place(file)
    if paths.is_in(place.text, "/var/log") and not paths.is_log(place):
        call.walker.find("log.tamper", f"edits the log {file.shown}", file.span)
    if searching.is_found(place) and not searching.is_wide(place.text) and paths.file_loss(place) is None:
        return  # The configuration of one program is what such edits are for.
    write(file, (Gap(Source.FILE),), call.walker, is_appended=False)


def _put_there(script: str) -> str:
    """What a script of sed puts into a file: its replacements and its added lines, each a line."""
    new = [m[2] for m in re.finditer(r"s([/|#,@])(?:\\.|(?!\1).)*\1((?:\\.|(?!\1).)*)\1", script)]
    return "\n".join([*new, *(m[1] for m in re.finditer(r"[aic]\\?\s+([^;]+)", script))])


def _judge_edit(place: Place, script: str, file: Field, call: Call) -> None:
    """A substitution in a file that people do edit: what it puts there decides."""
    substitution = re.match(r"\s*s(.)(.*?)\1(.*?)\1", script)
    new = substitution[3] if substitution else script
    if re.search(r"PermitRootLogin\s+yes|PermitEmptyPasswords\s+yes", new) or re.search(r"s(.)\^?\.\*\$?\1", script):
        call.walker.find("fs.overwrite_critical_file", f"opens the host by a change of {place.text}", file.span)


def perl_in_place(call: Call) -> None:
    if not any(re.match(r"-\w*i", arg.prefix) for arg in call.args):
        return
    options = split(call.args, named("e E I M"))
    for file in options.operands:
        _edited(file, call)


def awk_in_place(call: Call) -> None:
    options = split(call.args, named("F v f i e include assign file source"))
    if (given := options.value("i", "include")) is not None and given.text == "inplace":
        for file in options.operands[1:]:
            _edited(file, call)


def touch(call: Call) -> None:
    for operand in split(call.args, named("t d r date reference time")).operands:
        if (found := special(call.place(operand))) is not None and found[0] == "perm.user_remove":
            call.walker.find(*found, operand.span)
    options = split(call.args, named("t d r date reference time"))
    if options.has("t", "d", "r", "date", "reference"):
        for operand in options.operands:
            if paths.is_log(call.place(operand)):
                call.walker.find("log.tamper", f"changes the date of the log {operand.shown}", operand.span)


def rsync(call: Call) -> None:
    options = split(call.args, RSYNC)
    if len(options.operands) < 2:
        return
    target = options.operands[-1]
    place = call.place(target)
    is_remote = ":" in (target.text or target.prefix).partition("/")[0]
    if is_remote:
        place = paths.place_of(((target.text or "").partition(":")[2],), call.state)
    deletes = options.has(
        "delete", "del", "delete-before", "delete-after", "delete-during", "delete-delay", "delete-excluded"
    )
    loss = paths.tree_loss(place, call.state)
    if deletes and loss:
        call.walker.find("fs.sync_into_system", f"deletes from {loss} what the source does not have", target.span)
    elif _is_whole(place) and any(source.shown.endswith(("/", "/.", "/*")) for source in options.operands[:-1]):
        call.walker.find("fs.sync_into_system", f"copies a whole directory over {place.text}", target.span)
    elif not is_remote and (place.text == "/" or (paths.is_system(place.text) and not paths.is_in(place.text, "/etc"))):
        call.walker.find("fs.sync_into_system", f"copies over {place.text}", target.span)
    for source in options.operands[:-1]:
        read_secret(source, call)
        if options.has("remove-source-files") and (lost := paths.tree_loss(call.place(source), call.state)):
            call.walker.find("fs.mv_critical", f"moves the files of {lost} away", source.span)


def rclone(call: Call) -> None:
    """`rclone sync FROM TO`, and what else brings a whole directory from elsewhere."""
    words = split(call.args, named("config transfers checkers filter include exclude bwlimit log-file")).operands
    if len(words) < 3 or words[0].text not in ("copy", "sync", "move", "bisync", "copyto", "moveto"):
        return
    target = words[-1]
    place = call.place(target)
    if words[0].text in ("sync", "bisync") and (loss := paths.tree_loss(place, call.state)):
        call.walker.find("fs.sync_into_system", f"deletes from {loss} what the source does not have", target.span)
    elif _is_whole(place):
        call.walker.find("fs.sync_into_system", f"copies a whole directory over {place.text}", target.span)


RSYNC = named(
    "e f rsh exclude include exclude-from include-from files-from filter rsync-path bwlimit timeout port log-file "
    "backup-dir suffix temp-dir compare-dest copy-dest link-dest max-size min-size password-file out-format B T "
    "block-size "
    "chmod chown contimeout partial-dir info debug compress-level"
)


def tar(call: Call) -> None:
    first = call.args[0].text if call.args else ""
    args = call.args
    if first and not first.startswith("-") and re.fullmatch(r"[a-zA-Z]+", first):
        args = [known("-" + first, call.args[0].span), *call.args[1:]]
        if "f" in first and len(args) > 1:
            args = [known("-" + first.replace("f", ""), args[0].span), known("-f", args[1].span), *args[1:]]
    options = split(args, TAR)
    if options.has("x", "extract", "get"):
        _unpacked(options.value("C", "directory"), call)
    if options.has("remove-files"):
        for operand in options.operands:
            if (loss := paths.tree_loss(call.place(operand), call.state)) or (
                loss := paths.file_loss(call.place(operand))
            ):
                call.walker.find("fs.sync_into_system", f"packs {loss} and deletes it", operand.span)
    for operand in options.operands:
        read_secret(operand, call)


TAR = named(
    "f C T X b g H I K L N V exclude directory file files-from exclude-from strip-components strip transform "
    "xform owner "
    "group mode mtime to-command checkpoint-action use-compress-program new-volume-script info-script rsh-command "
    "listed-incremental newer after-date record-size blocking-factor format warning"
)


def _unpacked(folder: Field | None, call: Call) -> None:
    place = call.place(folder) if folder is not None else Place(call.state.cwd or "", "" if call.state.cwd else ".*")
    if (
        place.text == "/"
        or paths.in_any(
            place.text, ("/etc", "/bin", "/sbin", "/lib", "/lib64", "/boot", "/usr/bin", "/usr/sbin", "/usr/lib")
        )
        or place.text == "/usr"
    ):
        span = folder.span if folder is not None else call.span
        call.walker.find("fs.sync_into_system", f"unpacks over {place.text}", span)


def unzip(call: Call) -> None:
    options = split(call.args, named("d x P"))
    if not options.has("l", "t", "v", "p", "Z"):
        _unpacked(options.value("d"), call)


def dpkg_unpack(call: Call) -> None:
    """`dpkg -x PACKAGE DIRECTORY`: what is in a package, put anywhere."""
    options = split(call.args, named("root admindir D"))
    if options.has("x", "X", "extract", "vextract") and len(options.operands) > 1:
        _unpacked(options.operands[1], call)


def cpio(call: Call) -> None:
    options = split(call.args, named("D F H directory"))
    if options.has("i", "extract", "p", "pass-through"):
        _unpacked(options.value("D", "directory") or (options.operands[0] if options.operands else None), call)


def mount(call: Call) -> None:
    options = split(call.args, named("t o O L U options types source target"))
    settings = " ".join(value.shown for value in options.all_values("o", "options"))
    words = options.operands
    target = words[-1] if words else options.value("target")
    if target is None:
        return
    place = call.place(target)
    if "remount" in settings:
        tmp = paths.in_any(place.text, critical.WRITABLE_BY_ALL)
        weakens = re.search(r"\b(exec|suid|dev)\b", settings) and tmp
        if place.text == "/" or paths.is_system(place.text) or place.text in ("/home", "/var", "/opt") or weakens:
            call.walker.find("fs.mount_over", f"changes how {place.text} is mounted", target.span)
        return
    if len(words) > 1 or options.has("B", "bind", "M", "move", "rbind", "R"):
        source = words[0]
        if (
            place.text == "/"
            or place.text in critical.SYSTEM_TREES
            or place.text in ("/home", "/var", "/root", "/var/lib", "/var/log", "/usr/local", "/run", "/opt", "/srv")
            or (paths.is_system(place.text) and paths.depth(place.text) <= 3)
        ):
            call.walker.find("fs.mount_over", f"mounts over {place.text}", target.span)
        elif paths.is_log(place) or paths.is_critical_file(place.text):
            rule = "log.tamper" if paths.is_log(place) else "fs.mount_over"
            call.walker.find(rule, f"mounts over {place.text}", target.span)
        from_place = call.place(source)
        if (
            place.is_exact
            and from_place.is_exact
            and ("bind" in settings or options.has("B", "bind", "rbind", "R", "M", "move"))
        ):
            call.state.links[place.text] = from_place.text
        elif place.text in ("/mnt", "/media") and re.match(r"/dev/(sda|vda|nvme0n1|xvda|mapper/)", from_place.text):
            # A disk of this host mounted elsewhere is this host's system under another name.
            call.state.links[place.text] = "/"


def umount(call: Call) -> None:
    options = split(call.args, named("t O types"))
    if options.has("a", "all"):
        call.walker.find("fs.mount_over", "takes every file system away", call.span)
    for operand in options.operands:
        place = call.place(operand)
        if place.text in (
            "/",
            "/home",
            "/var",
            "/usr",
            "/boot",
            "/boot/efi",
            "/dev",
            "/proc",
            "/sys",
            "/run",
            "/opt",
            "/srv",
            "/tmp",
            "/var/lib",
            "/var/log",
            "/var/lib/docker",
            "/dev/shm",
            "/etc",
            "/data",
        ):
            call.walker.find("fs.mount_over", f"takes the file system {place.text} away", operand.span)


def read_secret(file: Field, call: Call) -> None:
    place = call.place(file)
    if place.text in ("/dev/mem", "/dev/kmem", "/dev/port", "/proc/kcore"):
        call.walker.find("kernel.raw_memory", f"reads memory through {place.text}", file.span)
    if paths.is_secret(place):
        call.walker.find("perm.secrets_read", f"reads {place.text}", file.span)


def reader(call: Call) -> None:
    """Programs that show or send what is in a file."""
    args = call.args
    if call.name == "openssl":
        args = [following for option, following in pairwise(args) if option.text == "-in"]
    for arg in args:
        text = arg.text if arg.text is not None else arg.prefix
        if text.startswith("-") and "=" not in text:
            continue
        _, at, path = text.partition("@")
        candidate = (
            path
            if at and path.startswith(("/", "~", "."))
            else text.rpartition("=")[2]
            if text.startswith("--")
            else text
        )
        if candidate:
            field = arg if candidate == text else known(candidate, arg.span)
            read_secret(field, call)


def output_option(call: Call) -> None:
    """`-o FILE` and its like, of programs that fetch or make a file."""
    takes = {"curl": ("o", "output"), "wget": ("O", "output-document"), "sort": ("o", "output")}.get(
        call.name, ("o", "output", "out")
    )
    options = split(
        call.args,
        CURL_VALUES if call.name == "curl" else WGET_VALUES if call.name == "wget" else named("o output out k t S T"),
    )
    source = Source.NETWORK if call.name in ("curl", "wget", "aria2c") else Source.OUTPUT
    content: Parts = (Gap(source, detail=call.name),)
    given = options.value(*takes)
    if given is not None and given.text not in ("-", "/dev/stdout", None):
        write(given, content, call.walker, is_appended=False)
    elif given is None and (call.name == "wget" or (call.name == "curl" and options.has("O", "remote-name"))):
        _named_by_address(options.operands, options.value("P", "directory-prefix", "output-dir"), content, call)


def _named_by_address(addresses: list[Field], folder: Field | None, content: Parts, call: Call) -> None:
    for address in addresses:
        name = (address.text or "").rstrip("/").rpartition("/")[2].partition("?")[0]
        if name:
            prefix = f"{shown(folder.parts).rstrip('/')}/" if folder is not None else ""
            write(known(prefix + name, address.span), content, call.walker, is_appended=False)


def sysctl(call: Call) -> None:
    """`sysctl -p FILE`: the settings that it loads."""
    options = split(call.args, named("p load r pattern"))
    files = options.all_values("p", "load") or ([*options.operands] if options.has("p", "load") else [])
    for file in files:
        place = call.place(file)
        is_stdin = file.text in ("-", "/dev/stdin")
        content = (call.stdin or ()) if is_stdin else call.walker.content(file)
        text = text_of(content)
        for line in (text or "").splitlines():
            key, equals, _ = line.partition("=")
            if equals and _TUNED.fullmatch(key.strip().replace("/", ".")) is None:
                call.walker.find("kernel.sysctl", f"changes the kernel's setting {key.strip()}", file.span)
        if text is None and (is_stdin or paths.is_in_temporary(place.text)):
            call.walker.find("kernel.sysctl", f"loads settings of the kernel from {file.shown}", file.span)


def scp(call: Call) -> None:
    options = split(call.args, named("c F i J l o P S X D"))
    if not options.operands:
        return
    for source in options.operands[:-1]:
        if ":" not in (source.text or ""):
            read_secret(source, call)
    target = options.operands[-1]
    if target.text is not None and ":" not in target.text:
        names = [known((s.text or "x").rpartition(":")[2], s.span) for s in options.operands[:-1]]
        for name in names:
            place = call.place(target)
            last = (name.text or "").rpartition("/")[2]
            path = f"{place.text}/{last}" if target.text.endswith(("/", ".")) else place.text
            write(known(path, target.span), (Gap(Source.NETWORK, detail=call.name),), call.walker, is_appended=False)


def patch(call: Call) -> None:
    for operand in split(call.args, named("i o p d B D F r V Y z")).operands[:1]:
        write(operand, (Gap(Source.FILE),), call.walker, is_appended=False)


_READERS = named(
    "cat tac nl head tail less more strings xxd od hexdump base64 base32 rev cut awk grep egrep fgrep sed curl "
    "wget nc ncat "
    "zip gzip 7z openssl gpg mail mutt sendmail ftp tftp sftp http xh socat dd vi nano sort uniq paste column "
    "tee-in diff view bat"
)

CHECKS: dict[str, Callable[[Call], None]] = {
    "tee": tee,
    "sponge": tee,
    "dd": dd,
    "dcfldd": dd,
    "truncate": truncate,
    "cp": cp,
    "install": cp,
    "ln": ln,
    "awk": awk_in_place,
    "touch": touch,
    "rsync": rsync,
    "rclone": rclone,
    "tar": tar,
    "unzip": unzip,
    "7z": unzip,
    "cpio": cpio,
    "dpkg": dpkg_unpack,
    "dpkg-deb": dpkg_unpack,
    "pax": cpio,
    "mount": mount,
    "umount": umount,
    "scp": scp,
    "patch": patch,
    "sysctl": sysctl,
}


def _both(*checks: Callable[[Call], None]) -> Callable[[Call], None]:
    def check(call: Call) -> None:
        for one in checks:
            one(call)

    return check


CHECKS |= dict.fromkeys(_READERS - CHECKS.keys(), reader)
CHECKS |= {
    "sed": _both(sed_in_place, reader),
    "awk": _both(awk_in_place, reader),
    "perl": perl_in_place,
    "ruby": perl_in_place,
    "curl": _both(reader, output_option),
    "wget": _both(reader, output_option),
    "aria2c": output_option,
    "sort": _both(reader, output_option),
    "gzip": reader,
    "xxd": reader,
}

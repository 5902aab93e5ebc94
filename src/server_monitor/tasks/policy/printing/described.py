"""What programs print that nobody can compute: from where it comes and what it looks like, by their kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server_monitor.tasks.policy.options import named
from server_monitor.tasks.policy.printing.filtered import KEEPS, NAMES, NARROWS, passed_on
from server_monitor.tasks.policy.values import Gap, Parts, Shape, Source, is_endless

if TYPE_CHECKING:
    from server_monitor.tasks.policy.calls import Call

NUMBERS = named("pgrep pidof nproc wc stat du id getconf tput umask lsof fuser expr bc")
DOWNLOADS = named("curl wget fetch lynx w3m links http https aria2c nc ncat netcat socat telnet dig host nslookup")
DOWNLOADS |= named("ftp tftp lwp-request GET httpie xh elinks rsync scp sftp finger")
STREAMS = named("zstd lz4 lzop gpg cpio ccrypt mbuffer buffer socat")
TRUSTED = named("ssh-agent dircolors lesspipe direnv keychain brew rbenv pyenv nodenv starship zoxide conda minikube")
TRUSTED |= named("docker-machine resize tput locale opam fnm mise asdf npm poetry register-python-argcomplete")
COMPLETIONS = named("kubectl helm docker gh pip npm oc k3s kind minikube")


def described(call: Call) -> Parts:
    name = call.name
    gap = Gap(Source.OUTPUT, Shape.ANY, detail=name)
    if name in STREAMS and call.stdin is not None and any(isinstance(p, Gap) and is_endless(p) for p in call.stdin):
        return call.stdin
    if name in DOWNLOADS:
        gap = Gap(Source.NETWORK, Shape.ANY, detail=name)
    elif name in TRUSTED or (name in COMPLETIONS and any(a.text == "completion" for a in call.args)):
        gap = Gap(Source.TRUSTED, Shape.ANY, detail=name)
    elif name in NUMBERS:
        gap = Gap(Source.SOME_PROCESSES if name in ("pgrep", "pidof") else Source.OUTPUT, Shape.NUMBER, detail=name)
    elif name in NAMES:
        chosen = any(arg.prefix.startswith(("-f", "--filter", "-l", "--selector")) for arg in call.args)
        gap = Gap(Source.OUTPUT, Shape.NAME, detail="" if chosen else name)
    elif name in NARROWS | KEEPS:
        return passed_on(call, call.input())
    return (gap,)

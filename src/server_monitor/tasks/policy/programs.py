"""Which program a word means, and the kinds of programs that rules speak of. Data, and one function."""

from __future__ import annotations

import re

from server_monitor.tasks.policy.options import named

SHELLS = named("sh bash dash zsh ksh ksh93 mksh ash rbash fish csh tcsh yash posh pdksh")
NETWORK_PIPES = named("nc ncat netcat socat telnet openssl nc.openbsd nc.traditional cryptcat")
INTERPRETERS = named(
    "python perl ruby node nodejs php lua luajit tclsh wish expect awk gawk mawk nawk Rscript julia guile racket "
    "groovy scala osascript pwsh powershell deno bun jshell irb ghci erl elixir ocaml swift python2 python3 pypy pypy3"
)

_VERSIONED = re.compile(r"(python|perl|ruby|php|lua|tclsh|pypy|node|bash|ksh|wish|expect)[-\d.]+")

# Names under which a program may also be called.
SAME = {
    "nodejs": "node",
    "python2": "python",
    "python3": "python",
    "pypy": "python",
    "pypy3": "python",
    "gawk": "awk",
    "mawk": "awk",
    "nawk": "awk",
    "original-awk": "awk",
    "nc.openbsd": "nc",
    "nc.traditional": "nc",
    "netcat": "nc",
    "vim": "vi",
    "nvim": "vi",
    "vim.basic": "vi",
    "vim.tiny": "vi",
    "view": "vi",
    "vimdiff": "vi",
    "rview": "vi",
    "rvim": "vi",
    "gmake": "make",
    "gtar": "tar",
    "bsdtar": "tar",
    "gfind": "find",
    "gsed": "sed",
    "grm": "rm",
    "aptitude": "apt-get",
    "apt": "apt-get",
    "busybox-static": "busybox",
    "busybox.static": "busybox",
    "nala": "apt-get",
    "apt-fast": "apt-get",
    "yum-deprecated": "yum",
    "dnf-3": "dnf",
    "dnf4": "dnf",
    "microdnf": "dnf",
    "tdnf": "dnf",
    "dnf5": "dnf",
    "iptables-legacy": "iptables",
    "iptables-nft": "iptables",
    "ip6tables-legacy": "ip6tables",
    "ip6tables-nft": "ip6tables",
    "mariadb": "mysql",
    "mongosh": "mongo",
    "valkey-cli": "redis-cli",
    "keydb-cli": "redis-cli",
    "docker.io": "docker",
    "lua5.3": "lua",
    "luajit": "lua",
    "fdfind": "fd",
    "mkfs.fat": "mkfs.vfat",
    "ash": "sh",
    "egrep": "egrep",
}

# What a pattern such as `/bin/r?` may stand for: the programs that rules are about.
KNOWN = tuple(
    sorted(
        named(
            "rm rmdir unlink shred dd mkfs mke2fs wipefs fdisk sfdisk parted gdisk sgdisk blkdiscard mv cp ln "
            "chmod chown chgrp "
            "chattr setfacl find tar rsync tee truncate shutdown reboot halt poweroff init telinit systemctl kill "
            "killall "
            "pkill userdel usermod passwd chpasswd useradd sudo su bash sh dash zsh ksh python perl ruby node php "
            "awk sed "
            "env xargs nohup timeout curl wget nc ncat socat iptables nft ip ifconfig route modprobe rmmod insmod "
            "sysctl "
            "kexec mount umount swapoff crontab at apt-get dpkg yum dnf rpm cat ls echo grep mkfs.ext4 mkfs.xfs "
            "busybox "
            "lvremove vgremove pvremove mdadm zpool zfs cryptsetup base64 printf ps df du id date"
        )
    )
)


# Options of programs that fetch, whose next word is a value.
CURL_VALUES = named(
    "A B C D E F H K T U X Y a b c d e m o u w x y z output user data header request url upload-file form proxy "
    "max-time connect-timeout user-agent retry cookie cacert cert key data-binary data-raw data-urlencode write-out "
    "resolve interface limit-rate referer range json output-dir retry-delay retry-max-time config"
) - {"a", "B"}
WGET_VALUES = named(
    "O o P U e t T i B a output-document output-file directory-prefix user-agent tries timeout input-file header "
    "post-data post-file user password referer execute limit-rate body-file body-data method"
)


# Programs that carry the set-id bit on every host: a mode or a copy that is taken from them carries it too.
LENDERS = named("sudo su passwd mount umount newgrp chsh chfn gpasswd pkexec fusermount fusermount3 ping at crontab")
# Programs that hold many, and run the one whose name they were called by or given.
MANY = named("busybox toybox coreutils xtables-multi xtables-nft-multi xtables-legacy-multi")


def canonical(word: str) -> str:
    """The program's name without its directory and version, and under the one name that the tables know."""
    base = word.rstrip("/").rpartition("/")[2]
    if base in INTERPRETERS and base not in SAME:
        return base
    if match := _VERSIONED.fullmatch(base):
        base = match[1]
    return SAME.get(base, base)


def runs_code(name: str) -> bool:
    return name in SHELLS or name in INTERPRETERS or name in ("exec", "busybox", "script", "su", "sudo", "env")

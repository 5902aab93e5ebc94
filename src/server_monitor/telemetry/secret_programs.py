"""Where well-known programs want a secret: behind which of their options, in which place, or on standard input."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from server_monitor.telemetry.secret_names import word_set
from server_monitor.telemetry.secret_shapes import Span
from server_monitor.telemetry.secret_values import Word, value_in, whole


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a program that take a secret.

    `glued` are letters that it follows in the same word, `following` options that it follows in the next one. Behind
    `accounts`, and behind the letters that `cluster` ends with, stands a name, the separator, and the secret.
    """

    glued: tuple[str, ...] = ()
    following: frozenset[str] = frozenset()
    accounts: frozenset[str] = frozenset()
    cluster: re.Pattern[str] | None = None
    separator: str = ":"
    only_with: str | None = None  # the subcommand that they belong to
    is_wrapper: bool = False  # what follows its options is another command


def _options(following: str = "", *, glued: str = "", accounts: str = "", separator: str = ":") -> Options:
    words = frozenset(following.split())
    return Options(tuple(glued.split()), words, frozenset(accounts.split()), None, separator)


_LOGIN: Final = Options(("p",), frozenset({"-p"}), only_with="login")
_MYSQL: Final = _options(glued="p")
_MONGO: Final = _options("-p", glued="p")
_LDAP: Final = _options("-w", glued="w")
_ARCHIVE: Final = _options(glued="p hp")
_SNMP: Final = _options("-c -A -X")
_SQL: Final = _options("-P", glued="P")
_SAMBA: Final = _options(accounts="-U --user", separator="%")
# The letters that may stand before the `u` of curl: those that take no value themselves.
_CURL: Final = Options(
    following=frozenset({"--oauth2-bearer", "--pass", "--proxy-pass", "-b"}),
    accounts=frozenset({"--user", "--proxy-user", "-E", "--cert"}),
    cluster=re.compile(r"-[sSkLfivIgGnNOJqRaB0-6#pZj]*[uU]"),
)
_COMMON_PAIRS: Final = frozenset({"--auth", "--creds", "--src-creds", "--dest-creds", "--basic-auth", "--userpwd"})

_PROGRAMS: Final[Mapping[str, Options]] = {
    name: options
    for names, options in (
        ("mysql mysqldump mysqladmin mysqlimport mysqlshow mysqlcheck mysqlslap mysqlpump mysqlsh mysqlbinlog", _MYSQL),
        ("mariadb mariadb-dump mariadb-admin mariadb-import mariadb-check mariadb-backup xtrabackup", _MYSQL),
        ("mongo mongosh mongodump mongorestore mongoexport mongoimport mongostat mongotop", _MONGO),
        ("mydumper myloader cqlsh beeline hydra", _options("-p")),
        ("sshpass", Options(("p",), frozenset({"-p"}), is_wrapper=True)),
        ("curl", _CURL),
        ("redis-cli redis-benchmark valkey-cli keydb-cli", _options("-a")),
        ("openssl", _options("-k -K")),
        ("ldapsearch ldapmodify ldapadd ldapdelete ldapwhoami ldapcompare ldapmodrdn", _LDAP),
        ("ldappasswd", _options("-w -s -a", glued="w")),
        ("smbclient rpcclient winexe wmic smbmap net", _SAMBA),
        ("docker podman buildah nerdctl helm skopeo crane oras az oc cf", _LOGIN),
        ("useradd usermod", _options("-p", glued="p")),
        ("zip unzip zipcloak", _options("-P")),
        ("7z 7za 7zr rar unrar", _ARCHIVE),
        ("snmpget snmpwalk snmpset snmpbulkwalk snmpgetnext snmptrap snmptable", _SNMP),
        ("ipmitool mosquitto_pub mosquitto_sub", _options("-P")),
        ("sqlcmd bcp isql osql tsql", _SQL),
        ("vsql", _options("-w")),
        ("lftp", _options(accounts="-u", separator=",")),
        ("rabbitmqadmin", _options("-p", glued="p")),
        ("ssh-keygen", _options("-N -P")),
        ("plink pscp psftp putty", _options("-pw")),
        ("sendemail swaks", _options("-xp -ap")),
        ("rdesktop", _options("-p")),
        ("http https xh xhs httpie", _options(accounts="-a")),
        ("etcdctl influx", _options(accounts="--user -u")),
        ("ab", _options(accounts="-A -P")),
    )
    for name in names.split()
}
# Words that come one after the other, with options and their values between them, and how many values stand between
# the last of them and the secret.
_PLACES: Final[Sequence[tuple[str, str, tuple[int, ...]]]] = (
    ("mkpasswd", "", (0, 1)),
    ("wpa_passphrase", "", (1,)),
    ("vault", "login", (0,)),
    ("rabbitmqctl", "add_user", (1,)),
    ("rabbitmqctl", "change_password", (1,)),
    ("rabbitmqctl", "authenticate_user", (1,)),
    ("ansible-vault", "encrypt_string", (0,)),
    ("rclone", "obscure", (0,)),
    ("redis-cli", "auth", (0, 1)),
    ("samba-tool", "create", (1,)),
    ("mc", "set", (2, 3)),
)
_ORACLE: Final = word_set("sqlplus sqlldr exp imp expdp impdp rman")
_HASHERS: Final = frozenset({"htpasswd", "mosquitto_passwd"})
_WITH_PLACES: Final = frozenset(program for program, _, _ in _PLACES) | _ORACLE | _HASHERS
_READS_SECRET: Final = word_set(
    "passwd chpasswd kinit smbpasswd cryptsetup --stdin --password-stdin --passphrase-fd --with-token -stdin"
)
_PRINTS: Final = frozenset({"echo", "printf"})
_ASKED_BY_SUDO: Final = re.compile(r"-[A-Za-z]*S[A-Za-z]*")
_PORTS: Final = re.compile(r"(?:[\d.]+:)?\d+(?:-\d+)?(?::\d+(?:-\d+)?)?(?:/(?:tcp|udp))?")


def spans(words: Sequence[Word], bare: Sequence[str]) -> Iterator[Span]:
    """Where the programs of one command are given secrets. `bare` are its words without quotes.

    A program counts wherever its name stands: behind sudo, in a container, at the end of an SSH command line.
    """
    options: Options | None = None
    is_docker = "run" in bare or "create" in bare
    subcommands: set[str] = set()  # what has been said since the program's name
    placed: set[str] = set()  # programs that have been looked at for their places: once is enough, and stays quick
    for index, one in enumerate(bare):
        following = words[index + 1] if index + 1 < len(words) else None
        if one.startswith("-"):
            if one in _COMMON_PAIRS and following is not None:
                yield from _behind(following, ":")
            elif options is not None and (options.only_with is None or options.only_with in subcommands):
                yield from _option(options, words[index], one, following, is_docker=is_docker)
            continue
        if one.startswith("pass:"):
            yield from value_in(words[index], words[index].text.index(":") + 1, len(words[index].text))
        name = one.rpartition("/")[2].lower()
        if name in _PROGRAMS:
            options = _PROGRAMS[name]
            subcommands.clear()
        elif options is not None and options.is_wrapper and bare[index - 1] not in options.following:
            options = None
        subcommands.add(name)
        if name in _WITH_PLACES and name not in placed:
            placed.add(name)
            yield from _in_place(name, words[index + 1 :], bare[index + 1 :])


def reads_secret(bare: Sequence[str]) -> bool:
    """Whether a command takes a secret from its standard input."""
    if "sudo" in bare and any(map(_ASKED_BY_SUDO.fullmatch, bare)):
        return True
    return any(one.rpartition("/")[2] in _READS_SECRET for one in bare)


def printed(before: Sequence[Word], here: Sequence[Word]) -> Iterator[Span]:
    """What a command that reads a secret is given: by `echo … |` before it, or as `<<< …`."""
    if before and before[0].bare in _PRINTS:
        for word in before[1:]:
            if not word.bare.startswith("-") and not word.bare.startswith("%"):
                yield from _behind(word, ":") if ":" in word.text else whole(word)
    for word in here:
        yield from whole(word)


def _option(options: Options, word: Word, one: str, following: Word | None, *, is_docker: bool) -> Iterator[Span]:
    glued = next((letters for letters in options.glued if one.startswith(f"-{letters}")), None)
    cluster = options.cluster.match(one) if options.cluster is not None else None
    if one in options.following:
        if following is not None and not following.bare.startswith("-") and not _is_port(following.bare, is_docker):
            yield from whole(following)
    elif glued is not None:
        if len(one) > len(glued) + 1 and not _is_port(one[len(glued) + 1 :], is_docker):
            yield from value_in(word, word.text.index(glued) + len(glued), len(word.text))
    elif one.partition("=")[0] in options.accounts or cluster is not None:
        is_in_word = "=" in one if cluster is None else cluster.end() < len(one)
        account = word if is_in_word else following
        yield from _behind(account, options.separator) if account is not None else ()


def _is_port(value: str, is_docker: bool) -> bool:
    """`docker run -p 3306:3306 mysql` opens a port."""
    return is_docker and _PORTS.fullmatch(value) is not None


def _behind(word: Word, separator: str) -> Iterator[Span]:
    """What is behind the first separator of `user:password`. A closing quote stays."""
    found = word.text.find(separator)
    if found >= 0:
        is_quoted = len(word.text) > 1 and word.text[0] in "\"'" and word.text[-1] == word.text[0]
        yield from value_in(word, found + len(separator), len(word.text) - is_quoted)


def _in_place(program: str, words: Sequence[Word], bare: Sequence[str]) -> Iterator[Span]:
    if program in _ORACLE:
        yield from _of_oracle(words)
    elif program in _HASHERS:
        values = [word for word in words if not word.bare.startswith("-")]
        if values and any(one.startswith("-") and "b" in one for one in bare):
            yield from whole(values[-1])
    elif program == "vault" and ("kv" in bare or "write" in bare):
        for word in words:
            yield from _behind(word, "=")
    for first, second, places in _PLACES:
        if first == program and (not second or second in (lower := [one.lower() for one in bare])):
            rest = words[lower.index(second) + 1 :] if second else words
            values = [word for word in rest if not word.bare.startswith("-")]
            for place in places:
                yield from whole(values[place]) if place < len(values) else ()


def _of_oracle(words: Sequence[Word]) -> Iterator[Span]:
    """`sqlplus user/password@host`."""
    for word in words:
        slash, at = word.text.find("/"), word.text.rfind("@")
        if slash > 0 and (at < 0 or at > slash + 1) and not word.bare.startswith(("-", "@")):
            yield from value_in(word, slash + 1, len(word.text) if at < 0 else at)
            return

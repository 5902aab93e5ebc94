"""The scripts on real shells: dash, bash and BusyBox sh, each being the /bin/sh of a machine of its own."""

import asyncio
import os
import secrets
import shutil
import signal as signals
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_monitor.errors import Invalid
from server_monitor.tasks import wrapper
from server_monitor.tasks.wrapper import (
    Absent,
    Attached,
    Ended,
    Refused,
    Script,
    Signalled,
    Started,
    Stream,
    Word,
)
from tests.support.machines import (
    SHELLS,
    Prefix,
    boots_as,
    has_only_busybox,
    in_memory,
    is_sh,
    machine,
    on_disk_of,
    read_only,
    require_namespaces,
    without,
)
from tests.support.patience import PATIENCE_S, is_written, until
from tests.tasks.talks import Talk, lives

KEY = "0123456789abcdef" * 2
TASK = "01890000-0000-7000-8000-000000000001"
NOBODY = 65_534
LOGIN_SHELLS = tuple(name for name in ("dash", "bash", "busybox", "zsh", "fish", "tcsh", "mksh") if shutil.which(name))


@dataclass(frozen=True, slots=True)
class Host:
    """A machine and an account's home on it. `seen_home` is where the account finds that home."""

    home: Path
    seen_home: Path
    prefix: Prefix

    async def start(self, command: str, *, shell: str = "bash", may_attach: bool = False) -> Talk:
        return await self.talk(wrapper.start(KEY, TASK, command, shell, "request-1", may_attach=may_attach))

    async def attach(self) -> Talk:
        return await self.talk(wrapper.attach(KEY, TASK))

    async def follow(self, out_from: int = 0, err_from: int = 0, limit_bytes: int = 10**9) -> Talk:
        return await self.talk(wrapper.follow(KEY, TASK, out_from, err_from, limit_bytes))

    async def signal(self) -> Word | None:
        talk = await self.talk(wrapper.signal(KEY, TASK))
        word = await talk.word()
        await talk.closed()
        return word

    async def talk(self, script: Script) -> Talk:
        return await Talk.begin(script, KEY, self.seen_home, self.prefix)

    async def ended(self, talk: Talk) -> Ended:
        """How it ended, after acknowledging it."""
        while not isinstance(word := await talk.word(), Ended):
            assert word is not None, "the script ended without saying how the command did"
        talk.acknowledge()
        await talk.closed()
        return word

    @property
    def tasks(self) -> Path:
        return self.home / ".local/state/server-monitor/tasks"

    @property
    def task(self) -> Path:
        return self.tasks / TASK

    def wrapper_pid(self) -> int:
        return int((self.task / "pid").read_text().split()[0])


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def host(shell: str, home: Path, disk: Path) -> Host:
    """A machine whose /bin/sh is the shell of the test; with BusyBox all tools are its own."""
    if os.geteuid() != 0 and Path("/bin/sh").resolve().name == shell:
        return Host(home, home, ())
    return Host(home, home, machine(*_changes(shell, disk)))


@pytest.fixture
def plain(home: Path) -> Host:
    """This machine as it is."""
    return Host(home, home, ())


def _changes(shell: str, disk: Path) -> list[str]:
    if shell != "busybox":
        return [is_sh(shell)]
    applets = disk / "applets"
    applets.mkdir()
    return [has_only_busybox(applets), is_sh(shell)]


def this_boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def is_used(directory: Path) -> bool:
    """Does any process work in this directory?"""
    return any(_works_in(process, directory) for process in psutil.process_iter())


def _works_in(process: psutil.Process, directory: Path) -> bool:
    try:
        return process.cwd() == str(directory)
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return False


def group_lives(group: int) -> bool:
    return any(_belongs(process, group) for process in psutil.process_iter())


def _belongs(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


# --- start ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "out", "err"),
    [
        ("echo out; echo err >&2", b"out\n", b"err\n"),
        (r"printf 'no end'; printf 'nor here' >&2", b"no end", b"nor here"),
        (r"printf 'a\0b\0'; printf '\0' >&2", b"a\0b\0", b"\0"),
        (r"printf '\377\376\200'", b"\xff\xfe\x80", b""),
        ("true", b"", b""),
        ("echo only err >&2", b"", b"only err\n"),
        ("echo 'it'\"'\"'s \\ \"quoted\" $HOME!' `echo x`", b'it\'s \\ "quoted" $HOME! x\n', b""),
        ("cat <<'END'\n  two\n\n\tlines \\\nEND\necho after", b"  two\n\n\tlines \\\nafter\n", b""),
        ("echo a\n\n\n", b"a\n", b""),
        ("printf '%s' '\u00e9\u4e16\U0001f600\u202e'", "\u00e9\u4e16\U0001f600\u202e".encode(), b""),
    ],
)
async def test_what_a_command_prints_arrives_byte_for_byte(host: Host, command: str, out: bytes, err: bytes) -> None:
    talk = await host.start(command)

    assert isinstance(await talk.word(), Started)
    assert await host.ended(talk) == Ended(0, None)
    assert (bytes(talk.out), bytes(talk.err)) == (out, err)


async def test_a_megabyte_on_each_stream_arrives_whole(host: Host) -> None:
    talk = await host.start("head -c 1000000 /dev/zero | tr '\\0' x; head -c 1000000 /dev/zero >&2")

    await host.ended(talk)

    assert talk.out == b"x" * 1_000_000
    assert talk.err == b"\0" * 1_000_000


async def test_a_command_that_imitates_our_words_ends_nothing(host: Host) -> None:
    """The key travels on standard input; a command can see neither it nor a descriptor that leads to us."""
    imitation = b"sm1 ffffffffffffffffffffffffffffffff exit 0 inline\n"
    talk = await host.start(f"printf 'sm1 '; echo '{imitation.decode().strip()}' | tee /dev/stderr; sleep 0.1; exit 7")

    assert await host.ended(talk) == Ended(7, None)
    assert (bytes(talk.out), bytes(talk.err)) == (b"sm1 " + imitation, imitation)


async def test_the_key_is_nowhere_where_a_command_could_find_it(host: Host) -> None:
    look = "tr '\\0' '\\n' <{0}/cmdline; tr '\\0' '\\n' <{0}/environ; ls -l {0}/fd; cat ~/.local/state/*/tasks/*/*"
    talk = await host.start("; ".join(look.format(f"/proc/{who}") for who in ("$$", "$PPID")))

    await host.ended(talk)

    assert talk.out
    assert KEY.encode() not in talk.out + talk.err


@pytest.mark.parametrize("status", [0, 1, 2, 125, 126, 127, 255])
async def test_an_exit_status_is_told_as_it_was(host: Host, status: int) -> None:
    assert await host.ended(await host.start(f"exit {status}")) == Ended(status, None)


@pytest.mark.parametrize(("number", "status"), [("TERM", 143), ("KILL", 137), ("HUP", 129), ("SEGV", 139)])
async def test_a_command_that_a_signal_ends_is_told_as_the_shell_tells_it(host: Host, number: str, status: int) -> None:
    """Also when the signal is one that the wrapper itself would survive."""
    ended = await host.ended(await host.start(f"kill -{number} $$"))

    assert ended == Ended(status, None)


async def test_a_second_start_of_the_same_task_is_refused(host: Host) -> None:
    count = f"echo once >>{host.seen_home}/count"
    first = await host.start(f"{count}; sleep 0.5")
    assert isinstance(await first.word(), Started)

    while_it_runs = await host.start(count)
    assert await while_it_runs.word() == Refused("exists")
    await host.ended(first)
    after_its_end = await host.start(count)
    assert await after_its_end.word() == Refused("exists")

    assert (host.home / "count").read_text() == "once\n"
    await while_it_runs.closed()
    await after_its_end.closed()


async def test_of_ten_starts_at_once_one_begins(host: Host) -> None:
    count = f"echo once >>{host.seen_home}/count"
    talks = await asyncio.gather(*(host.start(count) for _ in range(10)))

    words = [await talk.word() for talk in talks]

    assert sum(isinstance(word, Started) for word in words) == 1
    assert sum(word == Refused("exists") for word in words) == 9
    for talk, word in zip(talks, words, strict=True):
        await (host.ended(talk) if isinstance(word, Started) else talk.closed())
    assert (host.home / "count").read_text() == "once\n"


async def test_a_connection_that_ends_before_the_whole_command_is_there_starts_nothing(host: Host) -> None:
    """Cut at every byte of what is sent: either all of it arrived, or nothing happens."""
    script = wrapper.start(KEY, TASK, f"touch {host.seen_home}/ran\ntrue", "bash", "request-1", may_attach=True)
    for length in range(0, len(script.stdin), 3):
        talk = await host.talk(Script(script.words, script.stdin[:length]))
        await talk.closed()
        assert talk.heard == []
    assert not (host.home / "ran").exists()
    assert not host.task.exists()


async def test_the_result_stays_until_it_is_acknowledged_and_then_only_a_tombstone(host: Host) -> None:
    talk = await host.start("echo kept; exit 3")
    assert isinstance(await talk.word(), Started)
    assert await talk.word() == Ended(3, None)
    talk.cut()
    await until(lambda: not is_used(host.home))
    again = await host.attach()
    assert await again.word() == Ended(3, (5, 0))
    assert (host.task / "out").read_bytes() == b"kept\n"

    again.acknowledge()
    await again.closed()

    assert list(host.task.iterdir()) == []


async def test_a_tasks_directory_is_private_and_made_where_the_account_wants_its_state(host: Host) -> None:
    state = host.home / "elsewhere"
    talk = await Talk.begin(
        wrapper.start(KEY, TASK, "true", "bash", "r", may_attach=False),
        KEY,
        host.seen_home,
        [*host.prefix, "env", f"XDG_STATE_HOME={state}"],
    )
    await host.ended(talk)

    assert (state / "server-monitor/tasks" / TASK).stat().st_mode & 0o777 == 0o700
    assert not host.tasks.exists()


async def test_a_background_child_that_keeps_the_output_open_does_not_hold_the_task(host: Host) -> None:
    talk = await host.start("sleep 60 & echo $!")

    ended = await host.ended(talk)

    child = psutil.Process(int(talk.out))
    assert ended.status == 0
    assert child.is_running()
    child.kill()


async def test_a_command_gets_a_clean_environment(host: Host) -> None:
    secret = f"SECRET={secrets.token_hex(8)}"
    script = wrapper.start(KEY, TASK, "env -0; tty; cat | wc -c; pwd; umask", "bash", "request-1", may_attach=False)
    before = [*host.prefix, "env", secret, "USER=ada", "LOGNAME=ada", "SSH_CONNECTION=1.2.3.4 5 6.7.8.9 22"]
    talk = await Talk.begin(script, KEY, host.seen_home, before)

    await host.ended(talk)

    *variables, rest = bytes(talk.out).decode().split("\0")
    found = dict(variable.split("=", 1) for variable in variables)
    for made_by_bash in ("_", "PWD", "SHLVL", "OLDPWD"):
        found.pop(made_by_bash, None)
    assert found == {
        "PATH": wrapper.PATH,
        "HOME": str(host.seen_home),
        "USER": "ada",
        "LOGNAME": "ada",
        "SHELL": "/bin/bash",
        "LC_ALL": "C.UTF-8",
        "SSH_CONNECTION": "1.2.3.4 5 6.7.8.9 22",
        "SERVER_MONITOR_TASK_ID": TASK,
        "SERVER_MONITOR_REQUEST_ID": "request-1",
    }
    assert rest.splitlines() == ["not a tty", "0", str(host.seen_home), "0022"]


async def test_start_files_of_the_account_are_not_read(host: Host) -> None:
    for name in (".bashrc", ".profile", ".bash_profile", ".shrc"):
        (host.home / name).write_text("echo from a start file; exit 9\n")

    talk = await host.start("echo alone")

    assert await host.ended(talk) == Ended(0, None)
    assert talk.out == b"alone\n"


async def test_sh_runs_a_command_where_that_is_wanted(host: Host) -> None:
    talk = await host.start("echo $0", shell="sh")

    await host.ended(talk)

    assert talk.out == b"/bin/sh\n"


async def test_without_bash_nothing_starts_and_sh_can_be_asked_then(home: Path, shell: str, disk: Path) -> None:
    host = Host(home, home, machine(*_changes(shell, disk), without("/bin/bash")))
    if shell == "bash":
        pytest.skip("A machine whose /bin/sh is bash has bash.")

    refused = await host.start("true")
    assert await refused.word() == Refused("noshell")
    await refused.closed()

    assert await host.ended(await host.start("exit 4", shell="sh")) == Ended(4, None)


@pytest.mark.parametrize("change", [read_only, in_memory])
async def test_where_no_directory_lasts_a_command_runs_attached_or_not_at_all(
    home: Path, shell: str, disk: Path, change: object
) -> None:
    """On a read-only disk nothing can be written; what memory holds is gone when the host starts anew."""
    assert callable(change)
    host = Host(home, home, machine(*_changes(shell, disk), change(home)))

    refused = await host.start("echo no")
    assert await refused.word() == Refused("nodir")
    await refused.closed()
    assert not refused.out
    attached = await host.start("echo out; echo err >&2; exit 6", may_attach=True)
    assert await attached.word() == Attached()
    attached.go()
    assert await attached.word() is None
    await attached.closed()

    assert (bytes(attached.out), bytes(attached.err)) == (b"out\n", b"err\n")
    assert attached.channel is not None
    assert attached.channel.exit_status == 6


async def test_without_setsid_a_command_runs_attached(home: Path, disk: Path) -> None:
    applets = disk / "applets"
    applets.mkdir()
    all_tools = has_only_busybox(applets)
    (applets / "setsid").unlink()
    host = Host(home, home, machine(all_tools, is_sh("busybox")))

    talk = await host.start("echo here", may_attach=True)

    assert await talk.word() == Attached()
    talk.go()
    assert await talk.word() is None
    await talk.closed()
    assert talk.out == b"here\n"


async def test_an_attached_command_may_print_our_words(home: Path, shell: str, disk: Path) -> None:
    host = Host(home, home, machine(*_changes(shell, disk), read_only(home)))
    imitation = f"sm1 {KEY} exit 0 inline"

    talk = await host.start(f"echo '{imitation}'; exit 5", may_attach=True)

    assert await talk.word() == Attached()
    talk.go()
    assert await talk.word() is None
    await talk.closed()
    assert talk.out.decode() == f"{imitation}\n"


async def test_an_attached_command_begins_only_when_we_say_so(home: Path, shell: str, disk: Path) -> None:
    """Until it is written down that it runs attached, a console after us could start it a second time."""
    host = Host(home, home, machine(*_changes(shell, disk), read_only(home)))

    talk = await host.start("echo ran", may_attach=True)
    assert await talk.word() == Attached()
    await talk.closed()

    assert not talk.out


async def test_an_attached_command_is_ended_when_our_side_ends(home: Path, shell: str, disk: Path) -> None:
    """With all that it has started, as when the connection breaks; the shell beside it says how it ended."""
    host = Host(home, home, machine(*_changes(shell, disk), read_only(home)))
    talk = await host.start(f"sleep 61 & sleep 62 | sleep 63 & echo $$ >{disk}/pid; wait", may_attach=True)
    assert await talk.word() == Attached()
    talk.go()
    await until(lambda: (disk / "pid").exists() and (disk / "pid").read_text().endswith("\n"))
    group = os.getpgid(int((disk / "pid").read_text()))

    await talk.closed()

    await until(lambda: not group_lives(group))


async def test_an_attached_command_that_ignores_term_is_killed(home: Path, shell: str, disk: Path) -> None:
    host = Host(home, home, machine(*_changes(shell, disk), read_only(home)))
    talk = await host.start(f"trap '' TERM; echo $$ >{disk}/pid; while :; do sleep 0.1; done", may_attach=True)
    assert await talk.word() == Attached()
    talk.go()
    await until(lambda: (disk / "pid").exists() and (disk / "pid").read_text().endswith("\n"))
    group = os.getpgid(int((disk / "pid").read_text()))

    await talk.closed()

    await until(lambda: not group_lives(group))


async def test_an_attached_command_is_over_when_it_ends_and_not_when_our_side_does(
    home: Path, shell: str, disk: Path
) -> None:
    """Nothing is left beside it, not even when it signals its whole group."""
    host = Host(home, home, machine(*_changes(shell, disk), read_only(home)))
    talk = await host.start(f"echo $$ >{disk}/pid; trap : TERM; kill -TERM 0; exit 7", may_attach=True)
    assert await talk.word() == Attached()
    talk.go()

    assert await talk.word() is None

    assert talk.channel is not None
    assert talk.channel.exit_status == 7
    assert talk.channel._transport is not None
    group = talk.channel._transport.get_pid()
    await until(lambda: not group_lives(group))
    await talk.closed()


async def test_an_attached_command_gets_its_secrets_and_nothing_else_of_our_input(
    home: Path, shell: str, disk: Path
) -> None:
    host = Host(home, home, machine(*_changes(shell, disk), read_only(home)))
    talk = await host.talk(
        wrapper.start(
            KEY,
            TASK,
            "echo $A_SECRET; ls -l /proc/$$/fd; cat",
            "bash",
            "r",
            secrets={"A_SECRET": "x y"},
            may_attach=True,
        )
    )
    assert await talk.word() == Attached()
    talk.go()
    assert await talk.word() is None

    assert talk.out.startswith(b"x y\n")
    assert b" 3 ->" not in talk.out
    await talk.closed()


@pytest.mark.parametrize("status", ["256", "1000", "99999999999999999999", "-1", "0x1", "", "٣"])
def test_an_exit_status_that_no_shell_can_have_is_no_word(status: str) -> None:
    stream = Stream(KEY, speaks_first=True)

    assert stream.feed(f"sm1 {KEY} exit {status} inline\n".encode())[1] == []


def test_sizes_that_no_database_can_hold_are_no_word() -> None:
    stream = Stream(KEY, speaks_first=True)

    assert stream.feed(f"sm1 {KEY} exit 0 apart {'9' * 40} 0\n".encode())[1] == []


async def test_an_unprivileged_account_can_do_all_of_it(home: Path, shell: str, disk: Path) -> None:
    require_namespaces()
    os.chown(home, NOBODY, NOBODY)
    host = Host(home, Path("/mnt"), machine(f"mount --bind {home} /mnt", *_changes(shell, disk), account=NOBODY))

    talk = await host.start("id -u; echo $$ >~/pid; sleep 30")
    assert isinstance(await talk.word(), Started)
    await until(lambda: is_written(host.home / "pid"))
    assert await host.signal() == Signalled("gone")

    assert (await host.ended(talk)).status == 143
    assert talk.out == f"{NOBODY}\n".encode()
    assert (host.task.stat().st_uid, host.task.stat().st_mode & 0o777) == (NOBODY, 0o700)


async def test_on_a_full_disk_a_command_that_cannot_be_noted_is_not_run(home: Path, disk: Path) -> None:
    host = Host(
        home, home, machine(on_disk_of(1_024, home, disk / "image"), f"head -c 2000000 /dev/zero >{home}/x || true")
    )

    talk = await host.start(f"echo ran >>{disk}/ran")
    words = [await talk.word()]
    while words[-1] is not None:
        if isinstance(words[-1], Ended):
            talk.acknowledge()
        words.append(await talk.word())

    assert not (disk / "ran").exists()
    assert not any(isinstance(word, Ended) and word.status == 0 for word in words)
    await talk.closed()


@pytest.mark.parametrize("login_shell", LOGIN_SHELLS)
def test_every_login_shell_hands_every_script_on_unchanged(login_shell: str, home: Path) -> None:
    """sshd gives the line to the account's own shell, whatever that is."""
    words = ["busybox", "sh"] if login_shell == "busybox" else [login_shell]
    scripts = {
        "start": wrapper.start(KEY, TASK, "echo hello; exit 3", "bash", "r", may_attach=False),
        "follow": wrapper.follow(KEY, TASK, 1, 0, 1_000),
        "signal": wrapper.signal(KEY, TASK),
        "attach": wrapper.attach(KEY, TASK),
        "sweep": wrapper.sweep(KEY),
    }
    environment = {"HOME": str(home), "PATH": wrapper.PATH}
    said = {}
    for name, script in scripts.items():
        done = subprocess.run(
            [*words, "-c", script.line],
            check=False,
            input=script.stdin,
            capture_output=True,
            env=environment,
            timeout=PATIENCE_S,
        )
        said[name] = done.stdout.decode().replace(f"sm1 {KEY} ", "")

    assert said["start"].splitlines()[1:] == ["hello", "exit 3 inline"]
    assert said["signal"] == "ended\n"
    assert said["attach"] == "exit 3 apart 6 0\n"
    assert said["sweep"] == ""


def test_a_command_with_a_nul_is_refused():
    with pytest.raises(Invalid):
        wrapper.start(KEY, TASK, "echo \0", "bash", "r", may_attach=True)


# --- attach -----------------------------------------------------------------------------------------------------------


async def test_a_command_that_never_started_is_told_from_one_that_is_gone(host: Host) -> None:
    talk = await host.attach()

    assert isinstance(word := await talk.word(), Absent)
    assert word.why == "none"
    assert word.boot_id == this_boot()
    await talk.closed()


async def test_a_running_command_is_found_again_and_its_age_and_end_are_told(host: Host) -> None:
    first = await host.start("echo begin; while test ! -e ~/go; do sleep 0.05; done; echo end; exit 9")
    assert isinstance(await first.word(), Started)
    await until(lambda: is_written(host.task / "pid"))
    began_s = psutil.Process(host.wrapper_pid()).create_time()
    first.cut()
    second = await host.attach()
    assert isinstance(word := await second.word(), Started)
    assert word.age_s is not None
    assert 0 <= word.age_s <= time.time() - began_s + 1

    (host.home / "go").touch()

    assert await host.ended(second) == Ended(9, (10, 0))
    assert list(host.task.iterdir()) == []


async def test_a_command_whose_wrapper_was_killed_is_lost_and_not_running(host: Host) -> None:
    first = await host.start("sleep 60")
    assert isinstance(await first.word(), Started)
    await until(lambda: is_written(host.task / "pid"))
    os.killpg(host.wrapper_pid(), signals.SIGKILL)

    talk = await host.attach()

    assert isinstance(word := await talk.word(), Absent)
    assert word.why == "lost"
    await talk.closed()
    assert isinstance(word := await first.word(), Absent)
    assert word.why == "lost"
    await first.closed()


async def orphan(host: Host, command: str) -> tuple[Talk, int]:
    """A command that runs on although the shell around it was killed, and the number that shell had."""
    first = await host.start(f"echo $$ >~/pid; {command}")
    assert isinstance(await first.word(), Started)
    await until(lambda: is_written(host.home / "pid"))
    group = host.wrapper_pid()
    os.kill(group, signals.SIGKILL)
    await until(lambda: not lives(group))
    return first, group


async def test_a_command_whose_shell_alone_was_killed_runs_until_it_is_gone_and_is_lost_then(host: Host) -> None:
    first, group = await orphan(host, "until test -e ~/go; do sleep 0.05; done; echo end")
    second = await host.attach()
    assert isinstance(await second.word(), Started)
    follower = await host.follow()
    assert group_lives(group)
    assert not first.heard[-1][1].endswith(b"inline\n")

    (host.home / "go").touch()

    for talk in (first, second):
        assert isinstance(word := await talk.word(), Absent)
        assert word.why == "lost"
        await talk.closed()
    await follower.printed(b"end\n")
    await follower.closed()
    assert (host.task / "out").read_bytes() == b"end\n", "nobody acknowledged it"


async def test_a_command_whose_shell_alone_was_killed_can_be_ended(host: Host) -> None:
    first, group = await orphan(host, "sleep 60 | sleep 61")

    assert await host.signal() == Signalled("gone")

    await until(lambda: not group_lives(group))
    assert isinstance(await first.word(), Absent)
    await first.closed()


async def test_processes_that_may_be_somebody_elses_are_not_signalled(host: Host) -> None:
    """Nothing about them says that they are of this task, and the shell that would is gone."""
    first, group = await orphan(host, "exec env -i sleep 60")
    child = int((host.home / "pid").read_text())
    await until(lambda: psutil.Process(child).name() == "sleep")

    assert await host.signal() == Signalled("still")

    assert lives(child)
    os.killpg(group, signals.SIGKILL)
    assert isinstance(await first.word(), Absent)
    await first.closed()


async def test_a_command_of_before_a_reboot_is_lost_even_when_its_process_number_is_in_use(
    home: Path, shell: str, disk: Path
) -> None:
    changes = _changes(shell, disk)
    before = Host(home, home, machine(*changes))
    after = Host(home, home, machine(*changes, boots_as("another-boot", disk)))
    first = await before.start("sleep 60")
    assert isinstance(await first.word(), Started)
    await until(lambda: is_written(before.task / "pid"))

    talk = await after.attach()

    assert await talk.word() == Absent("lost", "another-boot")
    await talk.closed()
    assert await before.signal() == Signalled("gone")
    await before.ended(first)


async def test_a_process_with_the_same_number_that_is_another_one_is_not_taken_for_it(host: Host) -> None:
    first = await host.start("sleep 60")
    assert isinstance(await first.word(), Started)
    await until(lambda: is_written(host.task / "pid"))
    pid, started, boot = (host.task / "pid").read_text().split()
    (host.task / "pid").write_text(f"{pid} {int(started) - 1} {boot}\n")

    talk = await host.attach()

    assert isinstance(word := await talk.word(), Absent)
    assert word.why == "lost"
    assert await host.signal() == Signalled("ended")
    assert psutil.Process(int(pid)).is_running(), "somebody else's process was signalled"
    await talk.closed()
    os.killpg(int(pid), signals.SIGKILL)
    assert isinstance(await first.word(), Absent)
    await first.closed()


@pytest.mark.parametrize("content", ["", "1", "12"])
async def test_an_exit_status_without_its_new_line_does_not_count(host: Host, content: str) -> None:
    await host.ended(await host.start("true"))
    (host.task / "exit").write_text(content)

    talk = await host.attach()

    assert isinstance(word := await talk.word(), Absent)
    assert word.why == "lost"
    await talk.closed()


async def test_whoever_attaches_and_goes_leaves_no_process_behind(host: Host) -> None:
    first = await host.start("sleep 60")
    assert isinstance(await first.word(), Started)
    await until(lambda: is_written(host.task / "pid"))
    talk = await host.attach()
    assert isinstance(await talk.word(), Started)
    assert talk.channel is not None
    assert talk.channel._transport is not None
    script_pid = talk.channel._transport.get_pid()

    talk.cut()

    await until(lambda: not psutil.pid_exists(script_pid))
    assert await host.signal() == Signalled("gone")
    await host.ended(first)


# --- follow -----------------------------------------------------------------------------------------------------------


async def test_output_is_read_along_from_any_byte_and_goes_on_as_it_grows(host: Host) -> None:
    first = await host.start("printf 0123456789; printf abcdef >&2; until test -e ~/go; do sleep 0.05; done; echo end")
    assert isinstance(await first.word(), Started)
    whole, rest = await host.follow(), await host.follow(4, 5)
    await whole.printed(b"0123456789", b"abcdef")
    await rest.printed(b"456789", b"f")

    (host.home / "go").touch()

    await whole.printed(b"0123456789end\n", b"abcdef")
    await rest.printed(b"456789end\n", b"f")
    assert await host.ended(first) == Ended(0, (14, 6))
    assert not first.out, "somebody follows: it does not come twice"
    for talk in (whole, rest):
        await talk.closed()
    await until(lambda: not is_used(host.task))


async def test_a_follower_whose_connection_ends_leaves_no_process_behind(host: Host) -> None:
    first = await host.start("echo x; sleep 60")
    assert isinstance(await first.word(), Started)
    follower = await host.follow()
    await follower.printed(b"x\n")

    await follower.closed()
    assert await host.signal() == Signalled("gone")
    await host.ended(first)

    await until(lambda: not is_used(host.task))


async def test_following_what_was_never_started_ends_at_once(host: Host) -> None:
    talk = await host.follow()

    assert await talk.word() is None
    await talk.closed()
    assert not talk.out


async def test_a_command_that_prints_without_end_is_cut_on_its_host(host: Host) -> None:
    """A watchdog keeps what lies on the host's disk within bounds, and says that it did."""
    first = await host.start("while test ! -e ~/go; do head -c 100000 /dev/zero; sleep 0.05; done; echo end")
    assert isinstance(await first.word(), Started)
    await until(lambda: is_written(host.task / "pid"))
    follower = await host.follow(limit_bytes=50_000)
    await until((host.task / "cut").exists)

    (host.home / "go").touch()

    ended = await host.ended(first)
    assert ended.cut
    assert ended.sizes is not None
    await follower.closed()
    await until(lambda: not is_used(host.task))


# --- signal -----------------------------------------------------------------------------------------------------------


async def test_a_command_is_ended_with_everything_that_it_started(host: Host) -> None:
    talk = await host.start("sleep 61 & sleep 62 | sleep 63 & echo $$; wait")
    assert isinstance(await talk.word(), Started)
    await until(lambda: is_written(host.task / "pid"))
    group = host.wrapper_pid()

    assert await host.signal() == Signalled("gone")

    assert (await host.ended(talk)).status == 143
    await until(lambda: not group_lives(group))


async def test_a_command_that_ignores_term_is_killed(host: Host) -> None:
    talk = await host.start("trap '' TERM; echo ready; while :; do sleep 0.1; done")
    assert isinstance(await talk.word(), Started)
    follower = await host.follow()
    await follower.printed(b"ready\n")
    group = host.wrapper_pid()

    assert await host.signal() == Signalled("gone")

    assert isinstance(await talk.word(), Absent), "KILL took the shell around it too"
    await talk.closed()
    await until(lambda: not group_lives(group))
    await follower.closed()


async def test_a_command_may_tidy_up_when_it_is_asked_to_end(host: Host) -> None:
    talk = await host.start("trap 'echo tidied; exit 3' TERM; echo ready; while :; do sleep 0.05; done")
    assert isinstance(await talk.word(), Started)
    follower = await host.follow()
    await follower.printed(b"ready\n")

    assert await host.signal() == Signalled("gone")

    assert (await host.ended(talk)).status == 3
    await follower.printed(b"ready\ntidied\n")
    await follower.closed()


async def test_a_command_that_has_ended_is_not_signalled(host: Host) -> None:
    await host.ended(await host.start("true"))

    assert await host.signal() == Signalled("ended")


# --- sweep ------------------------------------------------------------------------------------------------------------


async def test_old_tombstones_and_forgotten_results_go_and_nothing_else(host: Host) -> None:
    running = await host.start("sleep 60")
    assert isinstance(await running.word(), Started)
    await until(lambda: is_written(host.task / "pid"))
    now, day = time.time(), 86_400
    for name, age_days, files in (
        ("tombstone-new", 0.9, ()),
        ("tombstone-old", 1.1, ()),
        ("result-new", 6.9, ("out", "exit")),
        ("result-old", 7.1, ("out", "exit")),
    ):
        directory = host.tasks / name
        directory.mkdir()
        for file in files:
            (directory / file).touch()
        os.utime(directory, (now - age_days * day, now - age_days * day))
    os.utime(host.task, (now - 8 * day, now - 8 * day))

    talk = await host.talk(wrapper.sweep(KEY))
    assert await talk.word() is None
    await talk.closed()

    left = {path.name for path in host.tasks.iterdir()}
    assert left == {TASK, "tombstone-new", "result-new"}
    assert await host.signal() == Signalled("gone")
    await host.ended(running)


# --- the parser -------------------------------------------------------------------------------------------------------


def _fed(chunks: list[bytes], *, speaks_first: bool, key: str = KEY) -> tuple[bytes, list[Word]]:
    stream, out, words = Stream(key, speaks_first=speaks_first), bytearray(), []
    for chunk in chunks:
        output, heard = stream.feed(chunk)
        out += output
        words += heard
    return bytes(out + stream.rest()), words


_M = f"sm1 {KEY} "
CONVERSATIONS = {
    "with output": (f"{_M}start b\nhello\n{_M}exit 0 inline\n", "hello\n", [Started("b"), Ended(0, None)]),
    "no last line": (f"{_M}start b\nno end {_M}exit 3 inline\n", "no end ", [Started("b"), Ended(3, None)]),
    "no output": (f"{_M}start b\n{_M}exit 0 inline\n", "", [Started("b"), Ended(0, None)]),
    "apart": (f"{_M}start b\n{_M}exit 1 apart 7 0\n", "", [Started("b"), Ended(1, (7, 0))]),
    "cut": (
        f"{_M}start b\nsm1 ff x\n{_M}exit 1 apart 3 4 cut\n",
        "sm1 ff x\n",
        [Started("b"), Ended(1, (3, 4), cut=True)],
    ),
    "alive": (f"{_M}start b\n{_M}alive\n{_M}alive\n{_M}lost b\n", "", [Started("b"), Absent("lost", "b")]),
    "refused": (f"{_M}exists\n", "", [Refused("exists")]),
    "attached": (f"{_M}attached\n{_M}exit 0 inline\n", f"{_M}exit 0 inline\n", [Attached()]),
    "almost": (f"{_M}start b\nsm1 {_M[:9]}\n{_M}exit 0 inline\n", f"sm1 {_M[:9]}\n", [Started("b"), Ended(0, None)]),
}


@pytest.mark.parametrize("which", CONVERSATIONS)
def test_it_does_not_matter_where_a_conversation_is_cut_into_pieces(which: str) -> None:
    text, printed, words = CONVERSATIONS[which]
    conversation, out = text.encode(), printed.encode()
    length = len(conversation)
    splits = [[conversation], [conversation[at : at + 1] for at in range(length)]]
    splits += [[conversation[:one], conversation[one:]] for one in range(length)]
    splits += [
        [conversation[:one], conversation[one:two], conversation[two:]]
        for one in range(0, length, 3)
        for two in range(one, length, 5)
    ]
    for chunks in splits:
        assert _fed(chunks, speaks_first=True) == (out, words), chunks


@given(st.lists(st.binary(max_size=60)), st.booleans())
def test_bytes_without_our_key_pass_through_whatever_they_are(chunks: list[bytes], speaks_first: bool) -> None:
    out, words = _fed(chunks, speaks_first=speaks_first)

    assert (out, words) == (b"".join(chunks), [])


_ALMOST = st.sampled_from(
    [f"sm1 {KEY[:n]}".encode() for n in (0, 1, 9, 31)] + [b"sm1", b"\n", b" ", b"exit 0 inline\n"]
)


@given(st.lists(_ALMOST | st.binary(max_size=9), max_size=30), st.integers(1, 9))
def test_what_a_command_prints_before_its_end_is_told_from_the_end(pieces: list[bytes], size: int) -> None:
    printed = b"".join(pieces)
    whole = f"sm1 {KEY} start b\n".encode() + printed + f"sm1 {KEY} exit 0 inline\n".encode()

    out, words = _fed([whole[at : at + size] for at in range(0, len(whole), size)], speaks_first=True)

    assert (out, words) == (printed, [Started("b"), Ended(0, None)])


@given(st.binary(max_size=300))
def test_no_line_after_our_mark_makes_the_parser_fail(rest: bytes) -> None:
    """A host may be broken or hostile: it knows the key."""
    stream = Stream(KEY, speaks_first=True)
    stream.feed(f"sm1 {KEY} ".encode() + rest + b"\n")
    stream.feed(f"sm1 {KEY} exit ".encode() + rest + b"\n")
    stream.rest()


def test_a_line_of_ours_that_never_ends_does_not_grow_in_memory() -> None:
    stream = Stream(KEY, speaks_first=True)
    given_back = 0
    for _ in range(100):
        output, _ = stream.feed(f"sm1 {KEY} ".encode() + b"x" * 10_000)
        given_back += len(output)

    assert given_back > 900_000

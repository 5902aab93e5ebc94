"""One server through good and bad days, over a channel that does as it is told and a clock that only we move."""

import random
from dataclasses import dataclass, field

import pytest

from server_monitor.collect.collector import Callbacks, Clocks, Collector, Phase
from server_monitor.collect.lines import ANSWER_LIMIT_BYTES, Hello

HELLO = b'["hello",1,"mawk",["cpu"],1000000,500.0,"Debian","6.1","x86_64","web-1",2,2468,"boot-1"]\n'


@dataclass
class Notes:
    """What the collector told its listener."""

    samples: list[dict[str, float]] = field(default_factory=list)
    statuses: list[tuple[str, str | None]] = field(default_factory=list)
    hellos: list[Hello] = field(default_factory=list)
    lost_ids: list[str] = field(default_factory=list)

    def sampled(self, server_id: str, at: float, values: dict[str, float]) -> None:
        self.samples.append(values)

    def judged(self, server_id: str, status: str, reason: str | None, detail: str | None) -> None:
        self.statuses.append((status, reason))

    def greeted(self, server_id: str, hello: Hello) -> None:
        self.hellos.append(hello)

    def lost(self, server_id: str) -> None:
        self.lost_ids.append(server_id)


class FakeChannel:
    """Keeps what was written; breaks when told to."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_closed = False
        self.is_broken = False

    def write(self, data: bytes) -> None:
        if self.is_broken:
            raise BrokenPipeError("gone")
        self.written.append(data)

    def close(self) -> None:
        self.is_closed = True


class Host:
    """A host at the other end, one collector here, and the time of both."""

    def __init__(self) -> None:
        self.now = 100.0
        self.second = 0
        self.notes = Notes()
        # At the hello the host's clock reads 1,000,500.
        clocks = Clocks(lambda: self.now, lambda: 1_000_500.0)
        self.collector = Collector("web-1", self.notes, clocks, random.Random(7))
        self.channel = FakeChannel()
        self.callbacks: Callbacks = self.collector.connecting()
        self.uptime_s = 500.0
        self.user = 0

    def connect(self) -> None:
        self.channel = FakeChannel()
        if self.collector.phase is Phase.WAITING:
            self.callbacks = self.collector.connecting()
        self.collector.opened(self.channel)

    def says(self, data: bytes) -> None:
        self.callbacks.on_data(data)

    def answers(self, rest: str = "", *, disks: str = "[]", pressure: str = "null") -> None:
        self.uptime_s += 1
        self.user += 30
        idle = int(self.uptime_s) * 70
        self.says(f"[1,{self.uptime_s},[{self.user},0,0,{idle},0,0,0,0],null,{pressure},{disks},[]{rest}]\n".encode())

    def beats(self, seconds: float = 1.0, idle_interval_s: int = 10) -> None:
        for _ in range(round(seconds)):
            self.now += 1
            self.second += 1
            self.collector.beat(self.now, self.second, idle_interval_s)

    def is_live(self) -> "Host":
        self.connect()
        self.says(HELLO)
        self.answers()
        self.beats()
        self.answers()
        assert self.notes.statuses[-1] == ("online", None)
        return self

    @property
    def asked(self) -> int:
        return len(self.channel.written)


@pytest.fixture
def host() -> Host:
    return Host()


def test_the_first_sample_comes_a_second_after_the_hello(host: Host) -> None:
    host.connect()
    assert host.asked == 0
    host.says(HELLO)
    assert host.channel.written == [b"tmf\n"]
    host.answers()
    assert host.notes.samples == []
    host.beats()
    assert host.channel.written == [b"tmf\n", b"t\n"]
    host.answers()
    assert host.notes.samples[0]["cpu_percent"] == pytest.approx(30.0)
    assert host.notes.statuses == [("online", None)]
    assert host.notes.hellos[0].hostname == "web-1"


def test_pressure_is_of_the_time_between_two_of_its_totals_and_stays_until_the_next(host: Host) -> None:
    host.collector.watched = True
    host.connect()
    host.says(HELLO)
    host.answers(pressure="[1000000,0,0,0,0]")
    for _ in range(9):
        host.beats()
        host.answers()
    host.beats()
    host.answers(pressure="[2000000,0,0,500000,0]")
    host.beats()
    host.answers()
    assert "pressure_cpu_percent" not in host.notes.samples[-3]
    for sample in host.notes.samples[-2:]:
        assert sample["pressure_cpu_percent"] == pytest.approx(10.0)
        assert sample["pressure_io_percent"] == pytest.approx(5.0)


def test_a_hello_that_comes_before_the_channel_is_handed_over_is_heard(host: Host) -> None:
    host.says(HELLO)
    host.connect()
    assert host.channel.written == [b"tmf\n"]


def test_a_beat_between_the_hello_and_its_channel_asks_nothing(host: Host) -> None:
    host.says(HELLO)
    host.beats()
    host.connect()
    assert host.channel.written == [b"tmf\n"]


def test_what_login_scripts_print_before_the_hello_is_passed_over(host: Host) -> None:
    host.connect()
    host.says(b"Welcome!\n\x1b[31mred\x1b[0m\n\n" + HELLO)
    host.answers()
    host.beats()
    host.answers()
    assert host.notes.statuses == [("online", None)]


def test_login_scripts_that_print_for_ever_are_cut_off(host: Host) -> None:
    host.connect()
    host.says(b"Welcome!\n" * 300)
    assert host.channel.is_closed
    assert host.notes.statuses == [("degraded", "protocol_error")]


def test_nobody_looking_means_a_question_every_ten_seconds(host: Host) -> None:
    host.is_live()
    before = host.asked
    for _ in range(30):
        host.beats()
        host.answers()
    assert host.asked == before + 3


def test_somebody_looking_means_a_question_every_second_from_the_next_one_on(host: Host) -> None:
    host.is_live()
    host.collector.watched = True
    before = host.asked
    for _ in range(5):
        host.beats()
        host.answers()
    assert host.asked == before + 5
    assert host.channel.written[-1] == b"t\n"


def test_an_open_page_asks_for_each_cpu_and_now_and_then_for_processes(host: Host) -> None:
    host.is_live()
    host.collector.watched = host.collector.detailed = True
    for _ in range(6):
        host.beats()
        host.answers()
    detailed = host.channel.written[-6:]
    assert all(b"c" in question for question in detailed)
    assert sum(b"p" in question for question in detailed) == 2


def test_slow_gauges_are_carried_over_to_the_samples_between(host: Host) -> None:
    host.is_live()
    host.collector.watched = True
    host.beats()
    host.answers(',[1.5,2,3,4,120],[900,1000],[["cpu",45000]],[0,0,0,0,1000000]')
    host.says(b"P 77\nF 4096 100 50 50 10 5 /\nF 4096 100 10 10 10 5 /var\n")
    host.beats()
    host.answers()
    values = host.notes.samples[-1]
    assert values["load1"] == 1.5
    assert values["threads"] == 120
    assert values["temperature_celsius:cpu"] == 45.0
    assert values["processes"] == 77
    assert values["disk_percent"] == 90.0
    assert values["filesystem_percent:/"] == 50.0


def test_a_filesystem_that_was_unmounted_disappears_with_the_next_answer(host: Host) -> None:
    host.is_live()
    host.collector.watched = True
    host.says(b"F 4096 100 50 50 10 5 /\nF 4096 100 10 10 10 5 /mnt\n")
    for _ in range(61):
        host.beats()
        host.answers()
    assert "filesystem_percent:/mnt" in host.notes.samples[-1]
    host.says(b"P 9\nF 4096 100 50 50 10 5 /\n")
    host.beats()
    host.answers()
    assert "filesystem_percent:/mnt" not in host.notes.samples[-1]


@pytest.mark.parametrize(
    ("free", "has_page", "times"), [(500, False, 2), (500, True, 6), (150, False, 6)], ids=["roomy", "watched", "full"]
)
def test_filesystems_are_asked_for_often_when_one_fills_or_somebody_looks(
    host: Host, free: int, has_page: bool, times: int
) -> None:
    host.connect()
    host.collector.detailed = has_page
    host.says(HELLO)
    for _ in range(5 * 60 + 1):
        if b"f" in host.channel.written[-1]:
            host.says(f"F 4096 1000 {free} {free} 0 0 /\n".encode())
        host.answers()
        host.beats(idle_interval_s=1)
    assert sum(b"f" in question for question in host.channel.written) == times


def test_filesystems_that_never_answer_are_not_asked_every_minute(host: Host) -> None:
    """Each question would leave one more hanging process on the host."""
    host.is_live()
    host.collector.watched = True
    for _ in range(595):
        host.beats()
        host.answers()
    assert sum(b"f" in question for question in host.channel.written) == 1
    for _ in range(5):
        host.beats()
        host.answers()
    assert sum(b"f" in question for question in host.channel.written) == 2


def test_a_slow_host_gets_no_second_question_and_is_degraded_after_five_seconds(host: Host) -> None:
    host.is_live()
    host.collector.watched = True
    host.beats()
    before = host.asked
    host.beats(4)
    assert host.notes.statuses[-1] == ("online", None)
    host.beats(2)
    assert host.notes.statuses[-1] == ("degraded", "slow")
    assert host.asked == before
    host.answers()
    assert host.notes.statuses[-1] == ("online", None)


def test_a_host_that_never_answers_again_is_dropped_after_twenty_seconds(host: Host) -> None:
    host.is_live()
    host.collector.watched = True
    host.beats(22)
    assert host.notes.statuses[-1] == ("offline", "connection_lost")
    assert host.channel.is_closed
    assert host.notes.lost_ids == ["web-1"]
    assert host.collector.phase is Phase.WAITING


def test_a_probe_that_says_nothing_is_called_slow_and_then_given_up(host: Host) -> None:
    """Shell start files may hold it up, even for the better part of a minute."""
    host.connect()
    host.beats(59)
    assert not host.channel.is_closed
    assert host.notes.statuses == [("degraded", "slow")]
    host.beats(2)
    assert host.channel.is_closed
    assert host.notes.statuses[-1] == ("degraded", "probe_failed")


def test_a_probe_that_ends_leaves_its_last_words(host: Host) -> None:
    host.connect()
    host.callbacks.on_stderr(b"This account is currently not available.\n")
    host.callbacks.on_closed(None)
    assert host.notes.statuses == [("degraded", "probe_failed")]


def test_a_probe_that_ends_before_its_channel_is_handed_over_is_noticed(host: Host) -> None:
    host.callbacks.on_closed(None)
    host.connect()
    assert host.channel.is_closed
    assert host.notes.statuses == [("degraded", "probe_failed")]


def test_a_connection_that_breaks_is_tried_again_soon_and_then_later_and_later(host: Host) -> None:
    host.is_live()
    host.callbacks.on_closed("connection_lost")
    assert host.notes.statuses[-1] == ("offline", "connection_lost")
    waits = [host.collector.retry_at - host.now]
    for _ in range(9):
        host.collector.connecting()
        host.collector.failed("connect_refused", "refused")
        waits.append(host.collector.retry_at - host.now)
    assert 0.5 <= waits[0] <= 1.0
    assert waits[5] > waits[0]
    assert max(waits) <= 60.0
    assert 30.0 <= waits[-1] <= 60.0
    assert host.notes.statuses[-1] == ("offline", "connect_refused")


def test_a_sample_makes_the_next_retry_quick_again(host: Host) -> None:
    for _ in range(8):
        host.collector.failed("connect_refused", "refused")
        host.callbacks = host.collector.connecting()
    host.is_live()
    host.callbacks.on_closed("connection_lost")
    assert host.collector.retry_at - host.now <= 1.0


@pytest.mark.parametrize(
    ("reason", "status"), [("host_key_unknown", "unknown"), ("host_key_changed", "host_key_changed")]
)
def test_what_only_a_person_can_settle_is_not_retried(host: Host, reason: str, status: str) -> None:
    host.collector.failed(reason, "")
    assert host.collector.retry_at == float("inf")
    assert host.notes.statuses == [(status, reason)]


def test_a_refused_login_is_tried_again_after_about_ten_minutes(host: Host) -> None:
    host.collector.failed("auth_failed", "")
    assert 480 <= host.collector.retry_at - host.now <= 720
    assert host.notes.statuses == [("auth_failed", "auth_failed")]


def test_a_host_without_awk_says_so(host: Host) -> None:
    host.connect()
    host.says(b"refused no_awk\n")
    assert host.channel.is_closed
    assert host.notes.statuses == [("degraded", "no_awk")]


def test_a_flood_is_cut_off(host: Host) -> None:
    host.is_live()
    for _ in range(5):
        host.says(b"x" * (ANSWER_LIMIT_BYTES // 4))
    assert host.channel.is_closed
    assert host.notes.statuses[-1] == ("degraded", "flood")


def test_a_flood_of_complaints_is_cut_off_like_one_of_answers(host: Host) -> None:
    host.is_live()
    for _ in range(5):
        host.callbacks.on_stderr(b"x" * (ANSWER_LIMIT_BYTES // 4))
    assert host.channel.is_closed
    assert host.notes.statuses[-1] == ("degraded", "flood")


def test_binary_is_counted_then_degrades_then_is_cut_off(host: Host) -> None:
    host.is_live()
    host.collector.watched = True
    for _ in range(4):
        host.beats()
        host.says(b"\x00\xff\xfe\n")
    assert host.notes.statuses[-1] == ("online", None)
    host.beats()
    host.says(b"\x00\xff\xfe\n")
    assert host.notes.statuses[-1] == ("degraded", "protocol_error")
    host.beats()
    host.answers()
    assert host.notes.statuses[-1] == ("online", None)
    for _ in range(20):
        host.beats()
        host.says(b"\x00\xff\xfe\n")
    assert host.channel.is_closed


def test_answers_nobody_asked_for_are_refused(host: Host) -> None:
    host.is_live()
    before = len(host.notes.samples)
    for _ in range(25):
        host.answers()
    assert len(host.notes.samples) == before
    assert host.channel.is_closed


def test_a_bad_section_keeps_the_others(host: Host) -> None:
    host.is_live()
    host.collector.watched = True
    host.beats()
    host.uptime_s += 1
    host.says(f"[1,{host.uptime_s},[-1,0,0,0,0,0,0,0],[1000,500,500,0,0,0,0,0,0,0],null,[],[]]\n".encode())
    values = host.notes.samples[-1]
    assert values["memory_percent"] == 50.0
    assert "cpu_percent" not in values


def test_a_reboot_is_no_sample(host: Host) -> None:
    host.is_live()
    host.collector.watched = True
    before = len(host.notes.samples)
    host.beats()
    host.uptime_s, host.user = 3.0, 0
    host.answers()
    assert len(host.notes.samples) == before
    host.beats()
    host.answers()
    assert len(host.notes.samples) == before + 1


def test_a_clock_that_is_wrong_is_said_and_collected_all_the_same(host: Host) -> None:
    host.connect()
    host.says(HELLO.replace(b"1000000", b"1009000"))
    host.answers()
    host.beats()
    host.answers()
    assert host.notes.statuses == [("degraded", "clock_skew")]
    assert len(host.notes.samples) == 1


def test_a_probe_that_costs_more_than_a_hundredth_of_a_core_is_asked_less_often(host: Host) -> None:
    host.is_live()
    host.collector.watched = True
    run_ns = 0
    for _ in range(25):
        host.beats()
        run_ns += 50_000_000
        host.answers(f",[1,1,1,1,1],[1,1],[],[0,0,0,0,{run_ns}]")
    before = host.asked
    for _ in range(8):
        host.beats()
        host.answers(f",[1,1,1,1,1],[1,1],[],[0,0,0,0,{run_ns}]")
    assert host.asked - before <= 4
    assert host.notes.samples[-1]["probe_cpu_percent"] > 0


def test_a_channel_that_is_gone_when_asked_counts_as_lost(host: Host) -> None:
    host.is_live()
    host.collector.watched = True
    host.channel.is_broken = True
    host.beats()
    assert host.notes.statuses[-1] == ("offline", "connection_lost")


def test_what_a_closed_channel_still_says_is_not_heard(host: Host) -> None:
    host.is_live()
    old = host.callbacks
    old.on_closed("connection_lost")
    host.callbacks = host.collector.connecting()
    host.connect()
    statuses = list(host.notes.statuses)
    old.on_data(HELLO)
    old.on_closed("connection_lost")
    assert host.collector.phase is Phase.GREETING
    assert host.notes.statuses == statuses


def test_a_stopped_collector_closes_what_is_opened_for_it_later(host: Host) -> None:
    host.collector.stop()
    host.collector.opened(host.channel)
    host.says(HELLO)
    host.callbacks.on_closed(None)
    assert host.channel.is_closed
    assert host.notes.statuses == []


def test_a_clock_that_was_put_right_is_noticed_without_a_new_connection(host: Host) -> None:
    host.connect()
    host.says(HELLO.replace(b"1000000", b"1009000"))
    host.collector.watched = True
    for _ in range(70):
        host.answers()
        if host.channel.written[-1].endswith(b"h\n"):
            host.says(HELLO)
        host.beats()
    assert host.notes.statuses == [("degraded", "clock_skew"), ("online", None)]


def test_a_hello_nobody_asked_for_is_refused(host: Host) -> None:
    host.is_live()
    for _ in range(20):
        host.says(HELLO)
    assert host.channel.is_closed
    assert len(host.notes.hellos) == 1


def test_a_host_whose_clock_stands_still_is_not_called_online_for_ever(host: Host) -> None:
    host.is_live()
    host.collector.watched = True
    for _ in range(20):
        host.beats()
        host.uptime_s -= 1
        host.answers()
    assert host.channel.is_closed
    assert host.notes.statuses[-1] == ("degraded", "protocol_error")


def test_filesystems_nobody_asked_for_are_refused(host: Host) -> None:
    host.is_live()
    host.says(b"F 4096 100 50 50 10 5 /\n" * 80)
    assert not host.channel.is_closed
    host.says(b"F 4096 100 50 50 10 5 /\n" * 10)
    assert host.channel.is_closed


def test_a_host_cannot_invent_devices_for_ever(host: Host) -> None:
    """Each has series of its own that are kept for years."""
    host.is_live()
    host.collector.watched = True
    seen = set()
    for number in range(40):
        disks = ",".join(f'["d{number // 2}-{each}",{number},1,1,1,1,1,1]' for each in range(100))
        host.beats()
        host.answers(disks=f"[{disks}]")
        seen |= {name for name in host.notes.samples[-1] if name.startswith("device_reads")}
    assert 900 < len(seen) <= 1024
    assert "cpu_percent" in host.notes.samples[-1]

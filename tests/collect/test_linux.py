"""Counters become values; what resets never becomes a negative one."""

import pytest

from server_monitor.collect import linux
from server_monitor.collect.lines import CpuTimes as Cpu
from server_monitor.collect.lines import (
    Disk,
    Filesystem,
    Interface,
    Load,
    MemoryKib,
    OpenFiles,
    OwnCost,
    Process,
    Reading,
)
from server_monitor.series.sample import HEADLINE, METRICS, series_name, split_series


def reading(
    uptime_s: float = 100.0,
    cpu: Cpu | None = None,
    disks: list[Disk] | None = None,
    interfaces: list[Interface] | None = None,
) -> Reading:
    return Reading(1, uptime_s, cpu, None, None, disks, interfaces)


def test_an_earlier_uptime_is_a_reboot_and_no_rate() -> None:
    with pytest.raises(linux.CounterResetError):
        linux.rates(reading(100.0), reading(5.0), 1.0)


def test_two_readings_at_one_instant_give_no_rates() -> None:
    cpu = Cpu(1, 1, 1, 1, 1, 1, 1, 1)
    assert linux.rates(reading(cpu=cpu), reading(cpu=cpu), 0.0) == {}


def test_a_cpu_that_did_not_tick_gives_no_shares() -> None:
    cpu = Cpu(1, 1, 1, 1, 1, 1, 1, 1)
    assert linux.rates(reading(cpu=cpu), reading(101.0, cpu=cpu), 1.0) == {}


def test_idle_time_that_steps_back_a_little_is_no_reason_for_a_negative_share() -> None:
    values = linux.rates(
        reading(cpu=Cpu(100, 0, 100, 1000, 50, 0, 0, 0)),
        reading(101.0, cpu=Cpu(150, 0, 150, 999, 40, 0, 0, 0)),
        1.0,
    )
    assert values["cpu_percent"] == 100.0
    assert values["cpu_iowait_percent"] == 0.0


@pytest.mark.parametrize("ticks", range(1, 400))
def test_a_host_that_is_busy_all_the_time_is_busy_for_exactly_all_of_it(ticks: int) -> None:
    nothing = Cpu(0, 0, 0, 0, 0, 0, 0, 0)
    values = linux.rates(reading(cpu=nothing), reading(101.0, cpu=Cpu(ticks, 0, 0, 0, 0, 0, 0, 0)), 1.0)
    assert values["cpu_percent"] == 100.0


def test_an_interface_that_was_made_anew_has_no_rates_and_the_others_have() -> None:
    earlier = [Interface("eth0", 1000, 1, 0, 0, 1000, 1, 0, 0), Interface("eth1", 9000, 9, 0, 0, 9000, 9, 0, 0)]
    later = [Interface("eth0", 3000, 3, 0, 0, 2000, 2, 0, 0), Interface("eth1", 10, 1, 0, 0, 10, 1, 0, 0)]
    values = linux.rates(reading(interfaces=earlier), reading(102.0, interfaces=later), 2.0)
    assert values["net_rx_bytes_per_second"] == 1000.0
    assert values["interface_rx_bytes_per_second:eth0"] == 1000.0
    assert "interface_rx_bytes_per_second:eth1" not in values


def test_a_device_named_twice_counts_once() -> None:
    earlier = [Disk("sda", 1, 0, 0, 1, 0, 0, 0)]
    later = [Disk("sda", 11, 20, 0, 1, 0, 0, 0), Disk("sda", 99, 9999, 0, 1, 0, 0, 0)]
    values = linux.rates(reading(disks=earlier), reading(101.0, disks=later), 1.0)
    assert values["disk_read_bytes_per_second"] == 20 * 512


def test_a_host_with_only_stacked_devices_has_totals_of_those() -> None:
    earlier = [Interface("br0", 0, 0, 0, 0, 0, 0, 0, 0)]
    later = [Interface("br0", 500, 0, 0, 0, 0, 0, 0, 0)]
    values = linux.rates(reading(interfaces=earlier), reading(101.0, interfaces=later), 1.0)
    assert values["net_rx_bytes_per_second"] == 500.0


@pytest.mark.parametrize(
    "name", ["bond0", "br0", "br-1a2b", "bridge0", "docker0", "virbr0", "eth0.100", "wg0", "tun0", "team0", "vlan7"]
)
def test_interfaces_whose_traffic_passes_elsewhere_too_are_left_out_of_totals(name: str) -> None:
    assert linux.is_stacked_interface(name)


@pytest.mark.parametrize("name", ["eth0", "ens3", "enp1s0f1np1", "eno1", "wlan0", "wlp2s0", "venet0", "ib0", "usb0"])
def test_physical_interfaces_are_in_the_totals(name: str) -> None:
    assert not linux.is_stacked_interface(name)


def test_memory_before_linux_3_14_is_guessed_as_free_did() -> None:
    memory = MemoryKib(1000, 100, None, 50, 350, 0, 0, 0, 100, 20)
    values = linux.gauges(Reading(1, 1.0, None, memory, None, None, None))
    assert values["memory_available_bytes"] == (100 + 50 + 350 + 20 - 100) * 1024
    assert "swap_percent" not in values


def test_memory_numbers_that_contradict_each_other_stay_within_bounds() -> None:
    memory = MemoryKib(1000, 5000, 9000, 0, 0, 10, 90, 0, 9999, 0)
    values = linux.gauges(Reading(1, 1.0, None, memory, None, None, None))
    assert values["memory_percent"] == 0.0
    assert values["swap_percent"] == 0.0
    assert values["memory_cached_bytes"] == 0.0


def test_a_kernel_without_a_limit_of_open_files_has_no_share_of_it() -> None:
    found = Reading(1, 1.0, None, None, None, None, None, Load(1, 1, 1, 1, 1), OpenFiles(10, 2**63 - 1))
    assert "fds_percent" not in linux.slow_gauges(found)


def test_filesystems_are_counted_as_df_does_and_the_fullest_leads() -> None:
    found = [
        Filesystem("/", 4096, 1000, 400, 300, 100, 75),
        Filesystem("/var", 1024, 100, 2, 0, 0, 0),
        Filesystem("/empty", 4096, 0, 0, 0, 0, 0),
        Filesystem("/odd", 4096, 10, 20, 10, 10, 10),
    ]
    values = linux.filesystem_gauges(found)
    assert values["filesystem_percent:/"] == pytest.approx(600 / 900 * 100)
    assert values["filesystem_inodes_percent:/"] == 25.0
    assert values["filesystem_percent:/var"] == 100.0
    assert "filesystem_inodes_percent:/var" not in values
    assert values["disk_percent"] == 100.0
    assert not [name for name in values if name.endswith(("/empty", "/odd"))]
    assert linux.filesystem_gauges([]) == {}


def test_the_probe_weighs_itself_in_nanoseconds_or_else_in_jiffies() -> None:
    assert linux.probe_cpu_percent(OwnCost(0, 0, 0, 0, 0), OwnCost(5, 5, 0, 0, 20_000_000), 10.0) == pytest.approx(0.2)
    assert linux.probe_cpu_percent(OwnCost(0, 0, 0, 0, None), OwnCost(5, 5, 0, 0, None), 10.0) == pytest.approx(1.0)
    assert linux.probe_cpu_percent(OwnCost(9, 9, 0, 0, None), OwnCost(0, 0, 0, 0, None), 10.0) is None


def test_every_headline_is_a_metric_and_series_names_split_again() -> None:
    assert set(HEADLINE) <= set(METRICS)
    assert split_series(series_name("filesystem_percent", "/a:b")) == ("filesystem_percent", "/a:b")
    assert split_series(series_name("load1")) == ("load1", None)


def test_top_processes_are_told_in_percent_of_a_core_and_bytes() -> None:
    top = [Process(7, "postgres", 250, 10)]

    (use,) = linux.process_uses(top, 5.0)
    (first,) = linux.process_uses(top, None)

    assert (use.pid, use.name, use.cpu_percent, use.memory_bytes) == (7, "postgres", 50.0, 40960)
    assert first.cpu_percent is None

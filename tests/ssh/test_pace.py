from server_monitor.ssh.pace import BURST_S, SHARE, Pace


def test_a_host_that_costs_little_never_waits() -> None:
    pace = Pace()

    assert [pace.spend(0.001, second) for second in range(1000)] == [0.0] * 1000


def test_a_burst_is_free() -> None:
    assert Pace().spend(BURST_S, 100.0) == 0.0


def test_a_host_that_floods_gets_its_share_and_no_more() -> None:
    """Spending whenever it may, over a minute, it comes to its share of a core and one burst."""
    pace, now, spent_s = Pace(), 100.0, 0.0
    while now < 160.0:
        rest_s = pace.spend(0.01, now)
        spent_s += 0.01
        now += 0.01 + rest_s

    assert spent_s <= 60 * SHARE + BURST_S
    assert spent_s >= 60 * SHARE * 0.8


def test_what_was_spent_drains_away() -> None:
    pace = Pace()
    assert pace.spend(10 * BURST_S, 100.0) > 0.0

    assert pace.spend(0.001, 200.0) == 0.0

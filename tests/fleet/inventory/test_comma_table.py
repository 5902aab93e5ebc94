"""Servers out of a table."""

import pytest

from server_monitor.fleet.inventory import comma_table


def test_a_row_is_a_server() -> None:
    parsed = comma_table.parse(
        "name,host,port,username,labels,groups,jump\r\n"
        'web1,10.0.0.1,2222,deploy,"env=live;team=shop, inc",web;live,gate\r\n'
        "\r\n"
        "gate,gate.example.com,,,,,\r\n"
    )
    assert parsed.errors == ()
    web1, gate = parsed.entries
    assert (web1.line, web1.name, web1.host, web1.port, web1.username) == (2, "web1", "10.0.0.1", 2222, "deploy")
    assert (web1.labels, web1.groups, web1.jump) == ({"env": "live", "team": "shop, inc"}, ("web", "live"), "gate")
    assert (gate.line, gate.port, gate.username, gate.jump) == (4, 22, None, None)


@pytest.mark.parametrize(
    "text", ["host;username\n10.0.0.1;root", "Host\tUsername\n10.0.0.1\troot\n", "host,username\n10.0.0.1,root"]
)
def test_semicolons_and_tabs_do_as_well_and_the_host_is_the_name(text: str) -> None:
    (only,) = comma_table.parse(text).entries
    assert (only.name, only.host, only.username) == ("10.0.0.1", "10.0.0.1", "root")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,adress\na,b\n", "no column “adress”"),
        ("name,name\na,b\n", "named twice"),
        ("port,username\n22,root\n", "'name' or 'host' is missing"),
        ("name\n", "nothing to import"),
    ],
)
def test_a_header_that_will_not_do_is_explained(text: str, words: str) -> None:
    assert words in comma_table.parse(text).errors[0].message


def test_every_bad_row_has_its_line() -> None:
    parsed = comma_table.parse("name,labels\na,x=1\nb\nc,oops;y=2\nd,x=1,more\n")
    assert [error.line for error in parsed.errors] == [3, 4, 5]
    assert [entry.name for entry in parsed.entries] == ["a", "c"]


def test_a_quotation_that_is_never_closed_is_a_mistake() -> None:
    parsed = comma_table.parse('name\n"' + "x" * 200_000)
    assert parsed.errors[0].line == 2


def test_more_servers_than_an_import_holds_are_refused() -> None:
    parsed = comma_table.parse("name\n" + "\n".join(f"h{n}" for n in range(10_001)))
    assert parsed.errors[0].line == 10_002
    assert "at most 10,000" in parsed.errors[0].message

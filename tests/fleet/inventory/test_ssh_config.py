"""Servers out of an OpenSSH client configuration."""

from collections.abc import Sequence

from server_monitor.fleet.inventory import ssh_config
from server_monitor.fleet.inventory.entries import Entry, Parsed


def entry_of(text: str, name: str) -> Entry:
    return next(entry for entry in ssh_config.parse(text).entries if entry.name == name)


def names(parsed: Parsed) -> list[str]:
    return [entry.name for entry in parsed.entries]


def test_each_name_without_a_wildcard_is_a_server() -> None:
    parsed = ssh_config.parse("Host web1\n  HostName 10.0.0.1\n  Port 2222\n  User deploy\nHost db-*\n  User dba\n")
    assert parsed.errors == ()
    assert [(e.line, e.name, e.host, e.port, e.username) for e in parsed.entries] == [
        (1, "web1", "10.0.0.1", 2222, "deploy")
    ]


def test_the_first_value_wins_so_defaults_stand_at_the_end() -> None:
    text = "Host web1\n User deploy\nHost web*\n User www\n Port 2200\nHost *\n User nobody\n Port 22\n"
    assert (entry_of(text, "web1").username, entry_of(text, "web1").port) == ("deploy", 2200)


def test_defaults_at_the_top_win_over_what_follows() -> None:
    assert entry_of("User first\nHost web1\n User second\n", "web1").username == "first"


def test_a_negated_pattern_takes_a_name_out() -> None:
    text = "Host * !web2\n User most\nHost web1 web2\n"
    assert entry_of(text, "web1").username == "most"
    assert entry_of(text, "web2").username is None


def test_a_block_that_comes_twice_adds_to_the_first() -> None:
    parsed = ssh_config.parse("Host a\n User one\nHost b\nHost a\n User two\n Port 99\n")
    assert names(parsed) == ["a", "b"]
    assert (parsed.entries[0].username, parsed.entries[0].port) == ("one", 99)


def test_options_may_be_written_with_equals_quotes_and_comments() -> None:
    text = '  # mine\nhost = "web1"   # the shop\n\tHOSTNAME="10.0.0.1"\n  user=\'deploy\'\r\n  Port = 22 # usual\n'
    entry = entry_of(text, "web1")
    assert (entry.host, entry.username, entry.port) == ("10.0.0.1", "deploy", 22)


def test_h_in_a_host_name_stands_for_the_name() -> None:
    assert entry_of("Host web1\n HostName %h.example.com\n", "web1").host == "web1.example.com"


def test_other_names_of_the_same_server_are_skipped_with_the_reason() -> None:
    parsed = ssh_config.parse("Host web1 web1.example.com\n HostName 10.0.0.1\nHost a b\n User x\n")
    assert names(parsed) == ["web1", "a", "b"]
    assert [(s.name, s.why) for s in parsed.skipped] == [("web1.example.com", "Another name of web1.")]


def test_a_proxy_jump_to_another_entry_names_it() -> None:
    text = "Host app\n ProxyJump gate\nHost gate\n HostName gate.example.com\n"
    assert entry_of(text, "app").jump == "gate"
    assert entry_of(text, "gate").jump is None


def test_a_proxy_jump_to_somewhere_new_adds_that_server_first() -> None:
    parsed = ssh_config.parse("Host app\n ProxyJump ops@gate.example.com:2200\nHost *\n User me\n")
    gate, app = parsed.entries
    assert (gate.name, gate.host, gate.port, gate.username) == (
        "ops@gate.example.com:2200",
        "gate.example.com",
        2200,
        "ops",
    )
    assert gate.implied
    assert app.jump == gate.name


def test_a_chain_of_new_jumps_is_added_link_by_link() -> None:
    parsed = ssh_config.parse("Host app\n ProxyJump a.example,b.example\n")
    assert {entry.name: entry.jump for entry in parsed.entries} == {
        "a.example": None,
        "b.example": "a.example",
        "app": "b.example",
    }


def test_a_chain_through_an_entry_leaves_that_entry_as_it_is_and_says_so() -> None:
    parsed = ssh_config.parse("Host app\n ProxyJump a.example,gate\nHost gate\n")
    assert {entry.name: entry.jump for entry in parsed.entries} == {"app": "gate", "gate": None}
    assert any("how gate itself is reached" in note for note in parsed.entries[0].notes)


def test_nobody_is_their_own_jump() -> None:
    """`Host * / ProxyJump gate` applies to gate as well; ssh would never get anywhere."""
    text = "Host gate app\nHost *\n ProxyJump gate\n"
    assert entry_of(text, "gate").jump is None
    assert entry_of(text, "app").jump == "gate"


def test_proxy_jump_none_and_the_first_of_both_options_count() -> None:
    text = "Host a\n ProxyJump none\nHost b\n ProxyCommand none\nHost c d\nHost *\n ProxyJump gate\nHost gate\n"
    assert [entry_of(text, name).jump for name in "abc"] == [None, None, "gate"]


def test_the_old_way_to_jump_is_understood() -> None:
    for command in (
        "ssh -W %h:%p gate",
        "ssh -q -W %h:%p gate",
        "/usr/bin/ssh -o StrictHostKeyChecking=no gate -W %h:%p",
        "ssh -qW %h:%p gate",
        "ssh -l ops -p 2200 -W [%h]:%p gate",
    ):
        jump = entry_of(f"Host app\n ProxyCommand {command}\nHost gate\n", "app").jump
        assert jump == ("ops@gate:2200" if "-l" in command else "gate"), command


def test_what_another_program_connects_is_skipped_and_the_rest_is_taken() -> None:
    parsed = ssh_config.parse("Host odd\n ProxyCommand nc -X 5 %h %p\nHost fine\n")
    assert names(parsed) == ["fine"]
    assert "ProxyCommand" in parsed.skipped[0].why


def test_places_for_code_are_skipped() -> None:
    parsed = ssh_config.parse("Host github.com\nHost forge\n HostName git.example.com\n User git\nHost web1\n")
    assert names(parsed) == ["web1"]
    assert [skipped.name for skipped in parsed.skipped] == ["github.com", "forge"]


def test_a_match_block_is_left_out_with_a_note_and_match_all_is_taken() -> None:
    parsed = ssh_config.parse("Host web1\nMatch host web1 exec true\n User no\nMatch all\n User yes\n")
    assert parsed.entries[0].username == "yes"
    assert parsed.skipped[0].line == 2
    assert "Match" in parsed.skipped[0].name


def test_an_include_that_cannot_be_followed_is_noted() -> None:
    parsed = ssh_config.parse("Include conf.d/*\nHost web1\n")
    assert names(parsed) == ["web1"]
    assert (parsed.skipped[0].line, parsed.skipped[0].name) == (1, "Include conf.d/*")


def test_an_include_that_can_be_followed_stands_where_it_is() -> None:
    files = {"work": "Host db\n HostName 10.0.0.2\n User dba\n", "in_block": "Port 2200\n"}

    def include(pattern: str) -> Sequence[tuple[str, str]]:
        return [(f"~/.ssh/{pattern}", files[pattern])]

    parsed = ssh_config.parse("Include work\nHost web1\n Include in_block\n User a\nHost *\n User z\n", include)
    found = {entry.name: (entry.username, entry.port) for entry in parsed.entries}
    assert found == {"db": ("dba", 22), "web1": ("a", 2200)}
    assert "From ~/.ssh/work." in parsed.entries[0].notes


def test_a_file_that_includes_itself_is_a_mistake_and_not_the_end() -> None:
    parsed = ssh_config.parse("Include me\nHost web1\n", lambda _: [("me", "Include me\n")])
    assert "16 deep" in parsed.errors[0].message


def test_every_mistake_has_its_line() -> None:
    parsed = ssh_config.parse('Host web1\n HostName\n ???\n User "open\nHost\n')
    assert [(error.line, error.field) for error in parsed.errors] == [
        (2, "text"),
        (3, "text"),
        (4, "text"),
        (5, "text"),
    ]
    assert "has no value" in parsed.errors[0].message
    assert "never closed" in parsed.errors[2].message


def test_a_port_or_account_that_cannot_be_is_a_mistake_on_its_own_line_once() -> None:
    parsed = ssh_config.parse("Host a b c\n Port ssh\nHost *\n User -x\n")
    assert [error.line for error in parsed.errors] == [2, 4]
    assert "1 to 65535" in parsed.errors[0].message


def test_a_key_file_is_named_and_kept_for_whoever_can_read_it() -> None:
    entry = entry_of("Host a\n IdentityFile ~/.ssh/work\nHost *\n IdentityFile ~/.ssh/other\n", "a")
    assert entry.identity_file == "~/.ssh/work"
    assert any("~/.ssh/work" in note for note in entry.notes)


def test_a_text_without_hosts_says_so() -> None:
    assert "nothing to import" in ssh_config.parse("# empty\n").errors[0].message


def test_as_in_ssh_a_bracket_in_a_pattern_is_a_bracket() -> None:
    assert entry_of("Host web[12] web1\nHost web[*\n User x\n", "web[12]").username == "x"
    assert entry_of("Host web1\nHost web[1]*\n User x\n", "web1").username is None

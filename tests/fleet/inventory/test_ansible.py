"""Servers out of an Ansible inventory, in both its forms."""

import pytest

from server_monitor.fleet.inventory import ansible, ansible_ini, ansible_yaml
from server_monitor.fleet.inventory.entries import Entry, Parsed
from server_monitor.fleet.inventory.ssh_lines import UnreadableError

INI = """\
mail.example.com ansible_port=2222

[web]
web[01:03].example.com ansible_user=deploy   # the shop
10.0.0.9 ansible_ssh_user=old ansible_ssh_private_key_file="~/.ssh/my key"

[db]
db1 ansible_host=10.0.1.1

[db:vars]
ansible_user = dba

[live:children]
web
db

[live:vars]
ansible_user=live
ansible_port=2022

[all:vars]
ansible_user=everybody
"""

YAML = """\
all:
  hosts:
    mail.example.com: {ansible_port: 2222}
  vars: {ansible_user: everybody}
  children:
    live:
      vars: {ansible_user: live, ansible_port: 2022}
      children:
        web:
          hosts:
            web[01:03].example.com: {ansible_user: deploy}
            10.0.0.9: {ansible_ssh_user: old, ansible_ssh_private_key_file: ~/.ssh/my key}
        db:
          hosts:
            db1:
              ansible_host: 10.0.1.1
          vars: {ansible_user: dba}
"""


def by_name(parsed: Parsed) -> dict[str, Entry]:
    assert parsed.errors == ()
    return {entry.name: entry for entry in parsed.entries}


@pytest.mark.parametrize("parsed", [ansible_ini.parse(INI), ansible_yaml.parse(YAML)], ids=["ini", "yaml"])
def test_both_forms_give_the_same_servers(parsed: Parsed) -> None:
    found = {e.name: (e.host, e.port, e.username, e.groups) for e in by_name(parsed).values()}
    assert found == {
        "mail.example.com": ("mail.example.com", 2222, "everybody", ()),
        "web01.example.com": ("web01.example.com", 2022, "deploy", ("live", "web")),
        "web02.example.com": ("web02.example.com", 2022, "deploy", ("live", "web")),
        "web03.example.com": ("web03.example.com", 2022, "deploy", ("live", "web")),
        "10.0.0.9": ("10.0.0.9", 2022, "old", ("live", "web")),
        "db1": ("10.0.1.1", 2022, "dba", ("db", "live")),
    }
    assert by_name(parsed)["10.0.0.9"].identity_file == "~/.ssh/my key"


def test_a_host_in_several_groups_is_one_server() -> None:
    parsed = ansible_ini.parse("[a]\nhost1 ansible_user=x\n[b]\nhost1 ansible_port=99\n")
    only = by_name(parsed)["host1"]
    assert (only.username, only.port, only.groups, only.line) == ("x", 99, ("a", "b"), 2)


def test_of_groups_at_one_depth_the_later_name_wins_and_a_child_wins_over_both() -> None:
    text = "[b]\nh\n[a]\nh\n[a:vars]\nansible_user=a\n[b:vars]\nansible_user=b\n"
    assert by_name(ansible_ini.parse(text))["h"].username == "b"
    text += "[top:children]\na\n[top:vars]\nansible_user=top\nansible_port=7\n"
    assert by_name(ansible_ini.parse(text))["h"].username == "a", "a is deeper than b now"


@pytest.mark.parametrize(
    ("pattern", "names", "port"),
    [
        ("web1", ["web1"], None),
        ("web1:2222", ["web1"], "2222"),
        ("web[1:3]", ["web1", "web2", "web3"], None),
        ("web[08:11]", ["web08", "web09", "web10", "web11"], None),
        ("web[:2]", ["web0", "web1", "web2"], None),
        ("web[0:10:5].x", ["web0.x", "web5.x", "web10.x"], None),
        ("db-[a:c]", ["db-a", "db-b", "db-c"], None),
        ("r[1:2]n[a:b]:99", ["r1na", "r1nb", "r2na", "r2nb"], "99"),
        ("2001:db8::1", ["2001:db8::1"], None),
        ("[2001:db8::1]:22", ["2001:db8::1"], "22"),
    ],
)
def test_ranges_and_ports(pattern: str, names: list[str], port: str | None) -> None:
    assert ansible.expand(pattern, 10_000) == (names, port)


@pytest.mark.parametrize(
    "pattern", ["web[3:1]", "web[1:9:0]", "web[a:9]", "web[", "web]", "web[1]", "w[a:B]", "x[1:99999999999]"]
)
def test_a_range_that_makes_no_sense_is_refused(pattern: str) -> None:
    with pytest.raises(UnreadableError):
        ansible.expand(pattern, 10_000)


@pytest.mark.parametrize("pattern", ["w[0:999999999]", "w[0:99][0:99][0:99]", "w[0:999999998][0:9]"])
def test_a_range_too_large_for_an_import_is_refused_before_it_fills_the_memory(pattern: str) -> None:
    parsed = ansible_ini.parse(f"[web]\n{pattern}\n")
    assert parsed.errors[0].line == 2
    assert "at most 10,000" in parsed.errors[0].message


def test_what_is_not_reached_by_ssh_is_skipped_with_the_reason() -> None:
    text = (
        "localhost ansible_connection=local\nwin ansible_connection=winrm\nt ansible_host='{{ lookup }}'\nok\n"
        "p ansible_ssh_common_args='-o ProxyCommand=\"nc %h %p\"'\n"
    )
    parsed = ansible_ini.parse(text)
    assert list(by_name(parsed)) == ["ok"]
    assert [(skipped.line, skipped.name) for skipped in parsed.skipped] == [
        (1, "localhost"),
        (2, "win"),
        (3, "t"),
        (5, "p"),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        "-J ops@gate.example.com",
        "-o ProxyJump=ops@gate.example.com",
        "-oProxyJump=ops@gate.example.com",
        '-o ProxyCommand="ssh -W %h:%p -q ops@gate.example.com"',
    ],
)
def test_a_jump_in_the_arguments_of_ssh_is_understood(arguments: str) -> None:
    found = by_name(ansible_ini.parse(f"[x]\napp\n[x:vars]\nansible_ssh_common_args='{arguments}'\n"))
    assert found["app"].jump == "ops@gate.example.com"
    assert found["ops@gate.example.com"].implied


def test_a_password_in_the_text_is_not_taken_over_and_this_is_said() -> None:
    found = by_name(ansible_ini.parse("a ansible_password=hunter2\n"))["a"]
    assert "hunter2" not in repr(found)
    assert "password was not taken over" in found.notes[0]


def test_groups_that_contain_each_other_are_a_mistake() -> None:
    parsed = ansible_ini.parse("[a:children]\nb\n[b:children]\na\n[b]\nh\n")
    assert sorted(error.message for error in parsed.errors) == [
        "The group “a” is inside itself.",
        "The group “b” is inside itself.",
    ]


def test_each_mistake_in_ini_has_its_line() -> None:
    parsed = ansible_ini.parse('[web\nok\nbad oops\n[web:bogus]\n[web:vars]\nnovalue\n[web]\nq "open\nr[2:1]\n')
    assert [error.line for error in parsed.errors] == [1, 3, 4, 6, 8, 9]


def test_each_mistake_in_yaml_has_its_line() -> None:
    parsed = ansible_yaml.parse("all:\n  hosts: [a, b]\n")
    assert [(error.line, error.message) for error in parsed.errors] == [
        (2, "Here belong hosts, each with a colon behind it.")
    ]
    parsed = ansible_yaml.parse("web:\n  hosts:\n    a[2:1]:\n  host:\n    b:\n")
    assert [error.line for error in parsed.errors] == [3, 4]
    parsed = ansible_yaml.parse("all:\n  hosts:\n    a: {\n")
    assert "This is not YAML" in parsed.errors[0].message
    assert parsed.errors[0].line is not None


def test_tags_do_nothing_and_a_vault_value_is_no_text_for_us() -> None:
    text = "all:\n  hosts:\n    a: !!python/object/apply:os.system [x]\n"
    assert "variables" in ansible_yaml.parse(text).errors[0].message
    text = "all:\n  hosts:\n    a:\n      ansible_user: !vault |\n        $ANSIBLE_VAULT;1.1\n"
    assert ansible_yaml.parse(text).errors == ()


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "- " * 100_000, "? " * 100_000, "{a: " * 50_000, "\n".join(" " * n + "a:" for n in range(2_000))],
    ids=["brackets", "dashes", "questions", "braces", "indentation"],
)
def test_a_text_nested_without_end_is_refused(text: str) -> None:
    """libyaml's own composer ends the process on these."""
    assert "nested more than 32 deep" in ansible_yaml.parse(text).errors[0].message


def test_aliases_are_followed_and_cannot_multiply_without_end() -> None:
    found = by_name(ansible_yaml.parse("a: &a\n  hosts: {h: {ansible_user: x}}\nb: *a\n"))
    assert found["h"].groups == ("a", "b")
    levels = ["x0: &x0 {hosts: {h: }}"]
    levels += [
        f"x{n}: &x{n} {{children: {{" + ", ".join(f"c{m}: *x{n - 1}" for m in range(9)) + "}}" for n in range(1, 9)
    ]
    assert "repeat it without end" in ansible_yaml.parse("\n".join(levels)).errors[0].message
    assert "nested" in ansible_yaml.parse("a: &a\n  children: {b: *a}\n").errors[0].message
    assert "no anchor" in ansible_yaml.parse("a: *nowhere\n").errors[0].message

"""Which passwords are good enough, and how they are kept."""

import pytest

from server_monitor.auth import passwords
from server_monitor.auth.actor import Role
from server_monitor.errors import Invalid


@pytest.mark.parametrize(
    "password",
    [
        "violet harbour seven lanterns",
        "correct-horse-1-staple",
        "Zwölf Boxkämpfer jagen Viktor",
        "пароль который никто не знает",
        "四つの無作為な言葉を使ってください",
        "kP9#vX2$mQ7!wL4z",
        "no digits no capitals no symbols",
        "".join(chr(33 + number * 37 % 90) for number in range(128)),
    ],
)
def test_long_passwords_are_good_whatever_they_are_made_of(password):
    assert passwords.problems(password, name="ada", role=Role.ADMIN) == []


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("", "has 0 characters"),
        ("kP9#vX2$mQ7", "has 11 characters; use at least 12"),
        ("x1 " * 43, "has 129 characters; use at most 128"),
        ("passwordpassword", "is common or a pattern"),
        ("123456789012", "is common or a pattern"),
        ("qwertyuiop12", "is common or a pattern"),
        ("1qaz2wsx3edc", "is common or a pattern"),
        ("Password1234!", "is common or a pattern"),
        ("iloveyou123456", "is common or a pattern"),
        ("aaaaaaaaaaaaaaaa", "is common or a pattern"),
        ("abcabcabcabcabc", "is common or a pattern"),
        ("server-monitor", "consists of your name or the product's name"),
        ("Server-Monitor-2026", "consists of your name or the product's name"),
        ("ada-lovelace-1234", "consists of your name or the product's name"),
        ("LOVELACE ada monitor", "consists of your name or the product's name"),
        ("\ud800" * 20, "is not valid text"),
    ],
)
def test_short_common_and_obvious_passwords_are_refused_with_a_reason(password, why):
    (problem,) = passwords.problems(password, name="Ada Lovelace", role=Role.VIEWER)

    assert problem.field == "password"
    assert problem.message.startswith(why)


def test_an_administrator_needs_fifteen_characters():
    assert passwords.problems("kP9#vX2$mQ7!wL", name="ada", role=Role.VIEWER) == []
    (problem,) = passwords.problems("kP9#vX2$mQ7!wL", name="ada", role=Role.ADMIN)
    assert problem.message.startswith("has 14 characters; use at least 15")


def test_a_refusal_does_not_repeat_the_password():
    with pytest.raises(Invalid) as refused:
        passwords.check("passwordpassword", name="ada", role=None)

    assert "passwordpassword" not in str(refused.value)


@pytest.mark.parametrize(
    ("typed", "meant"), [("café au lait twice", "café au lait twice"), ("ﬁfteen ﬁddlers", "fifteen fiddlers")]
)
def test_the_same_characters_are_the_same_password_on_every_keyboard(typed, meant):
    assert passwords._matches(passwords._hash(typed), meant)


async def test_a_stored_password_is_a_slow_hash_that_shows_nothing():
    stored = await passwords.hash_password("violet harbour seven lanterns")

    assert stored.startswith("$argon2id$v=19$m=47104,t=2,p=1$")
    assert stored != await passwords.hash_password("violet harbour seven lanterns")
    assert not passwords.needs_new_hash(stored)


async def test_no_password_matches_a_user_who_does_not_exist():
    with passwords.STRANGERS.place() as place:
        assert not await place.check(None, "violet harbour seven lanterns")


def test_a_damaged_hash_matches_nothing():
    assert not passwords._matches("$argon2id$v=19$nonsense", "violet harbour seven lanterns")

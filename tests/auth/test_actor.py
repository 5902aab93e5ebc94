"""Who may do what."""

import itertools
from pathlib import Path

import pytest

from server_monitor.auth.actor import (
    ANONYMOUS,
    OWN,
    PER_GROUP,
    ROLE_PERMISSIONS,
    SCOPE_PERMISSIONS,
    Actor,
    ActorKind,
    GroupId,
    Permission,
    Role,
    Scope,
    allows,
    groups_allowing,
)

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "identity.md"
OURS, THEIRS = GroupId("ours"), GroupId("theirs")


def table(heading: str) -> dict[str, dict[str, bool]]:
    """The table under a heading of the reference page: permission -> column -> is there a "yes"?"""
    lines = REFERENCE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0].splitlines()
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    columns = rows[0][1:]
    return {row[0]: {column: cell == "yes" for column, cell in zip(columns, row[1:], strict=True)} for row in rows[2:]}


def test_the_reference_shows_what_each_role_really_may():
    documented = table("What each role may do")

    assert documented == {
        permission.value: {role.value: permission in ROLE_PERMISSIONS[role] for role in Role}
        | {"in a group": permission in PER_GROUP}
        for permission in Permission
    }


def test_the_reference_shows_what_each_scope_really_may():
    documented = table("What a token's scope allows")

    assert documented == {
        permission.value: {scope.value: permission in SCOPE_PERMISSIONS[scope] for scope in Scope}
        for permission in Permission
    }


@pytest.mark.parametrize(("role", "permission"), list(itertools.product([None, *Role], Permission)))
def test_a_global_role_holds_everywhere(role, permission):
    actor = Actor(ActorKind.USER, "1", "ada", role)
    expected = permission in OWN or (role is not None and permission in ROLE_PERMISSIONS[role])

    assert allows(actor, permission) is expected
    assert allows(actor, permission, [THEIRS]) is expected
    assert groups_allowing(actor, permission) == (None if expected else frozenset())


@pytest.mark.parametrize(("role", "permission"), list(itertools.product(Role, Permission)))
def test_a_role_in_a_group_holds_for_the_servers_of_that_group_alone(role, permission):
    actor = Actor(ActorKind.USER, "1", "ada", None, {OURS: role})
    expected = permission in PER_GROUP and permission in ROLE_PERMISSIONS[role]

    assert allows(actor, permission, [OURS, THEIRS]) is (expected or permission in OWN)
    assert allows(actor, permission, [THEIRS]) is (permission in OWN)
    assert allows(actor, permission) is (permission in OWN)
    assert groups_allowing(actor, permission) == (
        None if permission in OWN else frozenset({OURS}) if expected else frozenset()
    )


@pytest.mark.parametrize(("role", "scope", "permission"), list(itertools.product(Role, Scope, Permission)))
def test_a_token_may_what_both_its_scope_and_its_user_may(role, scope, permission):
    actor = Actor(ActorKind.TOKEN, "1", "ada", role, scopes=frozenset({scope}), token_id="2")

    assert allows(actor, permission) is (
        permission in ROLE_PERMISSIONS[role] and permission in SCOPE_PERMISSIONS[scope]
    )


@pytest.mark.parametrize("permission", [Permission.TOKEN_OWN, Permission.SESSION_OWN])
def test_no_token_makes_tokens_or_ends_sessions(permission):
    actor = Actor(ActorKind.TOKEN, "1", "ada", Role.ADMIN, scopes=frozenset(Scope), token_id="2")

    assert not allows(actor, permission)


def test_nobody_who_is_not_logged_in_may_anything():
    assert not any(allows(ANONYMOUS, permission, [OURS]) for permission in Permission)


def test_an_auditor_changes_nothing():
    for permission in ROLE_PERMISSIONS[Role.AUDITOR] - {Permission.TOKEN_OWN, Permission.SESSION_OWN}:
        assert permission.value.endswith((":read", ":export"))

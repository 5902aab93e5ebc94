"""Which variables may hold a secret, and that the policy does not take what they hold for nothing."""

import pytest

from server_monitor.errors import Invalid
from server_monitor.tasks.judge import Judge
from server_monitor.tasks.policy.decide import RuleSet
from server_monitor.tasks.policy.effects import STEERING
from server_monitor.tasks.policy.verdict import Context, Ruling
from server_monitor.tasks.run import Order
from server_monitor.tasks.secret_names import is_name_of_secret
from server_monitor.tasks.shell_parser import ShellParser
from tests.support.patience import PATIENCE_S

NAMES = (
    "DB_PASSWORD PGPASSWORD AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY SSHPASS DATABASE_URL TOKEN GITHUB_TOKEN API_KEY "
    "PASSWORD_2 PASSWORD2 SECRET_ONE PGUSER USERNAME BORG_PASSPHRASE DB_PASS MY_CREDENTIALS DB_DSN TLS_CERT A_SALT PIN"
)
OTHERS = (
    "PATH PS0 PS4 SHELLOPTS BASHOPTS TAR_OPTIONS GIT_CONFIG_KEY_0 USER SSH_AUTH_SOCK SUDO_ASKPASS BORG_PASSCOMMAND "
    "RESTIC_PASSWORD_COMMAND PIP_INDEX_URL IFS TZ CDPATH GLOBIGNORE FIGNORE POSIXLY_CORRECT TMPDIR PROMPT_COMMAND "
    "_TOKEN sm_token a db_password MONKEY LESSKEY BASH_TOKEN ANSIBLE_VAULT_PASSWORD_FILE SSL_CERT_FILE LD_SECRET PWD "
    "MAKEFLAGS SECRET_CMD PASS_OPTS AB SERVER_MONITOR_TOKEN"
)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(RuleSet(), ShellParser(deadline_s=PATIENCE_S))


@pytest.mark.parametrize("name", NAMES.split())
def test_a_name_that_says_secret_is_taken(name: str) -> None:
    assert Order("uptime", 60, secrets={name: "hunter2"}).checked()


@pytest.mark.parametrize("name", [*OTHERS.split(), *sorted(STEERING), "DB_PASSWORD\n", "DB-PASSWORD", ""])
def test_a_name_that_steers_programs_or_says_nothing_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="is no name for a secret, which has at least 3 capitals"):
        Order("uptime", 60, secrets={name: "hunter2"}).checked()

    assert not is_name_of_secret(name)


@pytest.mark.parametrize("command", ["$A_TOKEN -rf /etc", 'eval "$A_TOKEN"', "bash -c $A_TOKEN", "${A_TOKEN:-ls} /etc"])
def test_a_secret_that_would_run_as_a_command_is_not_allowed(judge: Judge, command: str) -> None:
    assert judge.judge_now(command, Context(secret_names=("A_TOKEN",))).ruling is not Ruling.ALLOW


@pytest.mark.parametrize(
    "command",
    [
        'curl -sH "Authorization: Bearer $A_TOKEN" https://db.example.org/',
        'mysql -p"$A_TOKEN" -e "select 1"',
        "psql -c ''",
    ],
)
def test_a_secret_that_is_only_handed_on_is_allowed(judge: Judge, command: str) -> None:
    assert judge.judge_now(command, Context(secret_names=("A_TOKEN",))).ruling is Ruling.ALLOW

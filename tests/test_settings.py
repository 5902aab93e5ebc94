"""The settings: read once, refused with the variable's name and a remedy, and silent about secrets."""

import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from server_monitor.errors import Invalid
from server_monitor.settings import SECRETS, Settings, secret_problem

GOOD = "k7Qw-2mZx9Tt_vB4nLr8sYd1Ej6Hu0Pa"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (*SECRETS, "ENVIRONMENT", "DATA_DIR", "DATABASE_URL", "API_PORT"):
        monkeypatch.delenv(name, raising=False)


def refused(**overrides: object) -> str:
    with pytest.raises(Invalid) as caught:
        Settings.load(**overrides)
    return str(caught.value)


def test_development_generates_secrets_once_for_the_owner_alone(tmp_path: Path) -> None:
    first = Settings.load(data_dir=tmp_path / "data")
    again = Settings.load(data_dir=tmp_path / "data")

    assert first.jwt_secret == again.jwt_secret
    assert first.jwt_secret != first.encryption_key
    for file in (tmp_path / "data" / "secrets").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_an_existing_data_directory_is_closed_to_others(tmp_path: Path) -> None:
    ours, shared = tmp_path / "ours", tmp_path / "shared"
    ours.mkdir()
    shared.mkdir()
    ours.chmod(0o755)
    shared.chmod(0o1777)

    for directory in (ours, shared):
        Settings.load(data_dir=directory)

    assert stat.S_IMODE(ours.stat().st_mode) == 0o700
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777, "such a directory is shared on purpose"


def test_production_names_every_bad_secret_and_shows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", "short-but-visible")
    monkeypatch.setenv("ENCRYPTION_KEY", "changeme-changeme-changeme-x")

    words = refused(environment="production")

    assert "JWT_SECRET: is shorter than 32 characters" in words
    assert "ENCRYPTION_KEY: looks like a placeholder" in words
    assert "KEY_VAULT_MASTER_KEY: is missing" in words
    assert "openssl rand" in words
    assert "visible" not in words
    assert "changeme" not in words


@pytest.mark.parametrize(
    "value", ["", "x" * 64, "REPLACE_WITH_A_LONG_RANDOM_VALUE_1234", "abababababababababababababababababab"]
)
def test_a_weak_secret_has_a_problem(value: str) -> None:
    assert secret_problem(value, 32)


def test_a_good_secret_has_none() -> None:
    assert secret_problem(GOOD, 32) is None


def test_a_secret_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "jwt").write_text(GOOD + "\n")
    monkeypatch.setenv("JWT_SECRET_FILE", str(tmp_path / "jwt"))

    assert Settings.load(data_dir=tmp_path / "data").jwt_secret.get_secret_value() == GOOD


def test_the_file_of_a_secret_may_be_named_in_dot_env_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "jwt").write_text(GOOD + "\n")
    (tmp_path / ".env").write_text(f"JWT_SECRET_FILE={tmp_path}/jwt\nEncryption_Key_File={tmp_path}/jwt\n")
    monkeypatch.setenv("ENCRYPTION_KEY", "given in the environment")

    settings = Settings.load(data_dir=tmp_path / "data")

    assert settings.jwt_secret.get_secret_value() == GOOD
    assert settings.encryption_key.get_secret_value() == "given in the environment"


def test_a_secret_file_that_cannot_be_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET_FILE", "/nonexistent")

    assert refused() == "JWT_SECRET_FILE: names a file that cannot be read; check its path and mode"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_PORT", "70000"),
        ("API_PORT", "http"),
        ("DATABASE_URL", "mysql://x"),
        ("COLLECT_IDLE_INTERVAL_SECONDS", "0"),
        ("HISTORY_RAW_HOURS", "-1"),
        ("LOG_LEVEL", "LOUD"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
    ],
)
def test_a_value_that_makes_no_sense_stops_the_start(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)

    words = refused()

    assert words.startswith(f"{name}: ")


@pytest.mark.parametrize("value", ["file:relative", "file:./relative", "file:", "file:///", "file://host/dir", "/dir"])
def test_an_archive_that_is_no_place_of_its_own_stops_the_start(value: str) -> None:
    """What a relative name means depends on where the program was started."""
    assert "AUDIT_ARCHIVE_URL" in refused(audit_archive_url=value)


def test_nothing_secret_shows_in_the_settings_themselves(tmp_path: Path) -> None:
    settings = Settings.load(
        data_dir=tmp_path / "data", jwt_secret=SecretStr(GOOD), database_url="postgresql://u:hunter2@localhost/d"
    )

    assert GOOD not in repr(settings)
    assert "hunter2" not in repr(settings)
    assert settings.database.startswith("postgresql://")

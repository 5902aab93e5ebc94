"""Every option of the console, in one frozen object. Nobody else reads the environment.

An option is an environment variable, or a line of `.env`; secrets may also be given as `NAME_FILE`, the path of a file
that holds the value. `.env.example` lists them all and is checked against this file.
"""

import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, NoDecode, SettingsConfigDict

from server_monitor.errors import FieldError, Invalid

PLACEHOLDERS = (
    "changeme",
    "change_me",
    "change-me",
    "replace",
    "placeholder",
    "example",
    "password",
    "secret",
    "todo",
)

# Name -> fewest characters in production.
SECRETS = {"JWT_SECRET": 32, "ENCRYPTION_KEY": 24, "KEY_VAULT_MASTER_KEY": 32}

PATTERNS = ("TASK_DENY_PATTERNS", "TASK_ALLOW_PATTERNS")

ARCHIVES = frozenset({"file", "s3", "gs", "az"})
SHORT_RETENTION_DAYS = 7

CommaSeparated = Annotated[tuple[str, ...], NoDecode]


class Environment(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


class Settings(BaseSettings):
    """What the operator chose. Build it with `load`, which also settles the secrets."""

    model_config = SettingsConfigDict(
        env_file=".env", frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    environment: Environment = Field(
        Environment.DEVELOPMENT, description="`production` makes secret validation mandatory."
    )
    data_dir: Path = Field(
        Path("data"), description="Directory for the database, the history and generated secrets; mode 0700."
    )
    database_url: str = Field(
        "", description="`postgresql://user:password@host/name`; empty: SQLite in DATA_DIR.", repr=False
    )
    api_host: str = Field("127.0.0.1", description="Address to listen on.")
    api_port: int = Field(9083, ge=0, le=65535, description="Port of the console; 0 takes a free one.")
    allow_plain_http: bool = Field(
        False,
        description="Listen beyond loopback without TLS in front. Passwords then cross the network in the clear.",
    )
    allowed_hosts: CommaSeparated = Field(
        (),
        description="Names under which browsers may reach the console, comma-separated; loopback names always may.",
    )
    trusted_proxies: CommaSeparated = Field(
        (),
        description="Addresses or networks of reverse proxies whose X-Forwarded-* is believed, comma-separated.",
    )

    jwt_secret: SecretStr = Field(
        SecretStr(""),
        description="Signs cursors, CSRF tokens and tickets. At least 32 characters in production.",
    )
    encryption_key: SecretStr = Field(
        SecretStr(""), description="Encrypts settings and recordings. At least 24 characters in production."
    )
    encryption_previous_key: SecretStr = Field(
        SecretStr(""),
        description="Earlier ENCRYPTION_KEYs, comma-separated: recordings that were made under them still open.",
    )
    key_vault_master_key: SecretStr = Field(
        SecretStr(""), description="Wraps SSH credentials. At least 32 characters in production."
    )
    key_vault_previous_key: SecretStr = Field(
        SecretStr(""), description="The last KEY_VAULT_MASTER_KEY, while credentials are being rewrapped."
    )

    log_format: Literal["", "json", "console"] = Field(
        "", description="`json` or `console`; empty: json when stderr is not a terminal."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe line logged.")
    shutdown_timeout_seconds: float = Field(10, gt=0, le=600, description="The drain deadline.")

    connect_timeout_seconds: float = Field(10, gt=0, le=120, description="From TCP to an open SSH connection.")
    connect_concurrency: int = Field(50, ge=1, le=1000, description="SSH connections being opened at once.")
    ssh_auth_sock: str = Field(
        "", description="Socket of the SSH agent that servers with `agent` log in by; ssh-agent sets it by itself."
    )
    collect_idle_interval_seconds: int = Field(
        10, ge=1, le=3600, description="Time between samples of a server that nobody looks at."
    )

    history_raw_hours: int = Field(48, ge=1, le=24 * 365, description="How long samples are kept as collected.")
    history_minute_days: int = Field(30, ge=1, le=3650, description="How long one-minute values are kept.")
    history_hour_days: int = Field(730, ge=1, le=36500, description="How long one-hour values are kept.")

    disk_reserve_mib: int = Field(
        64,
        ge=0,
        le=4096,
        description="MiB of DATA_DIR kept for the audit log and given up when the disk is full; 0: none.",
    )

    audit_retention_days: int = Field(
        90, ge=0, le=36500, description="Audit records older than this leave the database once archived; 0: never."
    )
    audit_cleanup_enabled: bool = Field(
        True, description="Archive the audit log by itself, and delete from the database what is archived and old."
    )
    audit_cleanup_interval_hours: int = Field(
        24, ge=1, le=8760, description="Time between two such runs; one more is made at the start."
    )
    audit_archive_url: str = Field(
        "", description="`file:///dir`, `s3://bucket/prefix`, `gs://…` or `az://…`; empty: DATA_DIR/archive."
    )
    audit_archive_lock_days: int = Field(
        0,
        ge=0,
        le=36500,
        description="Archive only into an S3 bucket that locks in compliance mode for so long; 0 demands no lock.",
    )
    audit_anchor_file: str = Field(
        "", description="Append each signed checkpoint to this file, best on another volume, and check it at the start."
    )
    audit_anchor_required: bool = Field(
        False, description="Stop the start unless checkpoints leave to AUDIT_ANCHOR_FILE or AUDIT_ARCHIVE_URL."
    )

    task_heartbeat_seconds: float = Field(
        5, ge=0.5, le=60, description="A console says this often that it lives; after three times its tasks are lost."
    )
    task_stale_threshold_minutes: int = Field(
        60, ge=1, le=10_080, description="How long to look for a command whose host has not been reachable since."
    )
    tasks_default_timeout: int = Field(60, ge=1, le=86_400, description="Seconds a command may run unless it says.")
    tasks_output_max_bytes: int = Field(
        65_536, ge=1_024, le=1_048_576, description="Kept of each stream in the database; all of it is in a file."
    )
    tasks_output_disk_max_bytes: int = Field(
        1_073_741_824,
        ge=2_097_152,
        le=1_099_511_627_776,
        description="Largest file of one stream; of what is beyond only the end is kept.",
    )
    tasks_store_output_default: bool = Field(True, description="Keep what commands print, unless a run says otherwise.")
    tasks_concurrent_per_server: int = Field(1, ge=1, le=100, description="Commands at once on one server.")
    tasks_concurrent: int = Field(1_000, ge=1, le=10_000, description="Commands at once on all servers together.")
    tasks_on_shutdown: Literal["reattach", "interrupt"] = Field(
        "reattach", description="When the console stops: leave commands running for the next start, or end them."
    )
    tasks_retention_days: int = Field(90, ge=1, le=36_500, description="Runs and their output are kept this long.")

    terminal_idle_timeout_seconds: int = Field(
        1_800, ge=0, le=86_400, description="A terminal in which nobody types is closed after this time; 0: never."
    )
    terminal_max_seconds: int = Field(
        43_200, ge=0, le=604_800, description="Longest time of one terminal session; 0: no limit."
    )
    terminal_sessions_per_user: int = Field(10, ge=1, le=1_000, description="Terminals that one person may have open.")
    terminal_reason_required: bool = Field(
        False, description="Ask for a reason or a ticket number before a terminal opens."
    )
    recording_retention_days: int = Field(
        365, ge=0, le=36_500, description="Recordings older than this leave DATA_DIR once archived; 0: never."
    )
    file_transfer_max_bytes: int = Field(
        1_073_741_824,
        ge=1_024,
        le=1_099_511_627_776,
        description="Largest file to upload to or download from a server.",
    )

    task_policy_mode: Literal["denylist", "allowlist"] = Field(
        "denylist",
        description="`denylist` runs what no rule stops; `allowlist` runs only what TASK_ALLOW_PATTERNS allow.",
    )
    task_deny_patterns: CommaSeparated = Field(
        (), description="Regular expressions (RE2) of commands that are denied, besides the built-in rules."
    )
    task_allow_patterns: CommaSeparated = Field(
        (), description="Regular expressions (RE2) that a whole command must match in allowlist mode."
    )
    task_allow_write_paths: CommaSeparated = Field(
        (), description="Files and directories that commands may write to in allowlist mode, comma-separated."
    )
    task_allow_overrides_deny: bool = Field(
        False, description="In allowlist mode, let what TASK_ALLOW_PATTERNS allow pass the built-in rules."
    )
    task_approve_above_hosts: int = Field(
        0, ge=0, le=100_000, description="A command on more hosts than this needs approval; 0: however many there are."
    )

    @field_validator("task_deny_patterns", "task_allow_patterns", mode="before")
    @classmethod
    def _split_patterns(cls, value: Any) -> Any:
        return tuple(split_patterns(value)) if isinstance(value, str) else value

    @field_validator("allowed_hosts", "trusted_proxies", "task_allow_write_paths", mode="before")
    @classmethod
    def _split_commas(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for part in value:
            ip_network(part, strict=False)
        return value

    @field_validator("database_url")
    @classmethod
    def _is_a_known_database(cls, value: str) -> str:
        if value and not value.startswith(("sqlite:///", "postgresql://")):
            raise ValueError("must start with postgresql:// or sqlite:///")
        return value

    @field_validator("audit_archive_url")
    @classmethod
    def _is_a_known_archive(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and parts.scheme not in ARCHIVES:
            raise ValueError("must start with file:///, s3://, gs:// or az://")
        if value and (parts.username or parts.password or parts.query or parts.fragment):
            raise ValueError("must not hold credentials or options; give them in the variables of the store")
        if parts.scheme == "file" and (parts.netloc or not parts.path.startswith("/") or not parts.path.strip("/")):
            raise ValueError("must name an absolute directory, as in file:///srv/audit")
        if value and parts.scheme != "file" and not parts.netloc:
            raise ValueError("must name a bucket, as in s3://bucket/prefix")
        return value

    @model_validator(mode="after")
    def _anchors_when_required(self) -> Self:
        if self.audit_anchor_required and not (self.audit_anchor_file or self.audit_archive_url):
            raise ValueError("AUDIT_ANCHOR_REQUIRED is set: set AUDIT_ANCHOR_FILE or AUDIT_ARCHIVE_URL too")
        return self

    @model_validator(mode="after")
    def _locks_where_it_can(self) -> Self:
        if self.audit_archive_lock_days and not self.audit_archive_url.startswith("s3:"):
            raise ValueError("AUDIT_ARCHIVE_LOCK_DAYS is set: set AUDIT_ARCHIVE_URL to a bucket, as s3://bucket/prefix")
        return self

    @property
    def audit_archive(self) -> str:
        """Where the archive is: AUDIT_ARCHIVE_URL, or a directory of its own in DATA_DIR."""
        return self.audit_archive_url or (self.data_dir.absolute() / "archive").as_uri()

    @property
    def database(self) -> str:
        """The database to open: DATABASE_URL, or the SQLite file in DATA_DIR."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'server-monitor.sqlite3'}"

    @property
    def proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(ip_network(part, strict=False) for part in self.trusted_proxies)

    @property
    def is_production(self) -> bool:
        return self.environment is Environment.PRODUCTION

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the environment; `overrides` (from the command line) win.

        In development, missing secrets are generated once and kept in DATA_DIR/secrets, mode 0600.
        Raises Invalid naming every bad variable and its remedy, never its value.
        """
        settings = cls.look(**overrides)
        if settings.is_production:
            _refuse_weak_secrets(settings)
            return settings
        return settings.model_copy(update=_development_secrets(settings))

    @classmethod
    def look(cls, **overrides: Any) -> Self:
        """What `load` reads, with nothing made and no secret missed: for who only wants to know where things are.

        Raises Invalid.
        """
        given = {name: value for name, value in overrides.items() if value is not None}
        try:
            return cls(**{**_from_files(), **given})
        except ValidationError as error:
            raise Invalid([_plain(problem) for problem in error.errors(include_input=False)]) from None

    def weak_secrets(self) -> list[FieldError]:
        """What production would refuse about the secrets."""
        return [
            FieldError(name, problem)
            for name, fewest in SECRETS.items()
            if (problem := secret_problem(getattr(self, name.lower()).get_secret_value(), fewest))
        ]


def split_patterns(text: str) -> list[str]:
    """The patterns of a comma-separated list. Brackets and backslashes guard commas; `\\,` is a comma."""
    found: list[str] = []
    current: list[str] = []
    depth = 0
    in_class = False
    position = 0
    while position < len(text):
        character = text[position]
        if character == "\\" and position + 1 < len(text):
            following = text[position + 1]
            current.append("," if following == "," else character + following)
            position += 2
            continue
        if in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
        elif character in "({":
            depth += 1
        elif character in ")}":
            depth = max(0, depth - 1)
        elif character == "," and depth == 0:
            found.append("".join(current))
            current = []
            position += 1
            continue
        current.append(character)
        position += 1
    found.append("".join(current))
    return [pattern.strip() for pattern in found if pattern.strip()]


def secret_problem(value: str, fewest_characters: int) -> str | None:
    """Why this secret is not good enough, with the remedy; None when it is. Never repeats the secret."""
    remedy = "generate one with: openssl rand -base64 48"
    if not value:
        return f"is missing; {remedy}"
    if len(value) < fewest_characters:
        return f"is shorter than {fewest_characters} characters; {remedy}"
    folded = value.casefold()
    if any(word in folded for word in PLACEHOLDERS):
        return f"looks like a placeholder; {remedy}"
    if len(set(value)) < 8:
        return f"repeats too few different characters; {remedy}"
    return None


def _refuse_weak_secrets(settings: Settings) -> None:
    if problems := settings.weak_secrets():
        raise Invalid(problems)


def _from_files() -> dict[str, Any]:
    """What `NAME_FILE` variables point to: secrets whole, patterns one a line."""
    found: dict[str, Any] = {}
    sources = EnvSettingsSource(Settings).env_vars, DotEnvSettingsSource(Settings).env_vars
    for name in (*SECRETS, "ENCRYPTION_PREVIOUS_KEY", "KEY_VAULT_PREVIOUS_KEY", "DATABASE_URL", *PATTERNS):
        path = _path_of(name.lower(), sources)
        if path is None:
            continue
        try:
            text = Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError):
            raise Invalid.one(f"{name}_FILE", "names a file that cannot be read; check its path and mode") from None
        found[name.lower()] = _pattern_lines(text) if name in PATTERNS else text
    return found


def _pattern_lines(text: str) -> tuple[str, ...]:
    """Patterns, one a line; empty lines and those that begin with # are not patterns."""
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def _path_of(name: str, sources: Sequence[Mapping[str, str | None]]) -> str | None:
    """The file that holds this value, when a source names one before any gives the value itself."""
    for variables in sources:
        if path := variables.get(f"{name}_file"):
            return path
        if variables.get(name):
            return None
    return None


def _development_secrets(settings: Settings) -> dict[str, SecretStr]:
    return {
        name.lower(): SecretStr(_kept_secret(settings.data_dir / "secrets" / name.lower()))
        for name in SECRETS
        if not getattr(settings, name.lower()).get_secret_value()
    }


def _kept_secret(path: Path) -> str:
    """The secret in this file; a new one is written when there is none yet."""
    try:
        make_private_directory(path.parent.parent)
        make_private_directory(path.parent)
        write_new_private_file(path, secrets.token_urlsafe(48))
        return path.read_text().strip()
    except OSError as error:
        raise Invalid.one("DATA_DIR", f"cannot hold generated secrets: {error.strerror}") from None


def make_private_directory(path: Path) -> None:
    """Make the directory readable by its owner alone, also when it is there already and ours."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.stat()
    # A sticky one, such as /tmp, is shared by everybody on purpose.
    is_ours = found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX
    if is_ours and found.st_mode & 0o077:
        path.chmod(0o700)


def write_new_private_file(path: Path, text: str) -> None:
    """Write the file whole under mode 0600, unless it exists: a rename of a link never leaves half of it."""
    if path.exists():
        return
    half = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(half, path)
    except FileExistsError:
        pass  # Another process was first; its secret is the one.
    finally:
        half.unlink()


def _plain(problem: Any) -> FieldError:
    name = ".".join(str(part) for part in problem["loc"]).upper() or "settings"
    return FieldError(name, str(problem["msg"]).removeprefix("Value error, "))

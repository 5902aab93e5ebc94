"""Where recordings are kept, for the console and for commands beside it."""

from server_monitor.audit.archive import Archive
from server_monitor.db.engine import Database
from server_monitor.settings import Settings
from server_monitor.terminal.keeping import Keeping
from server_monitor.terminal.keys import Keyring
from server_monitor.terminal.library import Library


def library_of(settings: Settings, db: Database) -> Library:
    keyring = Keyring(settings.encryption_key, settings.encryption_previous_key)
    return Library(db, settings.data_dir / "recordings", keyring)


def keeping_of(settings: Settings, db: Database, library: Library) -> Keeping:
    """What looks after them; the archive is that of the audit log."""
    return Keeping(db, library, Archive(settings.audit_archive), settings.recording_retention_days)

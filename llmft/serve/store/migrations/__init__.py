"""The tables' history, one file a step; run when the desk starts.

A new step is a new file in ``versions`` that names the one before it; ``NEWEST`` below then names the new one. A test
holds that all steps together give exactly the tables of ``tables.py``, in both databases.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from llmft.errors import StoreError

NEWEST = "0001"
_LOCK = 0x6C6C6D6674  # the letters of llmft: one process migrates, the others wait


def migrate(connection: Connection) -> None:
    """Bring the tables up to date; raises :class:`StoreError` when a newer llmft has been there."""
    with connection.begin():  # in SQLite this waits for the file's other writers
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        found = _version(connection)
        if found == NEWEST:
            return
        if found is not None and found > NEWEST:
            raise StoreError(f"the database is of version {found} and this llmft knows {NEWEST}; start it with the newer llmft")
        _upgrade(connection)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return version


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")

"""The desk's database: SQLite in a folder, or PostgreSQL by URL; transactions in which all is written or nothing.

One change is one transaction, and it is on the disk before the caller hears of it: SQLite runs with a write-ahead log and
``synchronous=FULL``, PostgreSQL with what its administrator set (``synchronous_commit`` is on unless switched off).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from llmft.errors import ConflictError, DiskError, MissingExtraError, StoreDownError, StoreError
from llmft.run import make_folder
from llmft.serve.store.anchor import HEAD, Head, keep_anchor
from llmft.serve.store.migrations import migrate
from llmft.vault import default_vault

DATABASE = "desk.db"
BUSY_S = 20  # how long a writer waits for the others
WAIT_S = 5.0  # how long a request waits for a database that is away
_READ_ONLY = "llmft_read_only"


@dataclass(frozen=True)
class Store:
    """An open database and the desk's folder beside it; share one among the threads of a process."""

    engine: Engine
    folder: Path  # holds the journal's anchor, and the database itself where it is SQLite
    turn: threading.Lock = field(default_factory=threading.Lock)  # SQLite's writers of this process, one after another

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a file in the folder."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the data and changes nothing."""
        options: dict[str, Any] = {_READ_ONLY: True} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        with _in_words(), self._connected() as connection, connection.execution_options(**options).begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is on the disk when the block has ended, or undone as a whole."""
        with _in_words(), self._one_writer(), self._connected() as connection:
            connection.info.pop(HEAD, None)
            with connection.begin():
                yield connection
            head: Head | None = connection.info.pop(HEAD, None)
            if head is not None:
                keep_anchor(self.folder, head)

    def first(self, question: str, **values: str) -> Sequence[Any] | None:
        """The first row of a question that every request asks, with ``:name`` for its values; None when there is none.

        SQLite is asked by itself: SQLAlchemy's connection, transaction and row cost ten times what the row does.
        """
        with _in_words(), self._connected() as connection:
            if not self.is_sqlite:
                return connection.execute(text(question), values).first()
            driver: Any = connection.connection.driver_connection
            row: tuple[Any, ...] | None = driver.execute(question, values).fetchone()
            return row

    def tidy(self) -> None:
        """Leave nothing of what was deleted in SQLite's log; PostgreSQL's own vacuum does so in its time."""
        if self.is_sqlite:
            with _in_words(), self.turn, self._connected() as connection:
                connection.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def ping(self) -> None:
        """Raise :class:`StoreDownError` unless the database answers now."""
        with self.reading() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        """Let the database go."""
        self.engine.dispose()

    @contextmanager
    def _one_writer(self) -> Iterator[None]:
        if not self.is_sqlite:
            yield
            return
        with self.turn:  # SQLite lets waiting writers sleep and guess; a lock lets them go in order
            yield

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """A connection that answers; a database that is away is waited for, as nothing has been done yet."""
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                connection = self.engine.connect()
                break
            except (DBAPIError, sqlite3.Error) as error:
                if _is_damaged(error):
                    raise
                if time.monotonic() > deadline:
                    raise StoreDownError(_down(self.engine)) from error
                time.sleep(0.2)
        with connection:
            yield connection


def default_folder() -> Path:
    """Where the desk keeps its data unless told otherwise: ``$LLMFT_DESK``, or ``desk`` in the vault."""
    return Path(os.environ.get("LLMFT_DESK") or default_vault() / "desk")


def open_store(url: str | None = None, folder: Path | None = None) -> Store:
    """Open the database and bring its tables up to date.

    ``url`` is ``postgresql://…`` or ``sqlite:///…``; without one it is ``$LLMFT_DATABASE``, or else SQLite in ``folder``, which
    only its owner can enter. Raises :class:`StoreError` for an address that cannot be used, :class:`StoreDownError` for a
    database that does not answer.
    """
    folder = folder or default_folder()
    make_folder(folder, 0o700)
    url = url or os.environ.get("LLMFT_DATABASE") or f"sqlite:///{folder.absolute() / DATABASE}"
    store = Store(_engine(url), folder)
    with _in_words(), store._connected() as connection:
        migrate(connection)
    return store


def now() -> str:
    """The time as it is stored."""
    return as_text(datetime.now(UTC))


def as_text(moment: datetime) -> str:
    """A moment as it is stored; one without a zone is in this machine's."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def ago(days: float) -> str:
    """The time so many days ago, as it is stored."""
    return as_text(datetime.now(UTC) - timedelta(days=days))


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgres", "postgresql"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise StoreError(
                f"{parsed.drivername} is no database of the desk; give a URL that begins with postgresql:// or sqlite:///"
            )
        if parsed.get_backend_name() == "sqlite":
            return _sqlite(parsed)
        options = {"connect_timeout": int(WAIT_S), "tcp_user_timeout": BUSY_S * 1000}  # a cut cable is noticed
        return create_engine(
            parsed, pool_pre_ping=True, pool_size=20, max_overflow=20, connect_args=options, hide_parameters=True
        )
    except (ArgumentError, NoSuchModuleError) as error:
        raise StoreError("the database's URL cannot be read; write it as postgresql://user@host/name") from error
    except ModuleNotFoundError as error:
        raise MissingExtraError("psycopg", "postgresql") from error


def _sqlite(url: Any) -> Engine:
    engine = create_engine(url, connect_args={"timeout": BUSY_S}, pool_size=20, max_overflow=20, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _set_up(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the driver's own BEGIN comes too late to lock
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get(_READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


@contextmanager
def _in_words() -> Iterator[None]:
    """Failures of the database as sentences; its own messages may quote what was to be stored."""
    try:
        yield
    except PoolTimeoutError as error:
        raise StoreDownError("the database has too many requests waiting; try again in a moment") from error
    except (DataError, UnicodeEncodeError) as error:  # too long, a NUL character, half a surrogate pair
        raise StoreError("a text is too long for its field, or holds characters that no text has; shorten or clean it") from error
    except IntegrityError as error:
        raise ConflictError("somebody stored the same a moment ago, or what it belongs to is gone; ask for it again") from error
    except (DBAPIError, sqlite3.Error) as error:
        if _is_damaged(error):
            raise StoreError("the desk's database is damaged or no database; put a copy of it back, or name another") from error
        if _is_full(error):
            raise DiskError("the disk that holds the desk's database is full; free space there, then try again") from error
        if _is_away(error):
            raise StoreDownError("the database went away; nothing is half done: try again in a moment") from error
        raise


def _is_damaged(error: Exception) -> bool:
    return any(sign in _told(error) for sign in ("malformed", "not a database"))


def _is_full(error: Exception) -> bool:
    return any(sign in _told(error) for sign in ("disk is full", "No space left"))


def _is_away(error: Exception) -> bool:
    """Whether the database cannot be reached or is busy, and not the question at fault."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    kind = type(getattr(error, "orig", error)).__name__
    if kind in ("AdminShutdown", "CannotConnectNow", "CrashShutdown", "DeadlockDetected", "IdleInTransactionSessionTimeout"):
        return True
    return kind == "OperationalError" and not any(sign in _told(error) for sign in ("no such", "syntax"))


def _told(error: Exception) -> str:
    """The driver's own words, never the question's values."""
    return str(getattr(error, "orig", error))


def _down(engine: Engine) -> str:
    place = engine.url.render_as_string(hide_password=True)
    return f"{place} does not answer; start the database, or name another with --database URL"

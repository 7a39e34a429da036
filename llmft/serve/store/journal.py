"""The journal: what was done, by which versions, in a chain of hashes to which records are only ever added.

A record's hash is SHA-256 over the hash before it, its number, its time, its kind and its body as canonical JSON, so a record
that is changed, taken out or moved no longer fits. Bodies hold ids, versions and keyed hashes, never words. Writers in any
number of processes are kept apart by the row of the head: lock it, add, move it, in the transaction of the thing recorded.
Every such transaction takes that lock first, so that two of them never wait for each other.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, select, update

from llmft.run import atomic_path
from llmft.serve.store.anchor import HEAD, Head
from llmft.serve.store.database import Store, now
from llmft.serve.store.tables import journal, journal_head

PIECE = 1000  # records that are read at once


class Record(NamedTuple):
    """One link of the chain."""

    sequence: int
    created: str
    kind: str
    body: str  # canonical JSON
    previous: str
    hash: str

    @property
    def facts(self) -> dict[str, Any]:
        """The body's values."""
        value: dict[str, Any] = json.loads(self.body)
        return value


def lock(connection: Connection) -> Head:
    """Keep other writers of the journal out until this transaction ends; returns the last record."""
    row = connection.execute(select(journal_head.c.sequence, journal_head.c.hash).with_for_update()).one()
    return Head(row.sequence, row.hash)


def append(connection: Connection, kind: str, body: Mapping[str, Any]) -> Head:
    """Add a record inside ``store.writing()``; a transaction that changes other rows before calls :func:`lock` first."""
    before, created, text = lock(connection), now(), canonical(body)
    number = before.sequence + 1
    head = Head(number, link_hash(number, created, kind, text, before.hash))
    row = Record(number, created, kind, text, before.hash, head.hash)
    connection.execute(insert(journal).values(row._asdict()))
    connection.execute(update(journal_head).values(head._asdict()))
    connection.info[HEAD] = head
    return head


def record(store: Store, kind: str, body: Mapping[str, Any]) -> Head:
    """Add a record that stands for itself."""
    with store.writing() as connection:
        return append(connection, kind, body)


def read_records(connection: Connection, after: int = 0) -> Iterator[Record]:
    """The chain in order, in pieces, so that memory stays flat."""
    while True:
        rows = connection.execute(
            select(journal).where(journal.c.sequence > after).order_by(journal.c.sequence).limit(PIECE)
        ).all()
        yield from (Record(*row) for row in rows)
        if len(rows) < PIECE:
            return
        after = rows[-1].sequence


def recent_records(store: Store, kind: str, limit: int = 50) -> list[Record]:
    """The latest records of one kind, the newest first."""
    asked = select(journal).where(journal.c.kind == kind).order_by(journal.c.sequence.desc()).limit(limit)
    with store.reading() as connection:
        return [Record(*row) for row in connection.execute(asked)]


def export(store: Store, path: Path) -> int:
    """Write the chain as JSONL, a whole file, so that anybody can check it; returns the number of records."""
    count = 0
    with store.reading() as connection, atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        for link in read_records(connection):
            file.write(json.dumps({**link._asdict(), "body": link.facts}, ensure_ascii=False) + "\n")
            count += 1
    return count


def canonical(value: Any) -> str:
    """JSON with one spelling: keys in order, no spaces, no NaN."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def link_hash(sequence: int, created: str, kind: str, body: str, previous: str) -> str:
    """What a record's hash must be: SHA-256 over the canonical JSON of the list of the five."""
    return hashlib.sha256(canonical([previous, sequence, created, kind, body]).encode()).hexdigest()


def seal(salt: bytes, text: str) -> str:
    """A hash that says nothing without the salt of its row: HMAC-SHA256."""
    return hmac.digest(salt, text.encode(), "sha256").hex()

"""How long contents and records are kept, and how a person is erased, with a chain that still verifies.

Contents (turns, answers, judgements) lie beside the chain, so they can go while it stays; their salts go with them, and then the
hashes in the chain tell nobody anything. The chain itself is only ever shortened at its beginning, and a record in it says where.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select

from llmft.errors import NotStoredError, StoreError
from llmft.serve.store.anchor import Head
from llmft.serve.store.database import Store, ago, now
from llmft.serve.store.journal import append, lock
from llmft.serve.store.tables import answers, bookings, calls, feedback, journal, sessions, turns
from llmft.vault import default_vault, open_vault, subject_key

LEAST_LOG_DAYS = 183  # six months: AI Act, article 26(6)


@dataclass(frozen=True)
class Removed:
    """What went."""

    calls: tuple[str, ...]  # ids
    answers: int
    feedback: int
    records: int = 0  # of the chain, at its beginning


def retain(store: Store, content_days: float, log_days: float | None = None) -> Removed:
    """Remove calls untouched for ``content_days`` with all that was said and answered in them, and old bare answers.

    With ``log_days`` the chain's records older than that go too; raises :class:`StoreError` for fewer than six months of them.
    """
    if content_days < 0:
        raise StoreError(f"{content_days:g} days cannot be kept; give 0 or more")
    if log_days is not None and log_days < max(LEAST_LOG_DAYS, content_days):
        raise StoreError(
            f"{log_days:g} days of records are too few; keep {LEAST_LOG_DAYS} (six months) or more, and no fewer than of contents"
        )
    with store.writing() as connection:
        before = lock(connection)
        old = list(connection.execute(select(calls.c.id).where(calls.c.updated < ago(content_days))).scalars())
        answered, judged = _remove(connection, old)
        bare = (answers.c.call_id.is_(None)) & (answers.c.created < ago(content_days))
        answered += connection.execute(delete(answers).where(bare)).rowcount
        connection.execute(delete(sessions).where(sessions.c.expires <= now()))
        cut, records = _shorten(connection, before, log_days)
        body = {"content_days": content_days, "log_days": log_days, "calls": len(old), "answers": answered, "feedback": judged}
        append(connection, "retained", body | ({"cut": cut, "records": records} if cut else {}))
    store.tidy()
    return Removed(tuple(sorted(old)), answered, judged, records)


def erase(store: Store, *, subject: str | None = None, call_id: str | None = None) -> Removed:
    """Remove a person's calls, or one call, for good; what the chain says of them becomes hashes without a key.

    Raises :class:`NotStoredError` when there is nothing to erase. Backups of the database, and sets that were made from exported
    feedback, are elsewhere: the ids that are returned name the calls there.
    """
    if (subject is None) == (call_id is None):
        raise StoreError("give either a subject or a call's id")
    wanted = (
        calls.c.id == call_id if subject is None else calls.c.subject_key == subject_key(subject, open_vault(default_vault()))
    )
    with store.writing() as connection:
        lock(connection)
        found = list(connection.execute(select(calls.c.id).where(wanted)).scalars())
        if not found:
            raise NotStoredError("no call of that subject or id is stored; it was erased already, or was begun without a subject")
        answered, judged = _remove(connection, found)
        append(connection, "erased", {"calls": sorted(found), "answers": answered, "feedback": judged})
    store.tidy()
    return Removed(tuple(sorted(found)), answered, judged)


def _remove(connection: Connection, ids: list[str]) -> tuple[int, int]:
    """Take the calls out in pieces; their bookings stay, as nobody's."""
    answered = judged = 0
    for start in range(0, len(ids), 500):  # SQLite takes so many values in one question
        piece = ids[start : start + 500]
        theirs = select(answers.c.id).where(answers.c.call_id.in_(piece))
        judged += connection.execute(delete(feedback).where(feedback.c.answer_id.in_(theirs))).rowcount
        answered += connection.execute(delete(answers).where(answers.c.call_id.in_(piece))).rowcount
        connection.execute(delete(turns).where(turns.c.call_id.in_(piece)))
        connection.execute(bookings.update().where(bookings.c.call_id.in_(piece)).values(call_id=None))
        connection.execute(delete(calls).where(calls.c.id.in_(piece)))
    return answered, judged


def _shorten(connection: Connection, head: Head, log_days: float | None) -> tuple[Head | None, int]:
    """Cut the chain's beginning; the last record stays whatever its age, as the next one follows it."""
    if log_days is None:
        return None, 0
    newest = select(func.max(journal.c.sequence)).where(journal.c.created < ago(log_days), journal.c.sequence < head.sequence)
    last = connection.execute(newest).scalar()
    if last is None:
        return None, 0
    row = connection.execute(select(journal.c.sequence, journal.c.hash).where(journal.c.sequence == last)).one()
    records = connection.execute(delete(journal).where(journal.c.sequence <= last)).rowcount
    return Head(*row), records

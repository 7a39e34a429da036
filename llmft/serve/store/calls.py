"""Calls in progress, as they are stored: turns without personal data, so that a reload in mid-call loses nothing."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, update

from llmft.errors import ConflictError, NotStoredError
from llmft.serve.store.database import Store, now
from llmft.serve.store.tables import calls, turns
from llmft.vault import default_vault, open_vault, subject_key

Lang = Literal["fr", "en"]
Speaker = Literal["patient", "operator"]
Status = Literal["open", "done", "escalated", "abandoned"]


class CallTurn(NamedTuple):
    """One thing said, as it is stored."""

    number: int  # from 0
    speaker: str
    text: str  # without personal data
    created: str


@dataclass(frozen=True)
class Call:
    """A call and what was said in it."""

    id: str
    lang: Lang
    status: str
    operator: str
    created: str
    updated: str
    turns: tuple[CallTurn, ...] = ()


def new_id(kind: str) -> str:
    """An id that says nothing and that nobody can guess."""
    return f"{kind}-{secrets.token_hex(12)}"


def start_call(store: Store, lang: Lang, by: str, *, subject: str | None = None) -> Call:
    """Open a call of the operator ``by``.

    ``subject`` is the patient's number in another system; only its keyed hash is stored, for erasure. The key lies in the
    vault, which machines that share a database must share, too.
    """
    hashed = subject_key(subject, open_vault(default_vault())) if subject else None
    started = now()
    call = Call(new_id("call"), lang, "open", by, started, started)
    row = {"id": call.id, "lang": lang, "status": "open", "operator": by, "subject_key": hashed}
    with store.writing() as connection:
        connection.execute(insert(calls).values(**row, created=started, updated=started))
    return call


def read_call(store: Store, call_id: str) -> Call:
    """A call with its turns; raises :class:`NotStoredError`."""
    with store.reading() as connection:
        return call_of(connection, call_id)


def recent_calls(store: Store, *, by: str | None = None, status: Status | None = None, limit: int = 50) -> list[Call]:
    """The calls that were last changed, without their turns, the latest first."""
    asked = select(calls).order_by(calls.c.updated.desc(), calls.c.id).limit(limit)
    asked = asked if by is None else asked.where(calls.c.operator == by)
    asked = asked if status is None else asked.where(calls.c.status == status)
    with store.reading() as connection:
        return [_call(row) for row in connection.execute(asked)]


def add_turn(store: Store, call_id: str, speaker: Speaker, text: str, *, key: str) -> CallTurn:
    """Add what was said; with a ``key`` that stands already, the turn that has it is returned and nothing is added.

    ``key`` is the sender's own name for the turn, so that a turn sent again after a lost connection stands once; masked again
    its text may differ by now, so texts are not compared. Raises :class:`ConflictError` when the call has ended, or when the
    key's turn is the other speaker's.
    """
    with store.writing() as connection:
        _lock_open(connection, call_id)
        asked = select(turns).where(turns.c.call_id == call_id, turns.c.key == key)
        if known := connection.execute(asked).first():
            if known.speaker != speaker:
                raise other_turn(key)
            return _turn(known)
        number = connection.execute(select(func.count()).where(turns.c.call_id == call_id)).scalar_one()
        turn = CallTurn(number, speaker, text, now())
        connection.execute(insert(turns).values(call_id=call_id, key=key, **turn._asdict()))
        connection.execute(update(calls).where(calls.c.id == call_id).values(updated=turn.created))
        return turn


def other_turn(key: str) -> ConflictError:
    """What a key that is used twice is refused with."""
    return ConflictError(f"the key {key[:80]!r} stands for another turn of this call; send each turn with a key of its own")


def replace_turns(store: Store, call_id: str, said: Sequence[tuple[Speaker, str]]) -> Call:
    """All turns anew: a pasted transcript, or the call masked once more when a later turn tells a name.

    Turns that stay at their place keep their time and their key. Raises :class:`ConflictError` when the call has ended.
    """
    with store.writing() as connection:
        _lock_open(connection, call_id)
        before = connection.execute(select(turns).where(turns.c.call_id == call_id).order_by(turns.c.number)).all()
        changed = now()
        connection.execute(delete(turns).where(turns.c.call_id == call_id))
        for number, (speaker, text) in enumerate(said):
            known = before[number] if number < len(before) else None
            kept = {"key": known.key, "created": known.created} if known else {"key": new_id("turn"), "created": changed}
            connection.execute(insert(turns).values(call_id=call_id, number=number, speaker=speaker, text=text, **kept))
        connection.execute(update(calls).where(calls.c.id == call_id).values(updated=changed))
        return call_of(connection, call_id)


def end_call(store: Store, call_id: str, status: Status) -> Call:
    """Note how a call has ended; ending it again in the same way changes nothing."""
    with store.writing() as connection:
        call = call_of(connection, call_id)
        if call.status not in ("open", status):
            raise ConflictError(f"the call has ended as {call.status}; start another one")
        if call.status != status:
            connection.execute(update(calls).where(calls.c.id == call_id).values(status=status, updated=now()))
        return call_of(connection, call_id)


def call_of(connection: Connection, call_id: str) -> Call:
    """A call with its turns, inside a transaction."""
    row = connection.execute(select(calls).where(calls.c.id == call_id)).first()
    if row is None:
        raise NotStoredError(f"the call {call_id[:60]!r} is not stored; it was erased, or never begun: start a new one")
    said = connection.execute(select(turns).where(turns.c.call_id == call_id).order_by(turns.c.number))
    return _call(row, tuple(_turn(turn) for turn in said))


def _lock_open(connection: Connection, call_id: str) -> None:
    """Keep other writers from this call, which must not have ended."""
    status = connection.execute(select(calls.c.status).where(calls.c.id == call_id).with_for_update()).scalar()
    if status is None:
        call_of(connection, call_id)
    if status != "open":
        raise ConflictError(f"the call has ended as {status}; start another one")


def _call(row: Any, said: tuple[CallTurn, ...] = ()) -> Call:
    return Call(row.id, row.lang, row.status, row.operator, row.created, row.updated, said)


def _turn(row: Any) -> CallTurn:
    return CallTurn(row.number, row.speaker, row.text, row.created)

"""What the desk answered, with the versions that made it; each answer is journaled in the same transaction."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from sqlalchemy import Connection, insert, select

from llmft.errors import NotStoredError
from llmft.serve.store.calls import call_of, new_id
from llmft.serve.store.database import Store, now
from llmft.serve.store.journal import append, canonical, lock, seal
from llmft.serve.store.tables import answers

Kind = Literal["triage", "suggestion", "chat"]


@dataclass(frozen=True)
class Versions:
    """What made an answer: hashes of the model's file, its adapter, the rules, the roster and the prompt's template."""

    model: str | None = None
    adapter: str | None = None
    rules: str | None = None
    roster: str | None = None
    prompt: str | None = None


@dataclass(frozen=True)
class NewAnswer:
    """An answer as it is stored: without personal data, as what it was made from."""

    kind: Kind
    call_id: str | None = None  # None: of the bare chat interface; then neither text nor triage is stored
    turns_read: int = 0  # of the call, by whoever answered
    text: str = ""  # the model's own words with its block
    triage: dict[str, Any] | None = None  # what was shown: the fields of dialogue.Triage, after the rules
    decided_by: str | None = None  # rules, model, abstained
    rules: tuple[str, ...] = ()  # ids of the red flags that fired
    confidence: float | None = None
    valid: bool | None = None  # whether the model's block kept the contract by itself
    latency_ms: float | None = None
    generation_ms: float | None = None
    versions: Versions = field(default_factory=Versions)


@dataclass(frozen=True)
class Answer:
    """A stored answer."""

    id: str
    created: str
    sequence: int  # of its record in the journal
    given: NewAnswer


def record_answer(store: Store, given: NewAnswer, prompt: str, by: str) -> Answer:
    """Store an answer and journal it; of ``prompt``, all that the model read, only a keyed hash is kept.

    Raises :class:`NotStoredError` when its call was erased meanwhile.
    """
    salt = secrets.token_bytes(32)
    if given.call_id is None:
        given = replace(given, text="", triage=None)
    content = canonical(asdict(given))
    with store.writing() as connection:
        lock(connection)
        if given.call_id is not None:
            call_of(connection, given.call_id)
        answer_id, created = new_id("answer"), now()
        body = {"answer": answer_id, "call": given.call_id, "of": given.kind, "by": by, "versions": asdict(given.versions)}
        body |= {"input": seal(salt, prompt), "content": seal(salt, content), "decided_by": given.decided_by}
        head = append(connection, "answer", body)
        urgency = given.triage["urgency"] if given.triage else None
        row = {"kind": given.kind, "turns_read": given.turns_read, "urgency": urgency, "model": given.versions.model}
        row |= {"content": content, "sequence": head.sequence, "salt": salt, "created": created}
        connection.execute(insert(answers).values(id=answer_id, call_id=given.call_id, **row))
    return Answer(answer_id, created, head.sequence, given)


def read_answer(store: Store, answer_id: str) -> Answer:
    """One answer; raises :class:`NotStoredError`."""
    with store.reading() as connection:
        return answer_row(connection, answer_id)


def answers_of(store: Store, call_id: str) -> list[Answer]:
    """A call's answers, the oldest first."""
    asked = select(answers).where(answers.c.call_id == call_id).order_by(answers.c.sequence)
    with store.reading() as connection:
        return [_answer(row) for row in connection.execute(asked)]


def answers_between(store: Store, since: str, until: str | None = None, kind: Kind | None = None) -> list[Answer]:
    """Answers from ``since`` on and before ``until``, times as they are stored, the oldest first."""
    asked = select(answers).where(answers.c.created >= since).order_by(answers.c.sequence)
    asked = asked if until is None else asked.where(answers.c.created < until)
    asked = asked if kind is None else asked.where(answers.c.kind == kind)
    with store.reading() as connection:
        return [_answer(row) for row in connection.execute(asked)]


def answer_row(connection: Connection, answer_id: str) -> Answer:
    """One answer, inside a transaction."""
    row = connection.execute(select(answers).where(answers.c.id == answer_id)).first()
    if row is None:
        raise NotStoredError(f"the answer {answer_id[:60]!r} is not stored; it was erased, or its id is another")
    return _answer(row)


def _answer(row: Any) -> Answer:
    content = json.loads(row.content)
    content |= {"versions": Versions(**content["versions"]), "rules": tuple(content["rules"])}
    return Answer(row.id, row.created, row.sequence, NewAnswer(**content))

"""What operators thought of an answer: accepted, edited, rejected with a reason, escalated; its words without personal data."""

from __future__ import annotations

import json
import secrets
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from sqlalchemy import Connection, insert, select

from llmft.deidentify.span import Roster
from llmft.deidentify.stage import deidentify, residual
from llmft.dialogue import Record, Triage, Urgency, fault_of
from llmft.errors import ConflictError, StoreError
from llmft.serve.store.answers import answer_row
from llmft.serve.store.calls import call_of, new_id
from llmft.serve.store.database import Store, now
from llmft.serve.store.journal import append, canonical, lock, seal
from llmft.serve.store.tables import feedback

Action = Literal["accepted", "edited", "rejected", "escalated"]
MAX_TEXT = 4000  # characters of free text


class Correction(Record):
    """What the answer should have been; what is None was right."""

    urgency: Urgency | None = None
    specialty: str | None = None
    icd10: tuple[str, ...] | None = None
    red_flags: tuple[str, ...] | None = None
    summary: str | None = Field(default=None, max_length=MAX_TEXT)
    missing_info: tuple[str, ...] | None = None
    escalate: bool | None = None
    reply: str | None = Field(default=None, max_length=MAX_TEXT)  # the sentence for the patient

    @field_validator("reply", "summary")
    @classmethod
    def _is_said(cls, text: str | None) -> str | None:
        if text is not None and ("```" in text or not text.strip()):
            raise ValueError("the text is blank or holds a fence; write plain words")
        return text

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set - {name for name, value in self if value is None}:
            raise ValueError("the correction is empty; give at least one field, or no correction")
        return self

    def mended(self, triage: dict[str, Any] | None) -> Triage:
        """The triage with what was corrected; raises :class:`StoreError` where the two are no whole triage."""
        mine = {name: value for name, value in self if value is not None and name != "reply"}
        if self.urgency is not None and self.escalate is None:
            mine["escalate"] = self.urgency == "U1"  # as the training's calls have it
        try:
            return Triage.model_validate_json(json.dumps({**(triage or {}), **mine}))
        except ValidationError as error:
            fault = fault_of(error, "correction", 1)
            raise StoreError(f"correction.{fault.field}: {fault.reason}; correct that field, too") from None


class NewFeedback(Record):
    """One operator's judgement of one answer."""

    answer_id: str
    action: Action
    reason: str | None = Field(default=None, max_length=MAX_TEXT)  # free text; of a rejection it must be there
    correction: Correction | None = None
    key: str = Field(min_length=8, max_length=80)  # the sender's own, so that what is sent twice stands once

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.action == "rejected" and not (self.reason or "").strip():
            raise ValueError("reason: a rejection needs one; say in a few words what is wrong")
        if self.action == "edited" and self.correction is None:
            raise ValueError("correction: an edited answer needs one; give the fields that were changed")
        if self.action == "accepted" and self.correction is not None:
            raise ValueError("correction: an accepted answer has none; send it as edited")
        return self


class Feedback(Record):
    """A stored judgement; its texts hold placeholders."""

    id: str
    created: str
    operator: str
    given: NewFeedback


def give_feedback(store: Store, given: NewFeedback, by: str, roster: Roster = Roster()) -> Feedback:  # noqa: B008  frozen
    """Store a judgement and journal it; with a ``key`` that stands already, the one that has it is returned.

    Reason, reply and summary lose what names a person before they are stored; ``roster`` says whom the call is about. Raises
    :class:`NotStoredError` for an answer that is not there, :class:`StoreError` where something certain would be left in the
    words, or the corrected triage breaks its contract.
    """
    with store.reading() as connection:
        answer = answer_row(connection, given.answer_id)
        lang = call_of(connection, answer.given.call_id).lang if answer.given.call_id else "fr"
    if given.correction is not None:
        given.correction.mended(answer.given.triage)
    clean = _without_names(given, lang, roster)
    content, salt = canonical(clean.model_dump()), secrets.token_bytes(32)
    with store.writing() as connection:
        lock(connection)
        if known := connection.execute(select(feedback).where(feedback.c.key == given.key)).first():
            if (known.content, known.operator) != (content, by):
                raise ConflictError(f"the key {given.key!r} stands for another judgement; give each one a key of its own")
            return _feedback(known)
        answer_row(connection, given.answer_id)  # not erased meanwhile
        made = Feedback(id=new_id("feedback"), created=now(), operator=by, given=clean)
        body = {"feedback": made.id, "answer": given.answer_id, "action": given.action, "by": by, "content": seal(salt, content)}
        head = append(connection, "feedback", body)
        row = {"id": made.id, "answer_id": given.answer_id, "operator": by, "action": given.action, "key": given.key}
        sealed = {"content": content, "sequence": head.sequence, "salt": salt, "created": made.created}
        connection.execute(insert(feedback).values(**row, **sealed))
    return made


def feedback_between(store: Store, since: str, until: str | None = None) -> list[Feedback]:
    """Judgements from ``since`` on and before ``until``, the oldest first."""
    with store.reading() as connection:
        return feedback_rows(connection, since, until)


def last_action(store: Store, answer_id: str, by: str) -> str | None:
    """How an operator judged an answer, the last time; None when they have not."""
    mine = select(feedback.c.action).where(feedback.c.answer_id == answer_id, feedback.c.operator == by)
    with store.reading() as connection:
        action: str | None = connection.execute(mine.order_by(feedback.c.sequence.desc()).limit(1)).scalar()
    return action


def feedback_rows(connection: Connection, since: str = "", until: str | None = None) -> list[Feedback]:
    """Judgements of a time, inside a transaction."""
    asked = select(feedback).where(feedback.c.created >= since).order_by(feedback.c.sequence)
    asked = asked if until is None else asked.where(feedback.c.created < until)
    return [_feedback(row) for row in connection.execute(asked)]


def _without_names(given: NewFeedback, lang: str, roster: Roster) -> NewFeedback:
    """The judgement with placeholders in its free texts, one numbering for all of them."""
    correction = given.correction
    texts = [given.reason, correction.reply if correction else None, correction.summary if correction else None]
    done = deidentify([text or "" for text in texts], lang, roster)
    if residual(done.texts, roster):
        raise StoreError("the feedback still names somebody after de-identification; leave the name or number out of it")
    reason, reply, summary = (text or None for text in done.texts)
    if correction is not None:
        correction = correction.model_copy(update={"reply": reply, "summary": summary})
    return given.model_copy(update={"reason": reason, "correction": correction})


def _feedback(row: Any) -> Feedback:
    given = NewFeedback.model_validate_json(row.content)
    return Feedback(id=row.id, created=row.created, operator=row.operator, given=given)

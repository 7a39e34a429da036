"""Calls from chat JSON: OpenAI ``messages``, ShareGPT ``conversations``, Alpaca, and turns of our own.

    {"messages": [{"role": "user", "content": …}, …], "id": …, "roster": {"patient": …}, "labels": {…}}
    {"conversations": [{"from": "human", "value": …}, …]}
    {"instruction": …, "input": …, "output": …}
    {"turns": [{"speaker": "patient", "text": …}, …]}

The user is the patient and the assistant the operator; :mod:`llmft.prepare.readers.speakers` sees when it is
the other way round. What stands beside is taken as ids, labels and roster under the same names as in tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from llmft.deidentify.span import Roster
from llmft.dialogue import Fault
from llmft.prepare.call import RawCall, RawTurn
from llmft.prepare.readers.cell_values import language_code, safe_id
from llmft.prepare.readers.json_rows import json_rows
from llmft.prepare.readers.transcripts import read_plain_text
from llmft.strict_json import JsonRuleError

SPEAKERS: dict[str, str] = {
    **dict.fromkeys(("user", "human", "patient", "caller", "prompter", "customer"), "patient"),
    **dict.fromkeys(("assistant", "gpt", "bot", "model", "operator", "chatgpt", "agent"), "operator"),
    **dict.fromkeys(("system", "developer"), "system"),
}
ALPACA = (("instruction", "output"), ("prompt", "completion"), ("prompt", "response"), ("question", "answer"))
_LISTS = ("messages", "conversations", "conversation", "turns", "dialogue")
_WORDS = ("content", "value", "text")
_WHO = ("role", "from", "speaker")
_LABELS = ("urgency", "specialty", "icd10", "red_flags")
_ROSTER_KEYS = {field.name for field in fields(Roster)}
_ROSTER_NAMES = {
    **{name: name for name in _ROSTER_KEYS},
    **{"relative": "relatives", "operator": "operators", "doctor": "doctors", "phone": "phones", "email": "emails"},
    **{"address": "addresses", "city": "cities", "identifier": "identifiers", "patients": "patient"},
}
_SOURCES: dict[object, Literal["real", "synthetic", "simulated"]] = {
    "real": "real",
    "synthetic": "synthetic",
    "simulated": "simulated",
}


def read_chats(path: Path, encoding: str | None = None) -> Iterator[RawCall | Fault]:
    """Every call of a JSON or JSONL file, packed with gzip or not, or what is wrong with it.

    Raises :class:`DialogueError` for a file that cannot be opened, never for what it holds.
    """
    for row in json_rows(path, encoding):
        yield row if isinstance(row, Fault) else call_of_record(row.value, str(path), row.number)


def call_of_record(record: Any, file: str, row: int) -> RawCall | Fault:
    """One parsed record as a call."""
    try:
        beside = record if isinstance(record, dict) else {}
        return RawCall(
            file=file,
            row=row,
            turns=turns_of(record),
            id=_id(beside),
            family=_text(beside, "family", "family_id", "scenario"),
            subject=_text(beside, "subject", "subject_id", "patient_id"),
            date=_text(beside, "date", "collected_on", "call_date"),
            lang=language_code(lang) if (lang := _text(beside, "lang", "language")) else None,
            labels=_labels(beside, "labels"),
            labels_second=_object(beside, "labels_second"),
            patient=_object(beside, "patient"),
            roster=read_roster(beside.get("roster")),
            source=_SOURCES.get(beside.get("source") if isinstance(beside.get("source"), str) else None, "real"),
            license=_text(beside, "license"),
        )
    except RecordError as error:
        return Fault(file, row, error.field, str(error))


def is_chat(record: Any) -> bool:
    """Whether a record holds messages, or an instruction with its output."""
    if not isinstance(record, dict):
        return isinstance(record, list)
    return any(isinstance(record.get(name), list) for name in _LISTS) or any(set(pair) <= record.keys() for pair in ALPACA)


class RecordError(JsonRuleError):
    """A record that is no call: field and reason, never the words."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


def turns_of(record: Any) -> tuple[RawTurn, ...]:
    """The turns of a record in any of the forms, or of a bare list of messages; raises :class:`RecordError`."""
    if isinstance(record, list):
        return _messages(record, "messages")
    if not isinstance(record, dict):
        raise RecordError("", "not an object")
    for name in _LISTS:
        if isinstance(record.get(name), list):
            return _messages(record[name], name)
    for asks, answers in ALPACA:
        if asks in record and answers in record:
            return _alpaca(record, asks, answers)
    for name in ("transcript", "text"):
        if isinstance(record.get(name), str):
            turns = read_plain_text(record[name])
            if not turns:
                raise RecordError(name, "no speaker is named; write PATIENT: … OPÉRATEUR: …")
            return tuple(turns)
    raise RecordError("", "no messages, conversations, turns, transcript, or instruction with output")


def read_roster(value: Any) -> Roster:
    """Whom a record names under ``roster``; raises :class:`RecordError`, for who is left out is not protected."""
    if value is None:
        return Roster()
    if not isinstance(value, dict):
        raise RecordError("roster", f"not an object with {', '.join(sorted(_ROSTER_KEYS))}")
    lists: dict[str, tuple[str, ...]] = {}
    for key, names in value.items():
        ours = _ROSTER_NAMES.get(key)
        if ours is None:
            raise RecordError("roster", f"a key is none of {', '.join(sorted(_ROSTER_KEYS))}")
        found = [names] if isinstance(names, str) else names if isinstance(names, list) else [] if names is None else None
        if found is None or not all(isinstance(name, str) for name in found):
            raise RecordError(f"roster.{ours}", "neither text nor a list of texts")
        lists[ours] = (*lists.get(ours, ()), *(name for name in found if name.strip()))
    return Roster(**lists)


def _messages(messages: list[Any], name: str) -> tuple[RawTurn, ...]:
    turns = tuple(_turn(message, f"{name}[{place}]") for place, message in enumerate(messages))
    if not turns:
        raise RecordError(name, "the list is empty")
    return turns


def _turn(message: Any, field: str) -> RawTurn:
    if not isinstance(message, dict):
        raise RecordError(field, "not an object")
    who = next((message[key] for key in _WHO if key in message), None)
    words = next((message[key] for key in _WORDS if key in message), None)
    if not isinstance(who, str) or not who.strip():
        raise RecordError(field, "no speaker: give it role, from or speaker")
    if isinstance(words, list):
        words = _parts(words)
    if not isinstance(words, str):
        raise RecordError(field, "no words: give it content, value or text")
    speaker = SPEAKERS.get(who.strip().lower(), who.strip())
    return RawTurn(speaker, words, _number(message.get("start")), _number(message.get("end")))


def _parts(parts: list[Any]) -> str | None:
    """The texts of a content that is a list of parts; None when a part is no text."""
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    said = [text for text in texts if isinstance(text, str)]
    return "\n".join(said) if said and len(said) == len(texts) else None


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
    return float(value) if is_number and math.isfinite(value) else None


def _alpaca(record: dict[str, Any], asks: str, answers: str) -> tuple[RawTurn, ...]:
    """Instruction and input are the patient's turn; earlier exchanges stand under ``history``."""
    turns = []
    if isinstance(record.get("system"), str) and record["system"].strip():
        turns.append(RawTurn("system", record["system"]))
    history = record.get("history") or []
    if not isinstance(history, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in history
    ):
        raise RecordError("history", "not a list of pairs of texts")
    for asked, answered in history:
        turns += [RawTurn("patient", asked), RawTurn("operator", answered)]
    for name in (asks, "input", answers):
        if not isinstance(record.get(name, ""), str | None):
            raise RecordError(name, "not text")
    asked = "\n".join(text for name in (asks, "input") if (text := (record.get(name) or "").strip()))
    return (*turns, RawTurn("patient", asked), RawTurn("operator", record[answers] or ""))


def _id(record: dict[str, Any]) -> str | None:
    text = _text(record, "id", "call_id", "conversation_id")
    safe = None if text is None else safe_id(text)
    if text is not None and safe is None:
        raise RecordError("id", "an id may not read like a path; use letters, digits, . : - and _")
    return safe


def _text(record: dict[str, Any], *names: str) -> str | None:
    """The first of ``names`` that the record has, as text; None when it has none."""
    for name in names:
        value = record.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if value is not None and not isinstance(value, str):
            raise RecordError(name, "neither text nor a whole number")
        if value and value.strip():
            return value.strip()
    return None


def _object(record: dict[str, Any], name: str) -> dict[str, Any]:
    value = record.get(name)
    if value is not None and not isinstance(value, dict):
        raise RecordError(name, "not an object")
    return value or {}


def _labels(record: dict[str, Any], name: str) -> dict[str, Any]:
    """Labels of their own object, or beside the words."""
    return {**{key: record[key] for key in _LABELS if record.get(key) is not None}, **_object(record, name)}

"""The free texts of a record beside the words of its turns: where they stand, and the record with others in their place.

They are the triage block's summary and every other string of it, what stands after the block, evidence, known
illnesses, symptoms, and whatever else the record holds that is no code. A field that a later version of the record
brings is free text until it is named here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache, lru_cache
from operator import is_
from typing import Any, NamedTuple, TypeVar

from llmft.dialogue import Record, Turn
from llmft.strict_json import parse_json

AnyRecord = TypeVar("AnyRecord", bound=Record)
Change = Callable[[str, str], str]  # the field and its text ─▶ the text that takes its place

# Closed by the record's own types, or keys that other files know a row by.
_KEPT = frozenset(("schema_version", "id", "family_id", "lang", "speaker", "source", "split", "hash", "deid"))
_KEPT |= {"urgency", "specialty", "icd10_primary", "sex", "age_unit", "caller", "certainty", "confidence"}
# Meant for codes, though any string passes there, or in a block: what has not the form of one is somebody's words.
_CODED = _KEPT | {"slot", "stage", "act", "asks", "icd10", "red_flags", "specialty_acceptable", "specialty_alternatives"}
_CODED |= {"differential", "required_slots", "disposition", "channel", "license", "collected_on", "consent", "routing"}
_CODE = re.compile(r"[a-z][a-z0-9_.:-]*|[A-Za-z][\w.:+-]*\d[\w.:+-]*|\d{4}-\d\d(?:-\d\d)?", re.ASCII)
_LONG_NUMBER = 1_000_000  # from here on a number may be somebody's, such as a phone's

_SAID = frozenset(("speaker", "text", "i", "start", "end"))  # of a turn: all but these may hold notes
_BLOCK = re.compile(r"```json\s*\n(.*?)\n?```", re.DOTALL)
_MAX_BRACKETS = 200  # of a block; deeper ones are hostile


class _Parted(NamedTuple):
    """An operator's words around a JSON block."""

    head: str
    block: str  # with its fences
    value: dict[str, Any]
    tail: str


def head_of(turn: Turn) -> str:
    """The words of a turn, without the triage block that an operator's may hold and what follows it."""
    parted = _of_operator(turn)
    return turn.text if parted is None else parted.head


def _of_operator(turn: Turn) -> _Parted | None:
    return _parted(turn.text) if turn.speaker == "operator" and "```" in turn.text else None


@lru_cache(maxsize=1)  # one turn of a call has a block, and it is looked at several times
def _parted(text: str) -> _Parted | None:
    """What stands around the block; None when there is none, or when it is no JSON object and so but words."""
    block = _BLOCK.search(text)
    if block is None or block[1].count("[") + block[1].count("{") > _MAX_BRACKETS:
        return None
    try:
        value = parse_json(block[1])
        json.dumps(value, allow_nan=False)  # 1e999 is read as infinity, which could not be written again
    except ValueError:
        return None
    return _Parted(text[: block.start()], block[0], value, text[block.end() :]) if isinstance(value, dict) else None


def rewritten(record: AnyRecord, change: Change) -> AnyRecord:
    """``record``, a dialogue or one turn, with its notes as ``change`` gives them, asked in a fixed order.

    What does not change stays byte for byte.
    """
    return _record(record, "", change)


def notes_of(record: Record) -> list[tuple[str, str]]:
    """Field and text of each note, in the order of :func:`rewritten`."""
    notes: list[tuple[str, str]] = []

    def collect(field: str, text: str) -> str:
        notes.append((field, text))
        return text

    rewritten(record, collect)
    return notes


def _record(record: AnyRecord, field: str, change: Change) -> AnyRecord:
    """A record with its notes changed; the same object when none does. A field that was not given has its default."""
    given, updates = record.model_fields_set, {}
    for name in _open_fields(type(record)):
        if name in given:
            before, path = getattr(record, name), f"{field}.{name}" if field else name
            if before is None:
                continue
            if name == "text" and isinstance(record, Turn):
                after = _around_block(record, path, change)
            else:
                after = _value(before, path, name, change)
            if after is not before and after != before:
                updates[name] = after
    return record.model_copy(update=updates) if updates else record


@cache
def _open_fields(kind: type[Record]) -> tuple[str, ...]:
    return tuple(name for name in kind.model_fields if name not in _KEPT)


def _around_block(turn: Turn, field: str, change: Change) -> str:
    """A turn's text: the head stays, the block and what follows it are notes."""
    parted = _of_operator(turn)
    if parted is None:
        return turn.text
    value = _object(parted.value, field, "", change)
    block = parted.block if value is parted.value else f"```json\n{json.dumps(value, ensure_ascii=False)}\n```"
    after = parted.tail.strip()
    tail = parted.tail.replace(after, change(field, after)) if after else parted.tail
    return f"{parted.head}{block}{tail}"


def _value(value: Any, field: str, name: str, change: Change) -> Any:
    """``value`` of the field called ``name`` with its notes changed; itself when nothing changes."""
    match value:
        case str():
            return value if name in _CODED and _CODE.fullmatch(value) else _words(value, field, change)
        case int() if abs(value) >= _LONG_NUMBER:
            fresh = change(field, str(value))
            return value if fresh == str(value) else fresh
        case Record():
            return _record(value, field, change)
        case dict():
            return _object(value, field, name, change)
        case tuple() | list():
            items = [
                item if _is_plain(item) else _value(item, f"{field}[{place}]", name, change) for place, item in enumerate(value)
            ]
            return value if all(map(is_, items, value)) else type(value)(items)
    return value


def _is_plain(item: Any) -> bool:
    """Whether ``item`` is a turn without notes, as nearly all are."""
    return isinstance(item, Turn) and item.model_fields_set <= _SAID and "```" not in item.text


def _words(text: str, field: str, change: Change) -> str:
    fresh = change(field, text) if text.strip() else text
    return text if fresh == text else fresh


def _object(value: dict[str, Any], field: str, name: str, change: Change) -> dict[str, Any]:
    """A JSON object: keys are notes too when they are no codes, and so are not told in ``field``."""
    fresh = {}
    for key, item in value.items():
        own = name if name in _CODED else key
        fresh[key if _CODE.fullmatch(key) else _words(key, field, change)] = _value(item, field, own, change)
    is_same = fresh.keys() == value.keys() and all(map(is_, fresh.values(), value.values()))
    return value if is_same else fresh

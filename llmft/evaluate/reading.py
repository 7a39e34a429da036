"""An answer as a verdict: the block as it was written, or as it was plainly meant, and why there is none."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from llmft.dialogue import Triage, read_triage
from llmft.engine import Answer
from llmft.evaluate.prediction import Failure
from llmft.evaluate.spoken import FENCE
from llmft.vocabulary import ICD10_PATTERN, specialty_id, urgencies


@dataclass(frozen=True)
class Reading:
    """What an answer decides."""

    triage: Triage | None
    raw_valid: bool  # the block keeps the contract as it was written
    failure: Failure | None  # why there is no triage


def read_answer(answer: Answer) -> Reading:
    """An answer that did not end is a failure, even when a block stands in it: a runtime would go on and on."""
    if answer.failure is not None:
        return Reading(None, False, answer.failure)
    if not answer.text:
        return Reading(None, False, "empty")
    if not answer.ended:
        return Reading(None, False, "cut")
    if (triage := read_triage(answer.text)) is not None:
        return Reading(triage, True, None)
    if (repaired := repair(answer.text)) is not None:
        return Reading(repaired, False, None)
    return Reading(None, False, "broken_block" if "{" in answer.text else "no_block")


def repair(text: str) -> Triage | None:
    """The triage of a block with lesser faults: no fence, no end, other names of a specialty, lists or fields that lack.

    Urgency and specialty must be there and known; nothing is guessed.
    """
    values = _values(text)
    urgency, specialty = str(values.get("urgency", "")).strip(), specialty_id(str(values.get("specialty", "")))
    level = next((name for name in urgencies() if name.lower() == urgency.lower()), None)
    if level is None or specialty is None:
        return None
    summary, escalate = values.get("summary"), values.get("escalate")
    return Triage(
        urgency=level,  # type: ignore[arg-type]
        specialty=specialty,
        icd10=tuple(code for code in _texts(values.get("icd10")) if ICD10_PATTERN.match(code)),
        red_flags=_texts(values.get("red_flags")),
        summary=summary if isinstance(summary, str) else "",
        missing_info=_texts(values.get("missing_info")),
        escalate=escalate if isinstance(escalate, bool) else level == "U1",
    )


def _values(text: str) -> dict[str, Any]:
    """The fields of the first object in ``text``, whole or broken off."""
    start = text.find("{")
    if start < 0:
        return {}
    body = text[start:].partition(FENCE)[0]
    try:
        found, _ = json.JSONDecoder().raw_decode(body)
    except (ValueError, RecursionError):
        return _fields(body)
    return found if isinstance(found, dict) else {}


def _fields(body: str) -> dict[str, Any]:
    """The fields that can be read by themselves in an object that cannot be read whole; the first of each name counts."""
    fields: dict[str, Any] = {}
    for name, value in re.findall(r'"(\w+)"\s*:\s*("(?:[^"\\]|\\.)*"|\[[^\[\]]*\]|true|false)', body):
        try:
            fields.setdefault(name, json.loads(value))
        except (ValueError, RecursionError):
            continue
    return fields


def _texts(value: Any) -> tuple[str, ...]:
    """The texts of a list, or one text alone."""
    items = value if isinstance(value, list) else [value]
    return tuple(item for item in items if isinstance(item, str))

"""Calls out to human labelling and back: tasks of Label Studio, records of Argilla, both as JSON.

Only de-identified dialogues may go out. The labels that a call has travel as suggestions and come back
exactly; what a human answered comes back beside them, as gold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ValidationError

from llmft.dialogue import Dialogue, Fault, Labels, Urgency
from llmft.prepare.labels.label import LabelError, labels_from
from llmft.protocol.rules import flag_labels
from llmft.run import write_json
from llmft.vocabulary import specialties

Form = Literal["label-studio", "argilla"]
QUESTIONS = ("urgency", "specialty", "icd10", "red_flags")
AGENT = "llmft"
_BLOCK = re.compile(r"\s*```json.*?(?:```|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Labelled:
    """What comes back of one call: the labels that went out, and each human's answer."""

    id: str
    suggested: Labels | None
    answers: tuple[Labels, ...]


def export_labelling(path: Path, dialogues: Iterable[Dialogue], form: Form) -> int:
    """Write a whole JSON file of tasks or records; returns how many calls it holds."""
    make = {"label-studio": label_studio_task, "argilla": argilla_record}[form]
    items = [make(dialogue) for dialogue in dialogues]
    write_json(path, items)
    return len(items)


def import_labelling(path: Path) -> Iterator[Labelled | Fault]:
    """Each call of a file that Label Studio or Argilla wrote; an item that breaks the form is a fault."""
    try:
        items = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        yield Fault(path.name, 1, "", "not a readable JSON file; export the project again as JSON")
        return
    if not isinstance(items, list):
        yield Fault(path.name, 1, "", "not a list of tasks or records; export the project again as JSON")
        return
    for number, item in enumerate(items, start=1):
        try:
            yield _from_label_studio(item) if "data" in item else _from_argilla(item)
        except LabelError as error:
            yield Fault(path.name, number, error.field, str(error))
        except (ValidationError, KeyError, TypeError, AttributeError, IndexError, ValueError):
            yield Fault(path.name, number, "", "not a task or record that llmft exported; import only files of its own projects")


def label_studio_task(dialogue: Dialogue) -> dict[str, Any]:
    """A task for the project of :func:`label_studio_config`."""
    turns = [{"author": speaker.upper(), "text": text} for speaker, text in _shown(dialogue)]
    task: dict[str, Any] = {"data": {"id": dialogue.id, "lang": dialogue.lang, "dialogue": turns, "labels": _packed(dialogue)}}
    if dialogue.labels is not None:
        task["predictions"] = [{"model_version": AGENT, "result": _results(dialogue.labels)}]
    return task


def label_studio_config() -> str:
    """The project's labelling interface."""

    def choices(name: str, values: Iterable[str], choice: str) -> str:
        listed = "".join(f'<Choice value="{escape(value)}"/>' for value in values)
        return f'<Choices name="{name}" toName="dialogue" choice="{choice}" showInline="true">{listed}</Choices>'

    return (
        '<View><Paragraphs name="dialogue" value="$dialogue" layout="dialogue" nameKey="author" textKey="text"/>'
        + choices("urgency", get_args(Urgency), "single")
        + choices("specialty", specialties(), "single")
        + '<TextArea name="icd10" toName="dialogue" rows="1" maxSubmissions="5"/>'
        + choices("red_flags", flag_labels(), "multiple")
        + "</View>"
    )


def argilla_record(dialogue: Dialogue) -> dict[str, Any]:
    """A record of a dataset with a chat field ``dialogue`` and the questions of ``QUESTIONS``."""
    roles = {"patient": "user", "operator": "assistant"}
    answers = _answers(dialogue.labels) if dialogue.labels else {}
    return {
        "id": dialogue.id,
        "fields": {"dialogue": [{"role": roles[speaker], "content": text} for speaker, text in _shown(dialogue)]},
        "metadata": {"lang": dialogue.lang, "labels": _packed(dialogue)},
        "suggestions": {name: {"value": value, "agent": AGENT} for name, value in answers.items()},
        "responses": {},
    }


def _shown(dialogue: Dialogue) -> Iterator[tuple[str, str]]:
    """Speakers and texts without the triage block: who labels a call must not read the answer in it."""
    for turn in dialogue.turns:
        text = _BLOCK.sub("", turn.text).strip()
        if text:
            yield turn.speaker, text


def _packed(dialogue: Dialogue) -> str | None:
    """The labels as they are, so that they come back exactly."""
    return dialogue.labels.model_dump_json() if dialogue.labels else None


def _answers(labels: Labels) -> dict[str, Any]:
    codes = [labels.icd10_primary, *(symptom.icd10 for symptom in labels.symptoms)]
    answers = {
        "urgency": labels.urgency,
        "specialty": labels.specialty,
        "icd10": [code for code in codes if code],
        "red_flags": list(labels.red_flags),
    }
    return {name: value for name, value in answers.items() if value}


def _results(labels: Labels) -> list[dict[str, Any]]:
    results = []
    for name, value in _answers(labels).items():
        kind, key = ("textarea", "text") if name == "icd10" else ("choices", "choices")
        listed = value if isinstance(value, list) else [value]
        results.append({"from_name": name, "to_name": "dialogue", "type": kind, "value": {key: listed}})
    return results


def _from_label_studio(task: Mapping[str, Any]) -> Labelled:
    answers = []
    for annotation in task.get("annotations") or ():
        if annotation.get("was_cancelled"):
            continue
        given: dict[str, Any] = {}
        for result in annotation["result"]:
            value = result["value"]
            given[result["from_name"]] = value.get("choices") or value.get("text") or []
        answers.append(given)
    return _labelled(task["data"]["id"], task["data"].get("labels"), answers)


def _from_argilla(record: Mapping[str, Any]) -> Labelled:
    """Responses come as ``{question: [{value, user_id}]}`` or as a list that names the question."""
    responses = record.get("responses") or {}
    listed = (
        [{"question_name": name, **response} for name, given in responses.items() for response in given]
        if isinstance(responses, Mapping)
        else list(responses)
    )
    by_user: dict[str, dict[str, Any]] = {}
    for response in listed:
        if response.get("status") in (None, "submitted"):
            by_user.setdefault(str(response.get("user_id")), {})[response["question_name"]] = response["value"]
    return _labelled(record["id"], (record.get("metadata") or {}).get("labels"), by_user.values())


def _labelled(call_id: Any, packed: str | None, answers: Iterable[Mapping[str, Any]]) -> Labelled:
    if not isinstance(call_id, str) or not call_id:
        raise ValueError("the id of the call is missing")
    suggested = Labels.model_validate_json(packed) if packed else None
    read = (labels_from({name: _one(name, answer.get(name)) for name in QUESTIONS}) for answer in answers)
    return Labelled(call_id, suggested, tuple(labels for labels in read if labels is not None))


def _one(name: str, value: Any) -> Any:
    """A single choice out of its list."""
    return value[0] if name in ("urgency", "specialty") and isinstance(value, list) and value else value

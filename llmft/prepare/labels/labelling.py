"""Calls out to human labelling and back: tasks of Label Studio, records of Argilla, both as JSON.

Only de-identified dialogues may go out. The labels that a call has travel as suggestions and come back
exactly; what people answered comes back beside them, each person's for itself.
Sources of the forms: https://labelstud.io/guide/task_format, and argilla 2.8 (``Settings.from_json``,
``dataset.records.to_json``), whose export does not say which answers are drafts: only its completed records are taken.
"""

from __future__ import annotations

import hashlib
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
from llmft.strict_json import JsonRuleError, parse_json
from llmft.text_files.whole_file import read_whole
from llmft.vocabulary import specialties

Form = Literal["label-studio", "argilla"]
QUESTIONS = ("urgency", "specialty", "icd10", "red_flags")
REQUIRED = QUESTIONS[:2]
MAX_CHARS = 512_000_000  # of an export; some thousand calls take a few millions
AGENT = "llmft"
_BLOCK = re.compile(r"\s*```json.*?(?:```|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Answer:
    """What one person says of a call, as :func:`labels_from` reads it."""

    annotator: str  # "label-studio:3": a number of the tool's, never a name
    written: Mapping[str, Any]  # of QUESTIONS


@dataclass(frozen=True)
class Labelled:
    """What comes back of one call: the labels that went out, and each person's answer."""

    number: int  # of the item in its file
    id: str
    suggested: Labels | None
    answers: tuple[Answer, ...]


def export_labelling(path: Path, dialogues: Iterable[Dialogue], form: Form) -> int:
    """Write a whole JSON file of tasks or records; returns how many calls it holds."""
    make = {"label-studio": label_studio_task, "argilla": argilla_record}[form]
    items = [make(dialogue) for dialogue in dialogues]
    write_json(path, items)
    return len(items)


def import_labelling(path: Path) -> Iterator[Labelled | Fault]:
    """Each call of a file that Label Studio or Argilla wrote; an item that breaks the form is a fault."""
    text = read_whole(path, MAX_CHARS)
    if isinstance(text, Fault):
        yield text
        return
    try:
        items = parse_json(text)
    except JsonRuleError as error:
        yield Fault(str(path), 1, "", f"{error}; export the project again as JSON")
        return
    if not isinstance(items, list):
        yield Fault(str(path), 1, "", "not a list of tasks or records; export the project again as JSON")
        return
    for number, item in enumerate(items, start=1):
        try:
            yield _labelled(number, item)
        except LabelError as error:
            yield Fault(str(path), number, error.field, str(error))
        except (ValidationError, KeyError, TypeError, AttributeError, IndexError, ValueError):
            yield Fault(str(path), number, "", _foreign(item))


def label_studio_task(dialogue: Dialogue) -> dict[str, Any]:
    """A task for the project of :func:`label_studio_config`."""
    turns = [{"author": speaker.upper(), "text": text} for speaker, text in _shown(dialogue)]
    task: dict[str, Any] = {"data": {"id": dialogue.id, "lang": dialogue.lang, "dialogue": turns, **_packed(dialogue)}}
    if dialogue.labels is not None:
        task["predictions"] = [{"model_version": AGENT, "result": _results(dialogue.labels)}]
    return task


def label_studio_config() -> str:
    """The project's labelling interface."""

    def choices(name: str, values: Iterable[str], how: str) -> str:
        listed = "".join(f'<Choice value="{escape(value)}"/>' for value in values)
        return f'<Header value="{name}"/><Choices name="{name}" toName="dialogue" {how}>{listed}</Choices>'

    return (
        '<View><Paragraphs name="dialogue" value="$dialogue" layout="dialogue" nameKey="author" textKey="text"/>'
        + choices("urgency", get_args(Urgency), 'choice="single" showInline="true" required="true"')
        + choices("specialty", specialties(), 'choice="single" showInline="true" required="true"')
        + '<Header value="icd10"/><TextArea name="icd10" toName="dialogue" rows="1" maxSubmissions="5"/>'
        + choices("red_flags", flag_labels(), 'choice="multiple" layout="select"')
        + "</View>"
    )


def argilla_record(dialogue: Dialogue) -> dict[str, Any]:
    """A record of a dataset with a chat field ``dialogue`` and the questions of ``QUESTIONS``."""
    roles = {"patient": "user", "operator": "assistant"}
    answers = _answers(dialogue.labels) if dialogue.labels else {}
    if "icd10" in answers:
        answers["icd10"] = "; ".join(answers["icd10"])  # the answer to a question for text
    return {
        "id": dialogue.id,
        "fields": {"dialogue": [{"role": roles[speaker], "content": text} for speaker, text in _shown(dialogue)]},
        "metadata": {"lang": dialogue.lang, **_packed(dialogue)},
        "suggestions": {name: {"value": value, "agent": AGENT} for name, value in answers.items()},
        "responses": {},
    }


def argilla_settings() -> dict[str, Any]:
    """The dataset's settings, for ``rg.Settings.from_json``: each record is asked until two people have answered."""

    def question(name: str, kind: str, options: Iterable[str] = (), **settings: Any) -> dict[str, Any]:
        listed = {"options": [{"value": value, "text": value} for value in options]} if options else {}
        required = name in REQUIRED
        return {"name": name, "title": name, "required": required, "settings": {"type": kind, **listed, **settings}, "type": kind}

    return {
        "guidelines": "What should this call lead to?",
        "fields": [{"name": "dialogue", "title": "dialogue", "required": True, "settings": {"type": "chat"}, "type": "chat"}],
        "questions": [
            question("urgency", "label_selection", get_args(Urgency)),
            question("specialty", "label_selection", specialties()),
            question("icd10", "text", use_markdown=False),
            question("red_flags", "multi_label_selection", flag_labels()),
        ],
        "allow_extra_metadata": True,
        "distribution": {"strategy": "overlap", "min_submitted": 2},
    }


def _shown(dialogue: Dialogue) -> Iterator[tuple[str, str]]:
    """Speakers and texts without the triage block: who labels a call must not read the answer in it."""
    for turn in dialogue.turns:
        text = _BLOCK.sub("", turn.text).strip()
        if text:
            yield turn.speaker, text


def _packed(dialogue: Dialogue) -> dict[str, str]:
    """The labels as they are, so that they come back exactly."""
    return {"labels": dialogue.labels.model_dump_json()} if dialogue.labels else {}


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


def _labelled(number: int, item: Mapping[str, Any]) -> Labelled:
    is_task = "data" in item
    call_id, kept = (item["data"]["id"], item["data"]) if is_task else (item["id"], item.get("metadata") or {})
    if not isinstance(call_id, str) or not call_id or "fields" not in item and not is_task:
        raise ValueError("the id of the call is missing")
    answers = tuple(_label_studio_answers(item) if is_task else _argilla_answers(item))
    for answer in answers:
        for question in REQUIRED:
            if not answer.written[question]:
                raise LabelError(question, "the question was not answered; answer it, or skip the call")
        labels_from(answer.written)
    return Labelled(number, call_id, Labels.model_validate_json(kept["labels"]) if kept.get("labels") else None, answers)


def _label_studio_answers(task: Mapping[str, Any]) -> Iterator[Answer]:
    for place, annotation in enumerate(task.get("annotations") or ()):
        if annotation.get("was_cancelled"):
            continue
        given: dict[str, Any] = {}
        for result in annotation["result"]:
            value = result["value"]
            given[result["from_name"]] = value.get("choices") or value.get("text") or []
        by = annotation.get("completed_by", f"unknown-{place}")
        yield _answer("label-studio", by["id"] if isinstance(by, Mapping) else by, given)


def _argilla_answers(record: Mapping[str, Any]) -> Iterator[Answer]:
    """Responses come as ``{question: [{value, user_id}]}`` or as a list that names the question."""
    responses = record.get("responses") or {}
    listed = (
        [{"question_name": name, **response} for name, given in responses.items() for response in given]
        if isinstance(responses, Mapping)
        else list(responses)
    )
    if listed and record.get("status") == "pending":
        raise LabelError("status", "the record is not completed, so its answers may be drafts; submit them and export it again")
    by_user: dict[str, dict[str, Any]] = {}
    for response in listed:
        if response.get("status") in (None, "submitted"):
            by_user.setdefault(str(response.get("user_id")), {})[response["question_name"]] = response["value"]
    for user, given in by_user.items():
        yield _answer("argilla", user, given)


def _answer(tool: str, annotator: Any, given: Mapping[str, Any]) -> Answer:
    """Of a person that a tool knows by an address, only a digest is kept."""
    name = str(annotator)
    if not re.fullmatch(r"[\w-]{1,40}", name):
        name = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return Answer(f"{tool}:{name}", {question: _one(question, given.get(question)) for question in QUESTIONS})


def _one(name: str, value: Any) -> Any:
    """A single choice out of its list."""
    return value[0] if name in REQUIRED and isinstance(value, list) and value else value


def _foreign(item: Any) -> str:
    if isinstance(item, dict) and {"annotation_id", "annotator"} & item.keys():
        return "an item of JSON-MIN, which leaves out whose answer it is; export the project as JSON"
    return "not a task or record that llmft exported; import only files of its own projects"

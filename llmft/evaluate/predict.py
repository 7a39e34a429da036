"""Let a model write the last operator turn of each test call, and keep what it decided.

Predictions hold ids, labels and times, never the words of a call. They carry a key made from everything
that they depend on, so that a second evaluation of the same model on the same calls reads them again; one
that was killed goes on after the calls that it has kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llmft.dialogue import Dialogue, read_dialogues
from llmft.engine import Answer, Engine
from llmft.engine.scoring import HasScorer, Scorer, label_probabilities
from llmft.errors import DialogueError, PromptError
from llmft.evaluate.prediction import Prediction
from llmft.evaluate.progress import counting
from llmft.evaluate.reading import read_answer
from llmft.evaluate.spoken import said, sentence_of
from llmft.evaluate.truth import gold_verdict, verdict_of
from llmft.prompt import Message, to_messages
from llmft.run import write_text
from llmft.vocabulary import specialties, urgencies

CHUNK_CALLS = 64  # of an engine that is scored, too: asked, scored and then kept together; a kill loses no more
TOP_SPECIALTIES = 5
PROTOCOL = 4  # of asking and of reading answers; a change makes earlier predictions void


class KeyedPrediction(Prediction):
    """An outcome with the key of the evaluation that it belongs to."""

    key: str


def key_of(**dependencies: Any) -> str:
    """A digest of all that predictions depend on."""
    text = json.dumps({"protocol": PROTOCOL, **dependencies}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_test_calls(path: Path, max_dialogues: int) -> list[Dialogue]:
    """At most ``max_dialogues`` calls of a test file, taken evenly and in order.

    Raises :class:`DialogueError` for an empty file and for a call without labels.
    """
    dialogues = read_dialogues(path)
    if not dialogues:
        raise DialogueError(f"{path} holds no dialogue, and an evaluation needs at least one; make it with: llmft prepare")
    count = min(max_dialogues, len(dialogues))
    taken = [dialogues[index * len(dialogues) // count] for index in range(count)]
    for dialogue in taken:
        if gold_verdict(dialogue) is None:
            raise DialogueError(f"{path}: dialogue {dialogue.id} has neither labels nor a triage block; label it or take it out")
    return taken


def predict(
    engine: Engine, dialogues: Sequence[Dialogue], system: str | None, max_new_tokens: int, title: str
) -> list[Prediction]:
    """The outcome of each call, in order; ``title`` stands before the progress bar."""
    with counting(title, len(dialogues)) as advance:
        found = {row.id: row for row in _outcomes(engine, dialogues, system, max_new_tokens, advance)}
    return [found[dialogue.id] for dialogue in dialogues]


def predict_resumably(
    load: Callable[[], Engine],
    dialogues: Sequence[Dialogue],
    system: str | None,
    max_new_tokens: int,
    title: str,
    *,
    path: Path,
    key: str,
) -> list[Prediction]:
    """As :func:`predict`, into ``path`` under ``key``: calls that are kept there are not asked again.

    Until the last one, rows lie beside it under ``.asked``; the model is loaded only when there is something to ask. Calls that
    a server failed on before it went away for good are asked once more.
    """
    asked = path.with_name(f"{path.name}.asked")
    ids = {dialogue.id: None for dialogue in dialogues}
    begun = [row for row in _rows(asked) if row.failure not in ("time_out", "engine")]
    rows = {row.id: row for row in [*begun, *_rows(path)] if row.key == key and row.id in ids}
    missing = [dialogue for dialogue in dialogues if dialogue.id not in rows]
    if missing:
        write_text(asked, "".join(f"{row.model_dump_json()}\n" for row in rows.values()))
        with counting(title, len(missing)) as advance, asked.open("a", encoding="utf-8") as file:
            for row in _outcomes(load(), missing, system, max_new_tokens, advance):
                rows[row.id] = KeyedPrediction(key=key, **dict(row))
                file.write(f"{rows[row.id].model_dump_json()}\n")
                file.flush()
    found = [Prediction.model_validate(rows[call].model_dump(exclude={"key"})) for call in ids]
    write_predictions(path, key, found)
    asked.unlink(missing_ok=True)
    return found


def _outcomes(
    engine: Engine, dialogues: Sequence[Dialogue], system: str | None, max_new_tokens: int, advance: Callable[[], None]
) -> Iterator[Prediction]:
    """The outcome of each call, as they are done: of a server at once, of an engine with probabilities a chunk at a time.

    A scorer is good only while nobody answers, and what was answered waits for its probabilities.
    """
    is_scored = isinstance(engine, HasScorer)
    size = CHUNK_CALLS if is_scored else max(len(dialogues), 1)
    for start in range(0, len(dialogues), size):
        chunk = dialogues[start : start + size]
        conversations = [to_messages(dialogue, system)[:-1] for dialogue in chunk]
        waiting: list[tuple[int, Answer]] = []
        for index, answer in engine.answers(conversations, max_new_tokens):
            advance()
            if is_scored:
                waiting.append((index, answer))
            else:
                yield _prediction(chunk[index], answer, None, conversations[index])
        scorer = engine.scorer() if waiting and isinstance(engine, HasScorer) else None
        for index, answer in sorted(waiting, key=lambda pair: pair[0]):
            yield _prediction(chunk[index], answer, scorer, conversations[index])


def _prediction(dialogue: Dialogue, answer: Answer, scorer: Scorer | None, messages: Sequence[Message]) -> Prediction:
    gold = gold_verdict(dialogue)
    assert gold is not None
    reading = read_answer(answer)
    urgency, top = (None, ()) if scorer is None else _probabilities(scorer, messages, answer.text)
    return Prediction(
        id=dialogue.id,
        gold=gold,
        predicted=None if reading.triage is None else verdict_of(reading.triage),
        seconds=round(answer.seconds, 4),
        raw_valid=reading.raw_valid,
        repaired=reading.triage is not None and not reading.raw_valid,
        sentence=said(sentence_of(answer.text)),
        urgency_probabilities=urgency,
        top_specialties=top,
        failure=reading.failure,
        prompt_tokens=None if scorer is None else len(scorer.prompt_ids(messages)),
        answer_tokens=None if scorer is None else len(scorer.text_ids(answer.text)),
        text_sha256=hashlib.sha256(answer.text.encode("utf-8", "surrogatepass")).hexdigest(),
    )


def _probabilities(
    scorer: Scorer, messages: Sequence[Message], text: str
) -> tuple[dict[str, float], tuple[tuple[str, float], ...]]:
    """Probabilities of the urgencies and of the likeliest specialties, each at its place in the block that was written.

    Where there is no block, one is opened after the sentence. Both are empty when the call leaves no room for a block.
    """
    opening, colon, _ = text.partition('"urgency": "')
    before = opening + colon if colon else f'{sentence_of(text)}\n```json\n{{"urgency": "'.lstrip("\n")
    try:
        urgency = label_probabilities(scorer, messages, before, list(urgencies()))
        opening, colon, _ = text.partition('"specialty": "')
        likeliest = max(urgency, key=urgency.__getitem__)
        before = opening + colon if colon else f'{before}{likeliest}", "specialty": "'
        specialty = label_probabilities(scorer, messages, before, list(specialties()))
    except PromptError:
        return {}, ()
    return urgency, tuple(list(specialty.items())[:TOP_SPECIALTIES])


def _rows(path: Path) -> list[KeyedPrediction]:
    """The whole lines of a file of predictions; what a kill has cut is passed over."""
    rows = []
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            rows.append(KeyedPrediction.model_validate_json(line))
        except ValidationError:
            continue
    return rows


def read_predictions(path: Path, key: str, ids: Sequence[str]) -> list[Prediction] | None:
    """Kept predictions of exactly these calls under this key; None when there are none."""
    try:
        rows = [KeyedPrediction.model_validate_json(line) for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError, ValidationError):
        return None
    if [row.id for row in rows] != list(ids) or any(row.key != key for row in rows):
        return None
    return [Prediction.model_validate(row.model_dump(exclude={"key"})) for row in rows]


def write_predictions(path: Path, key: str, outcomes: Sequence[Prediction]) -> None:
    """Keep predictions, one JSON object a call."""
    rows = [KeyedPrediction(key=key, **dict(outcome)) for outcome in outcomes]
    write_text(path, "".join(f"{row.model_dump_json()}\n" for row in rows))

"""Let a model write the last operator turn of each test call, and keep what it decided.

Predictions hold ids, labels and times, never the words of a call. They carry a key made from everything
that they depend on, so that a second evaluation of the same model on the same calls reads them again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llmft.dialogue import Dialogue, read_dialogues, read_triage
from llmft.engine import Answer, Engine
from llmft.errors import DialogueError
from llmft.evaluate.metrics import Outcome, Verdict
from llmft.prompt import to_messages
from llmft.run import write_text

PROTOCOL = 1  # of asking and of reading answers; a change makes earlier predictions void


class KeyedOutcome(Outcome):
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


def gold_verdict(dialogue: Dialogue) -> Verdict | None:
    """What the call should lead to: its labels, else the triage of its last turn."""
    if dialogue.labels is not None:
        code = dialogue.labels.icd10_primary
        return Verdict(urgency=dialogue.labels.urgency, specialty=dialogue.labels.specialty, icd10=(code,) if code else ())
    return _verdict(dialogue.turns[-1].text)


def _verdict(text: str) -> Verdict | None:
    triage = read_triage(text)
    return None if triage is None else Verdict(urgency=triage.urgency, specialty=triage.specialty, icd10=triage.icd10)


def predict(engine: Engine, dialogues: Sequence[Dialogue], system: str | None, max_new_tokens: int, title: str) -> list[Outcome]:
    """The outcome of each call, in order; ``title`` stands before the progress bar."""
    conversations = [to_messages(dialogue, system)[:-1] for dialogue in dialogues]
    outcomes: dict[int, Outcome] = {}
    with _progress(title, len(dialogues)) as advance:
        for index, answer in engine.answers(conversations, max_new_tokens):
            outcomes[index] = _outcome(dialogues[index], answer)
            advance()
    return [outcomes[index] for index in range(len(dialogues))]


def _outcome(dialogue: Dialogue, answer: Answer) -> Outcome:
    """An answer that did not end is a failure, even when a block stands in it: a runtime would go on and on."""
    gold = gold_verdict(dialogue)
    assert gold is not None
    predicted = _verdict(answer.text) if answer.ended else None
    return Outcome(id=dialogue.id, gold=gold, predicted=predicted, seconds=round(answer.seconds, 4))


def read_predictions(path: Path, key: str, ids: Sequence[str]) -> list[Outcome] | None:
    """Kept predictions of exactly these calls under this key; None when there are none."""
    try:
        rows = [KeyedOutcome.model_validate_json(line) for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError, ValidationError):
        return None
    if [row.id for row in rows] != list(ids) or any(row.key != key for row in rows):
        return None
    return [Outcome.model_validate(row.model_dump(exclude={"key"})) for row in rows]


def write_predictions(path: Path, key: str, outcomes: Sequence[Outcome]) -> None:
    """Keep predictions, one JSON object a call."""
    rows = [KeyedOutcome(key=key, **dict(outcome)) for outcome in outcomes]
    write_text(path, "".join(f"{row.model_dump_json()}\n" for row in rows))


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr that counts calls; silent when stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=total)
        yield lambda: progress.advance(task)

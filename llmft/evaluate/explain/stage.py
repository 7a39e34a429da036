"""``llmft explain``: one call, one model, one page."""

from __future__ import annotations

from pathlib import Path

from llmft.dialogue import Dialogue, read_dialogues
from llmft.engine import answer
from llmft.engine.scoring import HasScorer
from llmft.errors import DialogueError, LlmftError
from llmft.evaluate.candidates import find_candidate
from llmft.evaluate.explain.clauses import messages_without
from llmft.evaluate.explain.neighbours import neighbours
from llmft.evaluate.explain.occlusion import explain_call
from llmft.evaluate.explain.page import page
from llmft.evaluate.reading import read_answer
from llmft.evaluate.spoken import sentence_of
from llmft.privacy import keep_private
from llmft.recipe import Recipe
from llmft.run import write_json, write_text

SPLITS = ("test", "validation", "train")


def explain(recipe: Recipe, model: str, call_id: str, output: Path | None = None, *, threads: int | None = None) -> Path:
    """Explain what ``model`` makes of the call ``call_id`` of the recipe's set; returns the page that was written.

    ``model`` is base, adapter or a GGUF file. Beside the page lie the figures, without words. Raises
    :class:`DialogueError` when no split has the call.
    """
    keep_private(hub_allowed=not recipe.base_is_folder)
    folder = Path(recipe.data.folder)
    dialogue = _find(folder, call_id)
    candidate = find_candidate(recipe, model, threads)
    engine = candidate.load()
    if not isinstance(engine, HasScorer):
        raise LlmftError(f"model {model!r} is a server, which tells no probabilities; explain the file that it serves")
    (answered,) = answer(engine, [messages_without(dialogue, (), recipe.data.system)], recipe.evaluate.max_new_tokens)
    triage = read_answer(answered).triage
    clauses, found = explain_call(engine.scorer(), dialogue, recipe.data.system, triage)
    train = folder / "train.jsonl"
    near = neighbours(dialogue, [call for call in read_dialogues(train) if call.id != call_id] if train.is_file() else [])
    path = output or recipe.run.evaluation_dir / f"explain-{call_id.replace(':', '_')}.html"
    write_text(path, page(dialogue, candidate.name, (sentence_of(answered.text), triage), clauses, found, near))
    figures = {
        one.field: {
            "label": one.label,
            "probability": one.probability,
            "deletion_gain": one.deletion_gain,
            "clauses": [
                {"turn": clause.turn, "span": [clause.start, clause.end], "effect": effect}
                for clause, effect in zip(clauses, one.effects, strict=True)
            ],
        }
        for one in found
    }
    said = None if triage is None else {"urgency": triage.urgency, "specialty": triage.specialty}
    write_json(path.with_suffix(".json"), {"call": call_id, "model": candidate.name, "answered": said, **figures})
    return path


def _find(folder: Path, call_id: str) -> Dialogue:
    for split in SPLITS:
        path = folder / f"{split}.jsonl"
        if path.is_file():
            for dialogue in read_dialogues(path):
                if dialogue.id == call_id:
                    return dialogue
    raise DialogueError(f"{folder} has no call {call_id!r} in {', '.join(SPLITS)}; ids stand in its .jsonl files")

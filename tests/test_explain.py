"""Clauses make up what was said, weights find the words that decide, the page holds them safely."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_engine as tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.cli import main
from llmft.dialogue import Dialogue, Triage, Turn, write_dialogues
from llmft.engine.parallel_llama import open_parallel
from llmft.engine.torch_model import load_base
from llmft.errors import DialogueError
from llmft.evaluate.explain.clauses import SILENCE, clauses_of, messages_without
from llmft.evaluate.explain.neighbours import neighbours
from llmft.evaluate.explain.occlusion import explain_call
from llmft.evaluate.explain.page import page
from llmft.evaluate.explain.stage import explain
from llmft.prompt import Message
from llmft.recipe import Data, Recipe, save_recipe


def spoken(*texts: str) -> Dialogue:
    """A call whose patient says these turns."""
    turns: list[Turn] = []
    for text in texts:
        turns += [Turn(speaker="patient", text=text), Turn(speaker="operator", text="Et ?")]
    return tiny.dialogues()[0].model_copy(update={"turns": (*turns[:-1], tiny.dialogues()[0].turns[-1])})


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=60).filter(str.strip), min_size=1, max_size=3))
def test_clauses_are_the_whole_of_each_turn(texts: list[str]) -> None:
    call = spoken(*texts)
    for number, turn in enumerate(call.turns):
        mine = [clause for clause in clauses_of(call) if clause.turn == number]
        joined = "".join(turn.text[clause.start : clause.end] for clause in mine)
        assert joined == (turn.text if turn.speaker == "patient" else "")


def test_clauses_end_at_marks_and_before_and() -> None:
    call = spoken("Bonjour, j'ai mal au bras et je transpire, euh, depuis 3 jours.")
    text = call.turns[0].text
    found = [text[clause.start : clause.end].strip() for clause in clauses_of(call)]
    assert found == ["Bonjour,", "j'ai mal au bras", "et je transpire,", "euh,", "depuis 3 jours."]


def test_clauses_taken_out_leave_the_others() -> None:
    call = spoken("Bonjour, j'ai mal.", "Oui.")
    first, second, third = clauses_of(call)
    said = [m["content"] for m in messages_without(call, [first], None) if m["role"] == "user"]
    assert said == ["j'ai mal.", "Oui."]
    said = [m["content"] for m in messages_without(call, [first, second, third], None) if m["role"] == "user"]
    assert said == [SILENCE, SILENCE]
    assert messages_without(call, [], "S")[0] == {"role": "system", "content": "S"}


class Knows:
    """A scorer to whom only the word *serre* matters: with it U1 and cardiologie are likely, without it U4 and orl."""

    def prompt_ids(self, messages: Any) -> list[int]:
        return [sum("serre" in message["content"] for message in messages if message["role"] == "user")]

    def text_ids(self, text: str) -> list[int]:
        return [byte + 2 for byte in text.encode()]

    def distributions(self, prompt: Any, continuations: Any) -> list[Any]:
        liked = (b"U1", b"cardiologie") if prompt[0] else (b"U4", b"orl")
        rows = []
        for ids in continuations:
            likely = any(bytes(i - 2 for i in ids).startswith((name, name[1:])) for name in liked)
            rows.append(np.full((len(ids), 300), (-0.1 if likely else -3.0) / len(ids), np.float32))
        return rows


def test_the_word_that_decides_is_found_and_beats_chance() -> None:
    call = spoken("Bonjour, j'ai mal, ça serre fort, depuis hier.", "Oui, vraiment.")
    clauses, found = explain_call(Knows(), call, None)
    deciding = next(i for i, c in enumerate(clauses) if "serre" in call.turns[c.turn].text[c.start : c.end])
    for one, label in zip(found, ("U1", "cardiologie"), strict=True):
        assert one.label == label and one.effects[deciding] > 1
        assert [effect for i, effect in enumerate(one.effects) if i != deciding] == pytest.approx([0.0] * (len(clauses) - 1))
        assert len(one.ranked) == len(one.at_random) == len(clauses) + 1
        assert one.ranked[0] == one.probability == pytest.approx(one.at_random[0]) and one.ranked[1] < one.probability / 2
        assert one.deletion_gain > 0.1


def test_what_is_explained_is_what_the_model_answered() -> None:
    call = spoken("Bonjour, ça serre fort.", "Oui, vraiment.")
    answered = Triage(urgency="U4", specialty="orl", icd10=(), red_flags=(), summary="", missing_info=(), escalate=False)
    clauses, found = explain_call(Knows(), call, None, answered)
    deciding = next(i for i, c in enumerate(clauses) if "serre" in call.turns[c.turn].text[c.start : c.end])
    assert [one.label for one in found] == ["U4", "orl"] and all(one.effects[deciding] < -1 for one in found)


@pytest.mark.parametrize("runtime", ["torch", "llama"])
def test_both_runtimes_explain(runtime: str) -> None:
    if runtime == "torch":
        engine: Any = load_base(str(tiny.learned("llama3").base_dir), "llama3")
    else:
        engine = open_parallel(tiny.gguf("llama3"), slots=4, threads=1)
    clauses, found = explain_call(engine.scorer(), tiny.dialogues()[0], tiny.SYSTEM)
    assert len(clauses) == 2 and [len(one.effects) for one in found] == [2, 2]
    assert all(0 < one.probability <= 1 for one in found)


def test_nearest_calls_are_those_that_say_the_same() -> None:
    a, b, c = tiny.dialogues()
    near = neighbours(a.model_copy(update={"id": "x"}), [b, c, a], 2)
    assert [n.id for n in near][0] == "a" and near[0].likeness == pytest.approx(1)
    assert (near[0].urgency, near[0].specialty) == ("U1", "cardiologie") and len(near) == 2
    assert neighbours(a, []) == [] and neighbours(a, [spoken("…")]) == []


def test_page_shows_words_and_escapes_them() -> None:
    call = spoken("<script>alert(1)</script> ça serre, <b>fort</b>.")
    clauses, found = explain_call(Knows(), call, None)
    html = page(call, "m<", ("<i>No block", None), clauses, found, [])
    assert "&lt;i&gt;No block" in html and "No triage that can be read" in html
    assert "<script>" not in html and "<b>fort" not in html and "&lt;script&gt;" in html
    assert '<mark class="for4">' in html and "http" not in html.replace("http-equiv", "")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.chdir(tmp_path)
    made = Recipe(
        name="tiny",
        base=str(tiny.learned("llama3").base_dir),
        template="llama3",
        data=Data(folder="calls", system=tiny.SYSTEM),
    )
    write_dialogues(Path("calls/test.jsonl"), tiny.dialogues()[:1])
    write_dialogues(Path("calls/train.jsonl"), tiny.dialogues()[1:])
    save_recipe(made, Path("r.yaml"))
    return made


def test_verb_writes_page_and_figures_without_words(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(tiny.gguf("llama3")), "--call", "a", "--recipe", "r.yaml"]) == 0
    path = recipe.run.evaluation_dir / "explain-a.html"
    assert str(path) in capsys.readouterr().out
    html, figures = path.read_text("utf-8"), json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert "ça serre" in html and "serre" not in path.with_suffix(".json").read_text("utf-8")
    assert figures["answered"] == {"urgency": figures["urgency"]["label"], "specialty": figures["specialty"]["label"]}
    assert figures["answered"] == {"urgency": "U1", "specialty": "cardiologie"}  # learnt by heart
    assert len(figures["specialty"]["clauses"]) == 2


def test_call_that_is_not_there_is_one_sentence(recipe: Recipe) -> None:
    with pytest.raises(DialogueError, match="has no call 'zz'"):
        explain(recipe, "base", "zz")


def test_messages_keep_their_order() -> None:
    messages: list[Message] = messages_without(spoken("Un.", "Deux."), [], None)
    assert [m["role"] for m in messages] == ["user", "assistant", "user"]

"""Corrected calls in training: met as often as the recipe says, and learnt by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import dialogue, tiny_recipe

from llmft.dialogue import Dialogue, Labels, read_dialogues, read_triage, write_dialogues
from llmft.prompt import Encoded
from llmft.recipe import load_recipe
from llmft.train.lengths import LongDialogue
from llmft.train.rows import Rows, repeat_corrected
from llmft.train.sft import sft


def labelled(name: str, *, corrected: bool) -> Dialogue:
    labels = Labels(urgency="U1", specialty="urgences", corrected=corrected)
    return dialogue("Bonjour.", "Oui ?", name=name).model_copy(update={"labels": labels})


def rows_of(*names: str) -> Rows:
    return Rows([Encoded(name, [1, 2], [1, 2]) for name in names], [("refused", "why")], [LongDialogue("long", 9, 2)])


@pytest.mark.parametrize(
    ("times", "copies"), [(1, []), (2, ["bad", "long#1", "long#2"]), (3, ["bad", "long#1", "long#2"] * 2)], ids=("1", "2", "3")
)
def test_rows_of_corrected_calls_are_repeated_and_no_others(times, copies):
    calls = [*(labelled(name, corrected=name != "good") for name in ("bad", "good", "long")), dialogue("a", "b")]
    rows = rows_of("bad", "good", "long#1", "long#2", "d1")
    repeated = repeat_corrected(rows, calls, times)
    assert [row.id for row in repeated.encoded] == ["bad", "good", "long#1", "long#2", "d1", *copies]
    assert (repeated.refused, repeated.long, repeated.repeated) == (rows.refused, rows.long, len(copies))
    facts = repeated.facts()
    assert (facts["dialogues"], facts["rows"], facts["repeated"]) == (4, 5 + len(copies), len(copies))


def corrected_set(folder: Path, prepared: Path) -> None:
    """Two calls and one that was corrected to what neither of them is, which is also validated on."""
    *others, call = sorted(read_dialogues(prepared / "train.jsonl"), key=lambda call: sum(len(turn.text) for turn in call.turns))[
        :3
    ]
    triage = read_triage(call.turns[-1].text)
    assert triage is not None and call.labels is not None
    block = triage.model_copy(update={"urgency": "U4", "specialty": "dentaire", "escalate": False}).as_block()
    turn = call.turns[-1].model_copy(update={"text": f"Prenez un avis en soins dentaires.\n{block}"})
    labels = call.labels.model_copy(update={"urgency": "U4", "specialty": "dentaire", "corrected": True})
    call = call.model_copy(update={"turns": (*call.turns[:-1], turn), "labels": labels})
    folder.mkdir()
    write_dialogues(folder / "train.jsonl", [*others, call])
    write_dialogues(folder / "validation.jsonl", [call])


def test_a_pass_that_meets_a_corrected_call_often_learns_it(tmp_path, monkeypatch, bases, prepared):
    monkeypatch.chdir(tmp_path)
    corrected_set(tmp_path / "set", prepared)
    train = {"batch_dialogues": 2, "learning_rate": 2e-2, "save_every": 99, "validate_every": 99, "max_steps": -1, "epochs": 4.0}
    losses = []
    for times in (1, 8):
        path = tiny_recipe(Path("recipe.yaml"), bases["llama"], "llama", tmp_path / "set", **train, corrected_repeats=times)
        recipe = load_recipe(path, [f"name=times-{times}"])
        sft(recipe)
        made = json.loads(recipe.run.manifest_path.read_text())
        rows = made["rows"]["train"]
        assert (rows["dialogues"], rows["rows"], rows["repeated"]) == (3, 2 + times, times - 1)
        assert made["seen"]["steps"] == {1: 6, 8: 20}[times]
        course = [json.loads(line) for line in recipe.run.metrics_path.read_text().splitlines()]
        losses += [entry["eval_loss"] for entry in course if "eval_loss" in entry]
    assert losses[1] < losses[0] - 0.1  # on the corrected call; 7.32 and 7.56

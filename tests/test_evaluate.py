from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_engine as tiny

from llmft.cli import main
from llmft.dialogue import write_dialogues
from llmft.engine import Answer
from llmft.errors import CheckpointError, DialogueError
from llmft.evaluate import candidates, stage
from llmft.evaluate.predict import predict, read_predictions, read_test_calls, write_predictions
from llmft.evaluate.prediction import Prediction, Verdict
from llmft.gate_result import Judged, write_gate
from llmft.prompt import Message
from llmft.recipe import Data, Evaluate, Recipe
from llmft.run import sha256

GOLD = [Verdict(urgency=urgency, specialty=specialty, icd10=(code,)) for _, _, urgency, specialty, code, _ in tiny.CALLS]
RIGHT = [dialogue.turns[-1].text for dialogue in tiny.dialogues()]
SAID = [gold.model_copy(update={"escalate": gold.urgency == "U1"}) for gold in GOLD]  # as the blocks have it


@dataclass(frozen=True)
class Spoken:
    """An engine that says what it was given, the last conversation first."""

    texts: Sequence[str]
    ended: bool = True

    def answers(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> Iterator[tuple[int, Answer]]:
        assert all(messages[0] == {"role": "system", "content": tiny.SYSTEM} for messages in conversations)
        assert all(messages[-1]["role"] == "user" for messages in conversations)
        for index in reversed(range(len(conversations))):
            yield index, Answer(self.texts[index], self.ended, 0.25)


def ask(engine: Any) -> list[Prediction]:
    return predict(engine, tiny.dialogues(), tiny.SYSTEM, 200, "test")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe in an empty folder: learned-by-heart adapter on a random base, three test calls."""
    monkeypatch.chdir(tmp_path)
    write_dialogues(Path("calls/test.jsonl"), tiny.dialogues())
    made = Recipe(
        name="tiny",
        base=str(tiny.untaught("llama3").base_dir),
        template="llama3",
        data=Data(folder="calls", system=tiny.SYSTEM),
        evaluate=Evaluate(max_new_tokens=200),
    )
    made.run.root.mkdir(parents=True)
    made.run.adapter_dir.symlink_to(tiny.adapter("llama3"))
    made.export_dir.mkdir(parents=True)
    (made.export_dir / "tiny-F16.gguf").symlink_to(tiny.gguf("llama3"))
    return made


def refuse(*arguments: Any, **settings: Any) -> None:
    raise AssertionError("a model was loaded")


def test_right_answers_are_read_in_order() -> None:
    found = ask(Spoken(RIGHT))
    assert [(o.id, o.gold, o.predicted) for o in found] == list(zip("abc", GOLD, SAID, strict=True))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "bla " * 500,
        "```json" * 50,
        "```json\n{" + '"a":{' * 5000 + "\n```",
        "```json\n[[[[]]]]\n```",
        '```json\n{"urgency": "U9"}\n```',
        RIGHT[0].replace("cardiologie", "astrologie"),
        "\ufffd\x00\x1b[2J",
    ],
)
def test_useless_answer_is_a_failure_and_no_traceback(text: str) -> None:
    found = ask(Spoken([text, RIGHT[1], RIGHT[2]]))
    assert [o.predicted for o in found] == [None, *SAID[1:]]


def test_answer_that_did_not_end_is_a_failure_even_with_a_block() -> None:
    assert [o.predicted for o in ask(Spoken(RIGHT, ended=False))] == [None] * 3


def test_base_adapter_and_gguf_are_measured(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    report = stage.evaluate(recipe, threads=1)
    names = ["base", "adapter", "tiny-F16.gguf", "adapter + rules", "tiny-F16.gguf + rules", "rules"]
    assert list(report["models"]) == names
    figures = {name: (m["format_valid"], m["specialty_macro_f1"], m["emergency_recall"]) for name, m in report["models"].items()}
    assert [figures[name] for name in names[:3]] == [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)]
    assert report["main"] == "adapter" and report["rivals_that_win"] == []
    assert report["test"]["dialogues"] == 3
    assert json.loads((recipe.run.evaluation_dir / "metrics.json").read_text("utf-8")) == json.loads(json.dumps(report))
    printed = capsys.readouterr().out
    assert "emergency" in printed and "F16 + rules" in printed and "3 calls of calls/test.jsonl" in printed


def test_predictions_hold_labels_and_no_words(recipe: Recipe) -> None:
    stage.evaluate(recipe, ["adapter"])
    text = (recipe.run.evaluation_dir / "predictions-adapter.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["id"] for row in rows] == ["a", "b", "c"]
    assert [set(row) for row in rows] == [{*Prediction.model_fields, "key"}] * 3
    assert (rows[0]["predicted"]["urgency"], rows[0]["predicted"]["specialty"]) == ("U1", "cardiologie")
    for dialogue in tiny.dialogues():
        assert not any(turn.text[:12] in text for turn in dialogue.turns)


def test_second_run_reads_what_the_first_one_wrote(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    first = stage.evaluate(recipe, threads=1)
    for load in ("load_base", "load_adapter", "open_side_by_side"):
        monkeypatch.setattr(candidates, load, refuse)
    assert stage.evaluate(recipe, threads=1) == first


@pytest.mark.parametrize("change", ["test file", "model", "setting"])
def test_predictions_are_made_anew_when_anything_changed(change: str, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    file = "export/tiny/tiny-F16.gguf"
    stage.evaluate(recipe, [file], threads=1)
    monkeypatch.setattr(candidates, "open_side_by_side", refuse)
    if change == "test file":
        write_dialogues(Path("calls/test.jsonl"), tiny.dialogues()[:2])
    elif change == "model":
        content = Path(file).read_bytes()
        Path(file).unlink()
        Path(file).write_bytes(content + bytes(32))
    else:
        recipe = recipe.model_copy(update={"evaluate": Evaluate(max_new_tokens=199)})
    with pytest.raises(AssertionError, match="a model was loaded"):
        stage.evaluate(recipe, [file], threads=1)


def test_models_that_are_there_are_the_default(recipe: Recipe) -> None:
    assert candidates.default_models(recipe) == ["base", "adapter", "export/tiny/tiny-F16.gguf"]
    recipe.run.adapter_dir.unlink()
    (recipe.export_dir / "tiny-F16.gguf").unlink()
    assert candidates.default_models(recipe) == ["base"]


@pytest.mark.parametrize("model", ["bse", "nowhere.gguf", "calls/test.jsonl"])
def test_unknown_model_is_refused(model: str, recipe: Recipe) -> None:
    with pytest.raises(CheckpointError, match=f"model '{model}' is none of base, adapter"):
        stage.evaluate(recipe, [model])


def test_two_files_of_one_name_are_refused_and_a_model_named_twice_is_asked_once(recipe: Recipe) -> None:
    file, other = recipe.export_dir / "tiny-F16.gguf", Path("tiny-F16.gguf")
    assert [c.name for c in candidates.find_candidates(recipe, ["base", str(file), str(file)])] == ["base", file.name]
    other.write_bytes(b"another model")
    with pytest.raises(CheckpointError, match=r"'tiny-F16.gguf' and another one are both called tiny-F16.gguf; rename"):
        candidates.find_candidates(recipe, [str(file), str(other)])


def test_a_model_that_is_another_by_now_leaves_the_table(recipe: Recipe) -> None:
    file = recipe.export_dir / "tiny-F16.gguf"
    stage.evaluate(recipe, ["base", str(file)])
    file.unlink()
    facts, test, validation = stage.read_sets(recipe)
    assert [kept.name for kept in stage.kept_models(recipe, facts, test, validation)] == ["base", "tiny-F16.gguf"]  # only gone
    file.write_bytes(b"exported anew")
    assert [kept.name for kept in stage.kept_models(recipe, facts, test, validation)] == ["base"]


def test_who_passed_beside_the_rules_is_told_so_where_none_run(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    file = recipe.export_dir / "tiny-F16.gguf"
    places = ["--models-dir", "models", "--settings", "GPT4All.ini", "--dry-run"]
    for beside in (True, False):
        write_gate([recipe.export_dir], "0" * 64, {file.name: Judged(True, sha256(file), (), beside)})
        assert main(["install-gpt4all", str(file), *places]) == 0
        assert ("passed its gate beside the rules, which GPT4All does not run" in capsys.readouterr().out) == beside


def test_adapter_that_is_not_trained_is_refused(recipe: Recipe) -> None:
    recipe.run.adapter_dir.unlink()
    with pytest.raises(CheckpointError, match="llmft sft"):
        stage.evaluate(recipe, ["adapter"])


def test_truncated_gguf_is_refused_and_earlier_figures_stay(recipe: Recipe) -> None:
    content = tiny.gguf("llama3").read_bytes()
    (recipe.export_dir / "tiny-F16.gguf").unlink()
    (recipe.export_dir / "tiny-F16.gguf").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="is damaged"):
        stage.evaluate(recipe)
    kept = json.loads((recipe.run.evaluation_dir / "metrics.json").read_text("utf-8"))
    assert [name for name, entry in kept["models"].items() if entry["kind"] == "model"] == ["base", "adapter"]


def test_models_measured_before_stay_in_the_table_and_those_of_another_test_go(recipe: Recipe) -> None:
    stage.evaluate(recipe, ["adapter"])
    assert [n for n, m in stage.evaluate(recipe, ["base"])["models"].items() if m["kind"] == "model"] == ["base", "adapter"]
    write_dialogues(Path("calls/test.jsonl"), tiny.dialogues()[:2])
    assert [n for n, m in stage.evaluate(recipe, ["base"])["models"].items() if m["kind"] == "model"] == ["base"]


def test_test_calls_are_taken_evenly_and_in_order(tmp_path: Path) -> None:
    path, dialogue = tmp_path / "test.jsonl", tiny.dialogues()[0]
    write_dialogues(path, [dialogue.model_copy(update={"id": f"d{n}"}) for n in range(10)])
    assert [d.id for d in read_test_calls(path, 4)] == ["d0", "d2", "d5", "d7"]
    assert [d.id for d in read_test_calls(path, 10)] == [d.id for d in read_test_calls(path, 99)] == [f"d{n}" for n in range(10)]


def test_guesses_are_taught_by_the_first_training_answers(tmp_path: Path) -> None:
    path, dialogue = tmp_path / "train.jsonl", tiny.dialogues()[0]
    assert candidates.trained_answers(path) == []
    write_dialogues(path, [dialogue.model_copy(update={"id": f"d{n}"}) for n in range(candidates.TAUGHT_ANSWERS + 2)])
    assert candidates.trained_answers(path) == [dialogue.turns[-1].text] * candidates.TAUGHT_ANSWERS


def test_gold_comes_from_the_last_turn_when_there_are_no_labels(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    write_dialogues(path, [dialogue.model_copy(update={"labels": None}) for dialogue in tiny.dialogues()])
    dialogues = read_test_calls(path, 3)
    assert [o.gold for o in predict(Spoken(RIGHT), dialogues, tiny.SYSTEM, 200, "test")] == SAID


def test_labels_that_the_vocabulary_does_not_know_are_faults_of_the_set(recipe: Recipe) -> None:
    path = Path("calls/test.jsonl")
    path.write_text(path.read_text("utf-8").replace('"specialty": "cardiologie"', '"specialty": "astrologie"'), "utf-8")
    with pytest.raises(DialogueError, match=r"test.jsonl:1: field labels.specialty: not a specialty of knowledge/"):
        stage.evaluate(recipe, ["adapter"])


def test_test_set_without_labels_or_calls_is_refused(tmp_path: Path) -> None:
    path, dialogue = tmp_path / "test.jsonl", tiny.dialogues()[0]
    turns = (dialogue.turns[0], dialogue.turns[1].model_copy(update={"text": "Au revoir."}))
    write_dialogues(path, [dialogue.model_copy(update={"labels": None, "turns": turns})])
    with pytest.raises(DialogueError, match="dialogue a has neither labels nor a triage block"):
        read_test_calls(path, 3)
    path.write_text("")
    with pytest.raises(DialogueError, match="holds no dialogue"):
        read_test_calls(path, 3)


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-30], lambda text: "nonsense\n", lambda text: text + text, lambda text: "\x00"]
)
def test_damaged_predictions_are_not_read(damage: Any, tmp_path: Path) -> None:
    path, found = tmp_path / "predictions.jsonl", ask(Spoken(RIGHT))
    write_predictions(path, "key", found)
    assert read_predictions(path, "key", ["a", "b", "c"]) == found
    assert read_predictions(path, "other", ["a", "b", "c"]) is None
    assert read_predictions(path, "key", ["a", "b"]) is None
    path.write_text(damage(path.read_text("utf-8")), "utf-8")
    assert read_predictions(path, "key", ["a", "b", "c"]) is None

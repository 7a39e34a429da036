"""Judged answers: what is read, what is refused, and that the adapter moves to what was preferred."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_recipe

from llmft.cli import main
from llmft.dialogue import read_dialogues
from llmft.errors import CheckpointError, DialogueError, RecipeError
from llmft.preference import JudgedAnswer, read_judged
from llmft.recipe import load_recipe
from llmft.run import sha256
from llmft.train.model import load_base, load_tokenizer
from llmft.train.preference import Judged, answer_columns, encode_judged, kind_weights, prefer
from llmft.train.sft import sft

WORDS = "zorglub"


def judged_rows(prepared: Path, count: int = 8) -> list[dict]:
    """The operator's own last turn as the correction of a poor answer; every other row has a thumb alone."""
    rows = []
    for number, call in enumerate(read_dialogues(prepared / "train.jsonl")[:count]):
        turns = [{"speaker": turn.speaker, "text": turn.text} for turn in call.turns[:-1]]
        row = {"schema_version": "1", "id": f"j{number}", "lang": call.lang, "turns": turns, "answer": "Je ne sais pas."}
        rows.append({**row, "thumb": "down", "corrected": call.turns[-1].text})
    return rows


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, bases, prepared):
    """A folder with a finished SFT run of two steps."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        sft(load_recipe(tiny_recipe(folder / "recipe.yaml", bases["llama"], "llama", prepared, max_steps=2)))
    return folder


@pytest.fixture()
def make(tmp_path, monkeypatch, trained, prepared):
    """A recipe whose SFT is done, with a ``prefer`` section."""
    work = shutil.copytree(trained, tmp_path / "work")
    monkeypatch.chdir(work)

    def recipe(rows: list[dict], **section: object):
        values = json.loads((work / "recipe.yaml").read_text())
        settings = {"file": str(write(work / "judged.jsonl", rows)), "learning_rate": 1e-2, "epochs": 3.0, **section}
        (work / "recipe.yaml").write_text(json.dumps({**values, "prefer": settings}))
        return load_recipe(work / "recipe.yaml")

    return recipe


def log_probabilities(recipe, adapter_dir: Path, examples: list[Judged]) -> list[list[float]]:
    """Of each answer of each example, summed over its tokens."""
    import torch
    from peft import PeftModel

    model = PeftModel.from_pretrained(load_base(recipe), str(adapter_dir)).eval()
    found = []
    for example in examples:
        found.append([])
        for answer in example.answers:
            ids = torch.tensor([[*example.prompt_ids, *answer]])  # (1, tokens)
            with torch.no_grad():
                logits = model(input_ids=ids).logits[0, :-1].float()
            start = len(example.prompt_ids)
            said = torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None])[start - 1 :]
            found[-1].append(float(said.sum()))
    return found


def test_dpo_raises_the_corrected_answer_over_the_one_that_was_given(make, prepared):
    recipe = make(judged_rows(prepared))
    examples, refused = encode_judged(read_judged(Path(recipe.prefer.file)), load_tokenizer(recipe), recipe)
    assert len(examples) == 8 and not refused
    adapter = prefer(recipe)
    assert adapter == Path("runs/tiny-preferred/adapter")
    before, after = (log_probabilities(recipe, folder, examples) for folder in (recipe.run.adapter_dir, adapter))
    for (better, worse), (better_now, worse_now) in zip(before, after, strict=True):
        assert better_now > better and better_now - worse_now > better - worse
    made = json.loads(Path("runs/tiny-preferred/manifest.json").read_text())
    assert made["judged"] == {"answers": 8, "refused": 0} and made["method"] == "dpo" and made["seen"]["steps"] == 6


def test_kto_learns_from_thumbs_alone(make, prepared):
    rows = judged_rows(prepared)
    good = [{**row, "id": f"g{row['id']}", "answer": row["corrected"], "thumb": "up", "corrected": None} for row in rows]
    bad = [{**row, "corrected": None} for row in rows[:4]]
    recipe = make([*good, *bad], method="kto")
    examples, _ = encode_judged(read_judged(Path(recipe.prefer.file)), load_tokenizer(recipe), recipe)
    adapter = prefer(recipe)
    before, after = (log_probabilities(recipe, folder, examples) for folder in (recipe.run.adapter_dir, adapter))
    gains = {
        kind: [now[0] - then[0] for now, then, e in zip(after, before, examples, strict=True) if e.good is kind]
        for kind in (True, False)
    }
    assert len(gains[True]) == 8 and len(gains[False]) == 4
    assert sum(gains[True]) / 8 > 0 and sum(gains[True]) / 8 > sum(gains[False]) / 4


def test_it_starts_exactly_where_sft_ended_and_the_base_and_sft_stay(make, prepared, bases):
    recipe = make(judged_rows(prepared), learning_rate=1e-30)
    start = recipe.run.adapter_dir / "adapter_model.safetensors"
    before, base = sha256(start), {path.name: sha256(path) for path in bases["llama"].iterdir()}
    adapter = prefer(recipe)
    assert sha256(start) == before and {path.name: sha256(path) for path in bases["llama"].iterdir()} == base
    from safetensors.torch import load_file

    weights, made = load_file(start), load_file(adapter / "adapter_model.safetensors")
    assert weights.keys() == made.keys() and all(weights[name].equal(made[name]) for name in weights)  # not rounded
    course = [json.loads(line) for line in Path("runs/tiny-preferred/metrics.jsonl").read_text().splitlines()]
    assert all(entry["loss"] == pytest.approx(0.693147, abs=1e-4) for entry in course)  # log 2: no drift from the reference


def test_a_resumed_run_ends_as_an_undisturbed_one(make, prepared):
    recipe = make(judged_rows(prepared))
    adapter = prefer(recipe) / "adapter_model.safetensors"
    expected, course = sha256(adapter), Path("runs/tiny-preferred/metrics.jsonl").read_bytes()
    shutil.rmtree("runs/tiny-preferred/adapter")
    shutil.rmtree("runs/tiny-preferred/checkpoints/checkpoint-6")
    prefer(recipe, resume=True)
    assert sha256(adapter) == expected and Path("runs/tiny-preferred/metrics.jsonl").read_bytes() == course


def test_what_is_trained_is_the_answer_and_its_end(make, prepared):
    recipe = make(judged_rows(prepared, 1))
    tokenizer = load_tokenizer(recipe)
    (pair,), _ = encode_judged(read_judged(Path(recipe.prefer.file)), tokenizer, recipe)
    row = judged_rows(prepared, 1)[0]
    assert [tokenizer.decode(answer) for answer in pair.answers] == [f"{row[key]}<|eot_id|>" for key in ("corrected", "answer")]
    assert tokenizer.decode(pair.prompt_ids).endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")


def test_thumbs_alone_are_refused_by_dpo_and_named(make, prepared):
    rows = judged_rows(prepared, 3)
    prefer(make([rows[0], rows[1], {**rows[2], "corrected": None}]))
    (line,) = Path("runs/tiny-preferred/refused.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == "j2" and "prefer.method=kto learns from thumbs" in line
    with pytest.raises(DialogueError, match="all 1 judged answers were refused; the first: no corrected answer"):
        prefer(make([{**rows[2], "corrected": None}]), force=True)


def test_one_kind_of_thumb_is_refused_by_kto(make, prepared):
    rows = [{**row, "corrected": None} for row in judged_rows(prepared, 3)]
    with pytest.raises(DialogueError, match="all 3 judged answers are bad, and kto learns from both kinds"):
        prefer(make(rows, method="kto"))


def test_an_adapter_of_another_base_is_refused(make, prepared):
    recipe = make(judged_rows(prepared))
    made = json.loads(recipe.run.manifest_path.read_text())
    recipe.run.manifest_path.write_text(json.dumps({**made, "base_sha256": "0" * 64}))
    with pytest.raises(CheckpointError, match="was trained on another base than"):
        prefer(recipe)
    shutil.rmtree(recipe.run.adapter_dir)
    with pytest.raises(CheckpointError, match="holds no finished adapter to go on from; train it with: llmft sft"):
        prefer(recipe)


def test_judged_answers_that_changed_since_are_refused(make, prepared):
    prefer(make(judged_rows(prepared, 4)))
    with pytest.raises(DialogueError, match="judged.jsonl has changed since runs/tiny-preferred was begun"):
        prefer(make(judged_rows(prepared, 5)), resume=True)


def test_the_verb_needs_a_file(make, prepared, capsys):
    with pytest.raises(RecipeError, match="has no prefer.file"):
        prefer(make(judged_rows(prepared), file=None))
    make(judged_rows(prepared, 2), epochs=1.0)
    assert main(["prefer", "recipe.yaml"]) == 0
    assert "adapter: runs/tiny-preferred/adapter" in capsys.readouterr().out


GOOD = {
    "schema_version": "1", "id": "a", "lang": "fr", "turns": [{"speaker": "patient", "text": WORDS}],
    "answer": WORDS, "thumb": "up",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"thumb": None}, "neither thumb nor corrected"),
        ({"corrected": "Oui."}, "corrected stands beside thumb up"),
        ({"thumb": "down", "corrected": WORDS}, "corrected equals the answer"),
        ({"answer": "  "}, "field answer: the text is blank"),
        ({"thumb": "sideways"}, "field thumb"),
        ({"turns": []}, "field turns"),
        ({"turns": [{"speaker": "operator", "text": WORDS}]}, "the last turn must be the patient's"),
        ({"turns": [GOOD["turns"][0]] * 2}, "two turns of one speaker in a row"),
        ({"id": WORDS + " " + WORDS}, "field id"),
        ({f"{WORDS} {WORDS} !": 1}, "judged.jsonl:2:"),
    ],
)
def test_a_bad_line_is_named_without_its_words(tmp_path, change, sentence):
    path = write(tmp_path / "judged.jsonl", [{**GOOD, "id": "first"}, {**GOOD, **change}])
    with pytest.raises(DialogueError) as refused:
        read_judged(path)
    assert str(refused.value).startswith("judged.jsonl:2:") and WORDS not in str(refused.value)
    assert sentence in str(refused.value)


def test_repeated_ids_no_lines_and_no_file_are_sentences(tmp_path):
    with pytest.raises(DialogueError, match="judged.jsonl:2: field id: the id appeared on an earlier line"):
        read_judged(write(tmp_path / "judged.jsonl", [GOOD, GOOD]))
    with pytest.raises(DialogueError, match="holds no judged answer"):
        read_judged(write(tmp_path / "judged.jsonl", []))
    with pytest.raises(DialogueError, match="cannot be read: .*; name another file with prefer.file="):
        read_judged(tmp_path / "none.jsonl")


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_in_a_sentence(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text(text, "utf-8", errors="surrogateescape" if text.isascii() else "replace")
    with pytest.raises(DialogueError):
        read_judged(path)


def test_each_prompt_meets_its_neighbours_answer_within_the_batch():
    answers = [Judged(str(number), [number], ([10 + number],), good=number % 2 == 0) for number in range(5)]
    columns = answer_columns(answers, batch=2)
    assert columns["completion_ids"] == [[10], [11], [12], [13], [14]]
    assert columns["KL_completion_ids"] == [[11], [10], [13], [12], [14]]
    assert columns["label"] == [True, False, True, False, True]
    assert kind_weights(answers) == {"desirable_weight": 1.0, "undesirable_weight": 1.5}
    assert kind_weights(answers[1:4]) == {"desirable_weight": 2.0, "undesirable_weight": 1.0}


def test_a_whole_row_is_read(tmp_path):
    (found,) = read_judged(write(tmp_path / "judged.jsonl", [GOOD]))
    assert isinstance(found, JudgedAnswer) and found.answered("Oui.").turns[-1].text == "Oui."

"""Long dialogues are refused or split between turns; every token is accounted for, and none is cut in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import dialogue
from tiny_zoo import TOKENIZERS, save_zoo_base, zoo_tokenizer

from llmft.dialogue import read_dialogues, write_dialogues
from llmft.errors import DialogueError, PromptError
from llmft.prompt import IGNORE, encode
from llmft.recipe import load_recipe
from llmft.train.lengths import LongDialogue, length_facts, length_sentence, split_dialogue
from llmft.train.rows import encode_rows
from llmft.train.sft import sft

SYSTEM = "Vous aidez."
words = st.lists(st.sampled_from(["mal", "depuis", "hier", "où", "toux", "é", "\n", "39"]), min_size=1, max_size=12).map(" ".join)
turns = st.lists(words.filter(str.strip), min_size=2, max_size=14)


def answers_of(ids: list[int], labels: list[int]) -> list[list[int]]:
    """The labelled tokens of each answer."""
    runs: list[list[int]] = [[]]
    for token, label in zip(ids, labels, strict=True):
        if label == IGNORE:
            runs.append([])
        else:
            runs[-1].append(token)
    return [run for run in runs if run]


def recipe_of(base: Path, prepared: Path, template: str = "llama3", **train: object):
    settings = {"max_steps": 1, "batch_dialogues": 4, "threads": 1, **train}
    recipe = {"name": "long", "base": str(base), "template": template, "data": {"folder": str(prepared)}, "train": settings}
    Path("recipe.yaml").write_text(json.dumps(recipe))
    return load_recipe(Path("recipe.yaml"))


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=25)
@given(said=turns, room=st.integers(0, 120), system=st.sampled_from([None, SYSTEM]))
def test_the_parts_hold_every_answer_once_and_fit(name, said, room, system):
    tokenizer = zoo_tokenizer(name)
    call = dialogue(*said[: len(said) // 2 * 2])
    longest = max(
        len(encode(call.model_copy(update={"turns": call.turns[place : place + 2]}), tokenizer, system).input_ids)
        for place in range(0, len(call.turns), 2)
    )
    parts = split_dialogue(call, tokenizer, system, longest + room)
    whole = encode(call, tokenizer, system)
    assert [run for part in parts for run in answers_of(part.input_ids, part.labels)] == answers_of(whole.input_ids, whole.labels)
    assert all(len(part.input_ids) <= longest + room for part in parts)
    assert [part.id for part in parts] == [f"d1#{number}" for number in range(1, len(parts) + 1)]
    assert all(tokenizer.decode(part.input_ids).count(SYSTEM) == (system is not None) for part in parts)
    if len(whole.input_ids) <= longest + room:
        assert [part.input_ids for part in parts] == [whole.input_ids]
    with pytest.raises(PromptError, match=r"turn \d+ and the one before it have \d+ tokens, more than .* no turn is cut"):
        split_dialogue(call, tokenizer, system, longest - 1)


def test_no_part_could_have_taken_more():
    tokenizer = zoo_tokenizer("llama3")
    call = dialogue(*["mal au dos", "Depuis quand ?"] * 9)
    exchange = [len(encode(dialogue(*["mal au dos", "Depuis quand ?"] * count), tokenizer, SYSTEM).input_ids) for count in (1, 4)]
    assert [len(part.input_ids) for part in split_dialogue(call, tokenizer, SYSTEM, exchange[1])] == [
        exchange[1],
        exchange[1],
        exchange[0],
    ]


def test_a_call_that_the_operator_opens_keeps_its_first_answer():
    tokenizer = zoo_tokenizer("gemma")
    call = dialogue("x", "Bonjour, le SAMU", "mal au dos", "Depuis quand ?")
    call = call.model_copy(update={"turns": call.turns[1:]})
    size = len(encode(call, tokenizer, SYSTEM).input_ids)
    first, second = split_dialogue(call, tokenizer, SYSTEM, size - 1)
    assert tokenizer.decode(answers_of(first.input_ids, first.labels)[0]) == "Bonjour, le SAMU<end_of_turn>"
    assert tokenizer.decode(answers_of(second.input_ids, second.labels)[0]) == "Depuis quand ?<end_of_turn>"


@pytest.fixture()
def base(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return save_zoo_base("llama-3.1", tmp_path / "base")


@pytest.mark.parametrize("policy", ["refuse", "split"])
def test_the_run_says_what_each_policy_touched(base, prepared, policy, capsys):
    tokenizer = zoo_tokenizer("llama3")
    calls = read_dialogues(prepared / "train.jsonl")
    recipe = recipe_of(base, prepared)
    sizes = {call.id: len(encode(call, tokenizer, recipe.data.system).input_ids) for call in calls}
    limit = sorted(sizes.values())[len(sizes) // 2]
    recipe = recipe_of(base, prepared, max_tokens=limit, long_dialogues=policy)
    over = {name: size for name, size in sizes.items() if size > limit}
    rows = encode_rows(calls, tokenizer, recipe)
    sft(recipe)
    told = json.loads(Path("runs/long/manifest.json").read_text())["rows"]["train"]
    refused = {entry["id"] for entry in map(json.loads, Path("runs/long/refused.jsonl").read_text().splitlines())}
    nothing = {"dialogues": 0, "tokens": 0}
    error = capsys.readouterr().err
    assert over and told["tokens"] == rows.tokens and told["rows"] == len(rows.encoded)
    if policy == "refuse":
        touched = {"dialogues": len(over), "tokens": sum(over.values())}
        assert told["too_long"] == {"refused": touched, "split": {**nothing, "rows": 0}}
        assert set(over) <= refused and told["dialogues"] == len(calls) - len(over)
        assert f"train: {len(over)} dialogues have more than train.max_tokens = {limit} tokens: {len(over)} refused" in error
    else:
        parts = [row for row in rows.encoded if "#" in row.id]
        touched = {"dialogues": len(over), "tokens": sum(over.values()), "rows": len(parts)}
        assert told["too_long"] == {"refused": nothing, "split": touched} and not set(over) & refused
        assert told["dialogues"] == len(calls) and max(len(row.input_ids) for row in rows.encoded) <= limit
        assert f"{len(over)} split into {len(parts)} rows" in error


def test_nothing_is_said_when_everything_fits():
    assert length_sentence("train", [], 100) == ""
    sentence = length_sentence("test", [LongDialogue("a", 2000), LongDialogue("b", 1500, rows=3)], 1000)
    assert sentence.endswith("1000 tokens: 1 refused (2,000 tokens), 1 split into 3 rows (1,500 tokens)")
    assert length_facts([])["split"] == {"dialogues": 0, "tokens": 0, "rows": 0}


def test_an_exchange_that_is_too_long_is_refused_under_split_too(base, prepared):
    recipe = recipe_of(base, prepared, max_tokens=30, long_dialogues="split")
    rows = encode_rows([dialogue("mal " * 60, "Depuis quand ?", name="call-7")], zoo_tokenizer("llama3"), recipe)
    assert rows.encoded == [] and [name for name, _ in rows.refused] == ["call-7"]
    assert "turn 1 and the one before it have" in rows.refused[0][1] and "mal" not in rows.refused[0][1].replace("max", "")
    assert rows.facts()["dialogues"] == 0 and rows.long == [LongDialogue("call-7", rows.long[0].tokens)]


def test_when_all_are_refused_the_run_stops(base, prepared):
    with pytest.raises(DialogueError, match="all 40 training dialogues were refused"):
        sft(recipe_of(base, prepared, max_tokens=5, long_dialogues="split"))


def test_the_trainer_cuts_nothing_itself(base, tmp_path):
    """TRL's own limit is 1,024 tokens: of this call it would leave no answer."""
    import torch
    from peft import PeftModel

    from llmft.train.model import load_base

    call = dialogue("mal au dos " * 400, "Depuis quand ?")
    for split in ("train", "validation"):
        write_dialogues(tmp_path / "data" / f"{split}.jsonl", [call])
    recipe = recipe_of(base, tmp_path / "data", max_tokens=4096)
    adapter_dir = sft(recipe)
    row = encode(call, zoo_tokenizer("llama3"), recipe.data.system)
    assert [place for place, label in enumerate(row.labels) if label != IGNORE][0] > 1024
    model = PeftModel.from_pretrained(load_base(recipe), adapter_dir).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1].float()  # (tokens, vocabulary)
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(row.labels[1:]), ignore_index=IGNORE)
    course = [json.loads(line) for line in Path("runs/long/metrics.jsonl").read_text().splitlines()]
    reported = next(entry["eval_loss"] for entry in course if "eval_loss" in entry)
    assert reported == pytest.approx(float(expected), rel=2e-3)

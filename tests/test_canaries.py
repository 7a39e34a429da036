"""Canaries are planted as they say, de-identification takes them out, and the attack finds what was learnt."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_engine as tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.canaries import KINDS, REPEATS, Canary, deidentified, invent, plant, read_canaries, write_canaries
from llmft.dialogue import Dialogue, Turn, write_dialogues
from llmft.engine.parallel_llama import ParallelLlama, open_parallel
from llmft.engine.scoring import Scorer
from llmft.engine.torch_model import load_base
from llmft.errors import BackendError
from llmft.evaluate.privacy.extraction import CANDIDATES, attack, ids_at
from llmft.evaluate.privacy.rows import auc, min_k, runs
from llmft.evaluate.privacy.stage import attack_models, canary_figures
from llmft.prepare.synthetic.synthesize import synthesize
from llmft.prompt import encode
from llmft.recipe import Data, Evaluate, Recipe, Train
from llmft.train.canaries import with_canaries

CALLS = [call for call in synthesize(150, 5) if call.split == "train"]


def texts(dialogues: list[Dialogue]) -> str:
    return "\n".join(turn.text for dialogue in dialogues for turn in dialogue.turns)


@pytest.mark.parametrize("count", [0, 1, 6, 9])
def test_canaries_stand_as_often_as_they_say(count: int) -> None:
    planted, canaries = plant(CALLS, count, 3)
    assert [call.id for call in planted] == [call.id for call in CALLS]
    assert len(canaries) == 2 * count and [c.repeats == 0 for c in canaries] == [False] * count + [True] * count
    whole = texts(planted)
    by_id = {call.id: call for call in planted}
    for canary in canaries:
        assert whole.count(canary.secret) == canary.repeats and canary.repeats in (0, *REPEATS)
        for place in canary.places[: canary.repeats]:
            turn = by_id[place.call].turns[place.turn]
            assert (turn.speaker, turn.text) == (canary.speaker, f"{place.before} {canary.secret}.")
    hosts = [place.call for canary in canaries for place in canary.places]
    assert len(hosts) == len(set(hosts))  # no call holds two
    assert [call for call in planted if call.id not in set(hosts)] == [call for call in CALLS if call.id not in set(hosts)]
    assert plant(CALLS, count, 3) == (planted, canaries) and (count == 0 or plant(CALLS, count, 4)[1] != canaries)


def test_too_few_calls_plant_less_and_say_so() -> None:
    planted, canaries = plant(CALLS[:10], 18, 1)
    assert sum(max(canary.repeats, 1) for canary in canaries) <= 10
    assert all(texts(planted).count(canary.secret) == canary.repeats for canary in canaries)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(KINDS))
def test_invented_secrets_have_their_form(seed: int, kind: str) -> None:
    from stdnum.fr import nir

    secret = invent(kind, random.Random(seed))  # type: ignore[arg-type]
    if kind == "nir":
        assert nir.is_valid(secret.replace(" ", ""))
    elif kind == "phone":
        assert secret.startswith("06 39 98 ") and len(secret) == 14
    else:
        assert len(secret.split()) == 2 and secret.istitle()


def test_deidentification_takes_every_canary_out() -> None:
    planted, canaries = plant(CALLS, 9, 3)
    left = texts(deidentified(planted, canaries))
    assert [canary.secret for canary in canaries if canary.secret in left] == []
    assert "[TEL" in left and "[NIR" in left


def test_canaries_are_kept_and_read(tmp_path: Path) -> None:
    _, canaries = plant(CALLS, 6, 3)
    write_canaries(tmp_path / "canaries.json", canaries)
    assert read_canaries(tmp_path / "canaries.json") == canaries and read_canaries(tmp_path / "none.json") == []


def test_training_plants_what_the_recipe_wants(tmp_path: Path) -> None:
    recipe = Recipe(name="r", base="./b", template="llama3", data=Data(folder="d"), runs=str(tmp_path))
    calls = CALLS[:60]
    assert with_canaries(recipe, calls) is calls and not recipe.run.canaries_path.exists()
    wanted = recipe.model_copy(update={"train": Train(canaries=6)})
    raw = with_canaries(wanted, calls)
    canaries = read_canaries(wanted.run.canaries_path)
    assert raw == plant(calls, 6, wanted.train.seed)[0] and len(canaries) == 12
    clean = with_canaries(recipe.model_copy(update={"train": Train(canaries=6, canary_calls="deidentified")}), calls)
    assert not any(canary.secret in texts(clean) for canary in canaries)


# A tiny model that has learnt one call by heart gives its secret away; one that has not does not.
HOST = tiny.dialogues()[0].model_copy(
    update={
        "turns": (
            Turn(speaker="patient", text="J'ai mal au cœur."),
            Turn(speaker="operator", text="Bien."),
            Turn(speaker="patient", text="Oui."),
            tiny.dialogues()[0].turns[-1],
        )
    }
)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Scorer, ParallelLlama, list[Canary]]]:
    """Torch and llama.cpp over a model that was taught two planted calls, all of their tokens."""
    import torch
    from transformers import AutoModelForCausalLM

    from llmft.export.writer import export_file

    hosts = [HOST.model_copy(update={"id": f"h{number}"}) for number in range(12)]
    planted, canaries = plant(hosts, 4, 1)
    taught = [c for c in canaries if c.repeats]
    words, folder = tiny.tokenizer("llama3"), tmp_path_factory.mktemp("canaries") / "base"
    calls = {call.id: call for call in planted}
    rows = [encode(calls[place.call], words, tiny.SYSTEM) for canary in taught for place in canary.places[:1]]
    torch.manual_seed(2)
    model = AutoModelForCausalLM.from_config(tiny.config("llama3", len(words)))
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    with tiny.one_thread():
        for step in range(240):
            ids = torch.tensor([rows[step % len(rows)].input_ids])
            optimiser.zero_grad()
            model(ids, labels=ids).loss.backward()
            optimiser.step()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    engine = open_parallel(export_file(folder, None, folder.parent / "c.gguf", "F16", threads=1), slots=32, threads=1)
    yield load_base(str(folder), "llama3").scorer(), engine, canaries
    engine.close()


def test_what_was_learnt_by_heart_is_extracted(learned: tuple[Scorer, ParallelLlama, list[Canary]]) -> None:
    torch_scorer, engine, canaries = learned
    calls = {f"h{number}": HOST.model_copy(update={"id": f"h{number}"}) for number in range(12)}
    for scorer in (torch_scorer, engine.scorer()):
        attacks = [found for canary in canaries if (found := attack(scorer, canary, calls, tiny.SYSTEM, 1))]
        figures = canary_figures(attacks)
        assert len(attacks) == len(canaries) and figures["controls_extracted"] == 0
        assert figures["canary_extraction"] >= 0.5
        assert figures["exposure_most"] == figures["exposure_possible"] == 8
        assert figures["exposure_control"] < 6
        assert figures["canary_membership_auc"] > 0.8


def test_model_that_knows_nothing_gives_nothing_away() -> None:
    scorer = load_base(str(tiny.untaught("llama3").base_dir), "llama3").scorer()
    _, canaries = plant([HOST.model_copy(update={"id": f"h{number}"}) for number in range(12)], 4, 1)
    calls = {f"h{number}": HOST.model_copy(update={"id": f"h{number}"}) for number in range(12)}
    attacks = [found for canary in canaries if (found := attack(scorer, canary, calls, tiny.SYSTEM, 1))]
    assert canary_figures(attacks)["canaries_extracted"] == 0
    assert attack(scorer, canaries[0], {}, tiny.SYSTEM, 1) is None
    assert canary_figures([]) == {"canaries": 0}


@pytest.mark.parametrize("speaker", ["operator", "patient"])
def test_place_is_that_of_the_training_row(speaker: str, learned: tuple[Scorer, ParallelLlama, list[Canary]]) -> None:
    scorer, _, canaries = learned
    canary = next(c for c in canaries if c.speaker == speaker and c.repeats)
    planted, _ = plant([HOST.model_copy(update={"id": f"h{n}"}) for n in range(12)], 4, 1)
    call = next(call for call in planted if call.id == canary.places[0].call)
    row = encode(call, tiny.tokenizer("llama3"), tiny.SYSTEM).input_ids
    prefix, (secret, _) = ids_at(scorer, call, canary.places[0], speaker, [canary.secret, "Zz Zz"], tiny.SYSTEM)
    assert row[: len(prefix) + len(secret)] == [*prefix, *secret]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_auc_counts_pairs(members: list[int], others: list[int]) -> None:
    pairs = [(a > b) + (a == b) / 2 for a in members for b in others]
    assert auc([float(a) for a in members], [float(b) for b in others]) == pytest.approx(sum(pairs) / len(pairs), abs=1e-9)
    assert auc([], [1.0]) is None


def test_min_k_is_the_mean_of_the_least_likely() -> None:
    assert min_k(np.array([-1.0, -9.0, -2.0, -3.0, -4.0, -5.0, -1.0, -7.0, -1.0, -1.0])) == -8.0
    assert min_k(np.array([-3.0])) == -3.0


def test_runs_are_all_of_their_length() -> None:
    assert runs([[1, 2, 3], [9]], 2) == {(1, 2), (2, 3)}


def recipe_of(folder: Path) -> Recipe:
    made = Recipe(
        name="tiny",
        base=str(tiny.untaught("llama3").base_dir),
        template="llama3",
        data=Data(folder="calls", system=tiny.SYSTEM),
        evaluate=Evaluate(max_new_tokens=200),
    )
    for split in ("train", "test"):
        write_dialogues(folder / "calls" / f"{split}.jsonl", [HOST] if split == "train" else tiny.dialogues())
    return made


def test_figures_are_written_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = recipe_of(tmp_path)
    found = attack_models(recipe, [str(tiny.gguf("llama3"))], threads=1)
    (entry,) = found["models"].values()
    assert entry["canaries"] == 0 and entry["answers_searched"] == 3 and 0 <= entry["membership_auc_loss"] <= 1
    assert entry["verbatim_overlap"] == pytest.approx(1 / 3)  # the answer to call a is word for word that of the training
    assert json.loads((recipe.run.evaluation_dir / "privacy.json").read_text("utf-8")) == json.loads(json.dumps(found))
    monkeypatch.setattr("llmft.evaluate.privacy.stage._attacked", lambda *_: pytest.fail("asked again"))
    assert attack_models(recipe, [str(tiny.gguf("llama3"))], threads=1) == found


def test_server_that_is_not_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackendError, match="does not answer"):
        attack_models(recipe_of(tmp_path), ["http://127.0.0.1:9/v1"])
    assert CANDIDATES == 256

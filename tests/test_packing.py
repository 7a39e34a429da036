"""Packed rows do not see each other: the logits are those of each row alone, for every family."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_zoo import ZOO, save_zoo_base

from llmft.errors import CheckpointError
from llmft.recipe import load_recipe
from llmft.train.model import load_base
from llmft.train.packing import LEAK, leak_of, require_isolation
from llmft.train.sft import sft

LENGTHS = (70, 33, 50)  # the first is longer than the tiny models' sliding windows


def model_of(name: str, folder: Path, **options):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(save_zoo_base(name, folder), dtype=torch.float32, **options)
    model.config.use_cache = False
    return model.eval()


@pytest.mark.parametrize("name", ZOO)
def test_packed_logits_are_those_of_each_row_alone(name, tmp_path):
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    model = model_of(name, tmp_path)
    drawn = torch.Generator().manual_seed(1)
    rows = [torch.randint(5, model.config.vocab_size, (length,), generator=drawn) for length in LENGTHS]
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)

    def packed(*parts: torch.Tensor) -> torch.Tensor:
        batch = collate([{"input_ids": part.tolist(), "labels": part.tolist()} for part in parts])
        del batch["labels"]
        return model(**batch).logits[0]  # (tokens, vocabulary)

    with torch.no_grad():
        alone = torch.cat([model(input_ids=row[None]).logits[0] for row in rows])
        together, after_another = packed(*rows), packed(rows[0].flip(0), *rows[1:])
        leaking = model(input_ids=torch.cat(rows)[None]).logits[0]
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4 * float(alone.std()))
    assert torch.equal(together[LENGTHS[0] :], after_another[LENGTHS[0] :])  # not a bit of the row before
    assert (leaking - alone)[LENGTHS[0] :].abs().max() > alone.std()  # so the comparison would have shown it
    assert leak_of(model) == 0.0
    require_isolation(model, "tiny")


def test_an_attention_that_leaks_is_found_by_trying(tmp_path):
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def blind(module, query, key, value, attention_mask, **options):
        """Causal, and no more than that."""
        return sdpa_attention_forward(module, query, key, value, None, **options, is_causal=True)

    AttentionInterface.register("blind", blind)
    AttentionMaskInterface.register("blind", sdpa_mask)
    model = model_of("llama-3.1", tmp_path, attn_implementation="blind")
    assert leak_of(model) > 10 * LEAK
    with pytest.raises(
        CheckpointError, match="base tiny: with blind attention a packed call reads the one before it.*packing=false"
    ):
        require_isolation(model, "tiny")


def test_gptj_with_flash_attention_2_is_refused_with_the_reason():
    model = SimpleNamespace(config=SimpleNamespace(model_type="gptj", _attn_implementation="flash_attention_2"))
    with pytest.raises(CheckpointError, match="GPT-J with flash_attention_2 drops the positions .* set train.packing=false"):
        require_isolation(model, "EleutherAI/gpt-j-6b")


@pytest.mark.parametrize("name", ["llama-3.1", "gpt-j"])
def test_a_packed_run_learns_what_a_padded_one_does(name, tmp_path, prepared, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_zoo_base(name, tmp_path / "base")
    losses = {}
    for packing in (False, True):
        recipe = {
            "name": f"packing-{packing}".lower(),
            "base": str(tmp_path / "base"),
            "template": ZOO[name].template,
            "data": {"folder": str(prepared)},
            "lora": {"rank": 4},
            "train": {"packing": packing, "max_steps": 2, "batch_dialogues": 3, "threads": 1, "max_tokens": 2048},
        }
        Path("recipe.yaml").write_text(json.dumps(recipe))
        run = sft(load_recipe(Path("recipe.yaml"))).parent
        course = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        losses[packing] = [entry[key] for entry in course for key in ("loss", "grad_norm", "eval_loss") if key in entry]
    assert len(losses[True]) == 5
    assert losses[True] == pytest.approx(losses[False], rel=2e-3)  # bfloat16 rounds sums of other lengths elsewhere


def test_the_base_of_a_recipe_is_tried_with_the_attention_that_training_uses(tmp_path, prepared):
    base = save_zoo_base("gemma-2", tmp_path / "base")
    recipe = {"name": "x", "base": str(base), "template": "gemma", "data": {"folder": str(prepared)}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    model = load_base(load_recipe(tmp_path / "recipe.yaml"))
    assert model.config._attn_implementation == "eager"  # SDPA would leave Gemma 2's soft cap out
    assert leak_of(model) == 0.0

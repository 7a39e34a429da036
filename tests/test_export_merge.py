"""Run with: pytest tests/test_export_merge.py"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_export
from gguf import GGUFReader

from llmft.errors import CheckpointError
from llmft.export.adapters.nf4 import nf4_rows
from llmft.export.base.checkpoint import read_header
from llmft.export.file.quants import QUANTS
from llmft.export.sources import Sources, read_sources
from llmft.export.writer import Options, write_files

LINEAR = ["q_proj", "v_proj", "o_proj", "down_proj"]
IDS = [5, 300, 301, 17, 42, 600, 8, 9]
TIED, UNTIED = "qwen-2.5", "llama-2"  # the first has biases
ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "all linear layers": (UNTIED, {}),
    "one layer alone": (UNTIED, {"target_modules": ["q_proj"], "layers_to_transform": [1]}),
    "rank-stabilised, patterns": (
        UNTIED,
        {
            "use_rslora": True,
            "rank_pattern": {"q_proj": 8, "layers.1.mlp.down_proj": 2},
            "alpha_pattern": {"v_proj": 3, r"layers\.0\..*o_proj": 20},
        },
    ),
    "DoRA": (UNTIED, {"use_dora": True}),
    "DoRA, rank-stabilised, embedding and head": (
        UNTIED,
        {"use_dora": True, "use_rslora": True, "target_modules": [*LINEAR, "embed_tokens", "lm_head"]},
    ),
    "all biases": (TIED, {"bias": "all"}),
    "biases of the LoRA's layers": (TIED, {"bias": "lora_only", "target_modules": ["q_proj"]}),
    "biases on B": (TIED, {"lora_bias": True, "target_modules": ["q_proj", "k_proj"]}),
    "saved embedding and head": (UNTIED, {"target_modules": LINEAR, "modules_to_save": ["embed_tokens", "lm_head"]}),
    "saved norms and a linear layer": (
        TIED,
        {"target_modules": LINEAR[:2], "modules_to_save": ["norm", "input_layernorm", "down_proj"]},
    ),
    "saved embedding of a tied pair": (TIED, {"target_modules": LINEAR, "modules_to_save": ["embed_tokens"]}),
    "saved embedding that stays tied": (
        TIED,
        {"target_modules": LINEAR, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    ),
    "saved head of a tied pair": (TIED, {"target_modules": LINEAR, "modules_to_save": ["lm_head"]}),
    "LoRA on embedding and head": (UNTIED, {"target_modules": [*LINEAR, "embed_tokens", "lm_head"]}),
    "LoRA on a tied embedding": (TIED, {"target_modules": [*LINEAR, "embed_tokens"]}),
    "LoRA on a tied embedding, kept tied": (TIED, {"target_modules": ["embed_tokens"], "ensure_weight_tying": True}),
    "LoRA on a tied head": (TIED, {"target_modules": [*LINEAR, "lm_head"]}),
    "trained tokens, tied": (TIED, {"target_modules": LINEAR, "trainable_token_indices": [5, 300]}),
    "trained tokens, untied": (
        UNTIED,
        {"target_modules": LINEAR, "trainable_token_indices": {"embed_tokens": [300, 5], "lm_head": [301]}},
    ),
}
PARTED = {"saved embedding of a tied pair", "saved head of a tied pair", "LoRA on a tied embedding", "LoRA on a tied head"}
RESIZED = {
    "longer vocabulary, tied": (TIED, {"target_modules": LINEAR}),
    "longer vocabulary, untied": (UNTIED, {"target_modules": LINEAR}),
    "longer vocabulary, trained tokens": (UNTIED, {"target_modules": LINEAR, "trainable_token_indices": [905]}),
    "longer vocabulary, LoRA on both": (UNTIED, {"target_modules": [*LINEAR, "embed_tokens", "lm_head"]}),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: tiny_export.save_zoo_base(tmp_path_factory.mktemp(name), name) for name in (TIED, UNTIED)}


def load(base: Path, rows: int | None = None) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if rows is not None:
        model.resize_token_embeddings(rows, mean_resizing=False)
    return model.eval()


def export_f32(base: Path, *adapters: Path, folder: Path, shares: Any = (), **settings: Any) -> tuple[Sources, dict[str, Any]]:
    sources = read_sources(base, adapters, shares, **settings)
    path = folder / "m.gguf"
    write_files(sources, {QUANTS["F32"]: path}, "m", Options(threads=1, force=True))
    return sources, {tensor.name: tensor.data for tensor in GGUFReader(path).tensors}


def check_weights(sources: Sources, found: dict[str, Any], merged: Any, but: tuple[str, ...] = ()) -> None:
    """Every tensor of the file equals the merged model's, heads in their order."""
    assert set(found) == {tensor.name for tensor in sources.model.tensors}
    for tensor in sources.model.tensors:
        if tensor.constant is not None or tensor.name in but:
            continue
        expected = merged[tensor.weight].numpy()
        if tensor.head_order is not None:
            grouped = expected.reshape(-1, len(tensor.head_order), *expected.shape[1:])
            expected = grouped[:, tensor.head_order].reshape(expected.shape)
        assert np.abs(found[tensor.name] - expected).max() <= 2e-6 * max(1.0, np.abs(expected).max()), tensor.name


def check_logits(model: Any, path: Path) -> None:
    """The file's logits equal the unmerged model's."""
    import torch
    from llama_cpp import Llama

    with torch.inference_mode():
        expected = model(torch.tensor([IDS])).logits[0].numpy()
    llm = Llama(str(path), n_ctx=64, logits_all=True, verbose=False, n_threads=1, n_threads_batch=1)
    llm.eval(IDS)
    found = llm.scores[: len(IDS)]
    assert np.abs(found - expected).max() < 3e-3 * np.abs(expected).max()
    assert (found.argmax(1) == expected.argmax(1)).all()


@pytest.mark.parametrize("title", [*ADAPTERS, *RESIZED])
def test_merged_weights_equal_pefts_and_logits_the_unmerged_models(bases: dict[str, Path], tmp_path: Path, title: str) -> None:
    from peft import PeftModel

    family, settings = {**ADAPTERS, **RESIZED}[title]
    rows = 912 if title in RESIZED else None
    adapter = tiny_export.save_adapter_of(tmp_path / "adapter", bases[family], rows=rows, **settings)
    sources, found = export_f32(bases[family], adapter, folder=tmp_path)
    model = PeftModel.from_pretrained(load(bases[family], rows), adapter).eval()
    check_logits(model, tmp_path / "m.gguf")
    # PEFT merges a LoRA into the one weight that a tied pair shares, once for each of the two: the logits are right, not that
    is_shared = family == TIED and not {"embed_tokens", "lm_head"}.isdisjoint(settings.get("target_modules", ()))
    merged = model.merge_and_unload().state_dict()
    check_weights(sources, found, merged, ("token_embd.weight", "output.weight") if is_shared else ())
    assert sources.model.has_output is not (family == TIED and title not in PARTED)


def test_no_adapter_is_a_plain_conversion(bases: dict[str, Path], tmp_path: Path) -> None:
    sources, found = export_f32(bases[UNTIED], folder=tmp_path)
    check_weights(sources, found, load(bases[UNTIED]).state_dict())


@pytest.mark.parametrize("shares", [(1.0, 1.0), (0.5, -0.25)])
def test_several_adapters_are_a_weighted_sum(bases: dict[str, Path], tmp_path: Path, shares: tuple[float, float]) -> None:
    from peft import PeftModel

    first = tiny_export.save_adapter_of(tmp_path / "first", bases[UNTIED])
    second = tiny_export.save_adapter_of(tmp_path / "second", bases[UNTIED], r=2, target_modules=LINEAR, use_rslora=True)
    sources, found = export_f32(bases[UNTIED], first, second, shares=shares, folder=tmp_path)
    model: Any = PeftModel.from_pretrained(load(bases[UNTIED]), first, adapter_name="first")
    model.load_adapter(second, adapter_name="second")
    for adapter, share in zip(("first", "second"), shares, strict=True):  # PEFT's own sum takes the root of |share|
        for module in model.modules():
            if isinstance(getattr(module, "scaling", None), dict) and adapter in module.scaling:
                module.scaling[adapter] *= share
    model.base_model.set_adapter(["first", "second"])
    check_weights(sources, found, model.merge_and_unload().state_dict())


def test_each_adapter_is_measured_against_the_base(bases: dict[str, Path], tmp_path: Path) -> None:
    """A DoRA and a saved layer, half of each: halfway from the base to what each alone makes."""
    dora = tiny_export.save_adapter_of(tmp_path / "dora", bases[UNTIED], use_dora=True)
    saved = tiny_export.save_adapter_of(tmp_path / "saved", bases[UNTIED], target_modules=["q_proj"], modules_to_save=["o_proj"])
    plain = export_f32(bases[UNTIED], folder=tmp_path)[1]
    alone = [export_f32(bases[UNTIED], adapter, folder=tmp_path)[1] for adapter in (dora, saved)]
    both = export_f32(bases[UNTIED], dora, saved, shares=(0.5, 0.5), folder=tmp_path)[1]
    for name, weights in both.items():
        expected = plain[name] + 0.5 * (alone[0][name] - plain[name]) + 0.5 * (alone[1][name] - plain[name])
        assert np.abs(weights - expected).max() < 1e-5, name


def test_one_weight_for_each_adapter(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = tiny_export.save_adapter_of(tmp_path / "adapter", bases[UNTIED])
    with pytest.raises(CheckpointError, match="2 adapters and 1 weights were given"):
        read_sources(bases[UNTIED], [adapter, adapter], [0.5])


def test_nf4_rows_equal_bitsandbytes(tmp_path: Path) -> None:
    import torch
    from bitsandbytes import functional
    from safetensors.torch import save_file

    weight = (torch.randn(300, 512, generator=torch.Generator().manual_seed(1)) * 0.05).to(torch.bfloat16)
    weight[3], weight[5, 7] = 0, 2.0
    save_file({"w": weight}, tmp_path / "w.safetensors")
    kept, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)
    expected = functional.dequantize_4bit(kept, state).float().numpy()
    read = nf4_rows(read_header(tmp_path / "w.safetensors")["w"])
    found = np.concatenate([read(0, 7), read(7, 300)])
    # its CPU kernel does not always round a scale to the nearest of 256 levels
    assert (found == expected).mean() > 0.998
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_adapter_can_be_merged_into_what_qlora_saw(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = tiny_export.save_adapter_of(tmp_path / "adapter", bases[UNTIED])
    _, plain = export_f32(bases[UNTIED], adapter, folder=tmp_path)
    sources, into_nf4 = export_f32(bases[UNTIED], adapter, folder=tmp_path, into_nf4=True)
    kept = next(tensor for tensor in sources.model.tensors if tensor.name == "blk.1.ffn_up.weight")
    assert kept.stored is not None
    error = nf4_rows(kept.stored)(0, kept.rows) - kept.stored.rows(0, kept.rows)
    assert np.abs(error).max() > 1e-3
    assert np.abs(into_nf4[kept.name] - plain[kept.name] - error).max() < 1e-6
    for name in ("token_embd.weight", "output.weight", "blk.0.attn_norm.weight"):
        assert np.array_equal(plain[name], into_nf4[name])


def change_adapter(adapter: Path, folder: Path, config: dict[str, Any] | None = None, **tensors: Any) -> Path:
    """A copy of ``adapter`` with other settings, and tensors added or (None) taken away by the end of their name."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(adapter, folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, **(config or {})}))
    weights = load_file(folder / "adapter_model.safetensors")
    for name, tensor in tensors.items():
        weights = {key: value for key, value in weights.items() if not key.endswith(name)}
        if tensor is not None:
            weights[name] = tensor
    save_file(weights, folder / "adapter_model.safetensors")
    return folder


def bad_adapters() -> dict[str, tuple[dict[str, Any] | None, dict[str, Any], str]]:
    import torch

    layer = "base_model.model.model.layers.0.self_attn.q_proj."
    return {
        "another layer": (
            None,
            {"base_model.model.model.layers.7.mlp.up_proj.lora_A.weight": torch.ones(4, 64)},
            "only one of the two",
        ),
        "a layer the base lacks": (
            None,
            {"base_model.model.model.layers.7.norm.weight": torch.ones(64)},
            "changes 'model.layers.7.norm",
        ),
        "a bias the base lacks": (None, {layer + "base_layer.bias": torch.ones(64)}, "which .* lacks, and a bias that the base"),
        "quantised layer": (None, {layer + "base_layer.weight.absmax": torch.ones(4)}, "a part of a quantised layer"),
        "8-bit weight": (
            None,
            {layer + "base_layer.weight": torch.ones(64, 64, dtype=torch.uint8)},
            "as U8, which export cannot",
        ),
        "magnitude alone": (None, {"base_model.model.lm_head.lora_magnitude_vector": torch.ones(903)}, "without its matrices"),
        "magnitude too long": (None, {layer + "lora_magnitude_vector": torch.ones(65)}, r"as \[65\], in .* it is \[64\]"),
        "tokens without ids": (
            None,
            {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": torch.ones(2, 64)},
            "names no tokens",
        ),
        "token beyond the vocabulary": (
            {"trainable_token_indices": [5, 9000]},
            {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": torch.ones(2, 64)},
            "it trains token 9000 and",
        ),
        "alpha is no number": ({"lora_alpha": "8"}, {}, "lora_alpha must be a number, not '8'"),
        "pattern is no expression": ({"alpha_pattern": {"(q": 3}}, {}, "is no regular expression"),
        "another prefix": (None, {"transformer.h.0.weight": torch.ones(3)}, "no part of a LoRA adapter"),
        "saved layer of another width": (None, {"base_model.model.model.norm.weight": torch.ones(65)}, r"as \[65\], in"),
    }


@pytest.mark.parametrize("title", bad_adapters())
def test_adapter_that_does_not_fit_is_one_sentence(bases: dict[str, Path], tmp_path: Path, title: str) -> None:
    config, tensors, words = bad_adapters()[title]
    adapter = tiny_export.save_adapter_of(tmp_path / "adapter", bases[UNTIED])
    changed = change_adapter(adapter, tmp_path / "changed", config, **tensors)
    with pytest.raises(CheckpointError, match=words):
        read_sources(bases[UNTIED], [changed])

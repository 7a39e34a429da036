"""Run with: pytest tests/test_export_adapter_file.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_export

from llmft.cli import main
from llmft.errors import CheckpointError, ExportError
from llmft.export.adapters.low_rank_file import write_adapter_file
from llmft.export.sources import read_sources
from llmft.export.writer import export_file

IDS = [5, 300, 301, 17, 42, 600, 8, 9]
RANKS = {"llama-2": {"q_proj": 8}, "qwen-2.5": {"q_proj": 8}, "phi-3": {"qkv_proj": 8}, "gpt-j": {"q_proj": 8}}


def logits(path: Path, adapter: Path | None = None) -> Any:
    from llama_cpp import Llama

    lora = {} if adapter is None else {"lora_path": str(adapter)}
    llm = Llama(str(path), n_ctx=64, logits_all=True, verbose=False, n_threads=1, n_threads_batch=1, **lora)
    llm.eval(IDS)
    return llm.scores[: len(IDS)].copy()


@pytest.mark.parametrize(
    "settings", [{}, {"use_rslora": True, "alpha_pattern": {"o_proj": 3, "out_proj": 3}}], ids=["plain", "rank-stabilised"]
)
@pytest.mark.parametrize("name", RANKS)
def test_base_and_adapter_file_are_the_merged_model(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    base = tiny_export.save_zoo_base(tmp_path / "base", name)
    adapter = tiny_export.save_adapter_of(tmp_path / "adapter", base, rank_pattern=RANKS[name], **settings)
    plain = export_file(base, None, tmp_path / "plain.gguf", "F32")
    merged = logits(export_file(base, adapter, tmp_path / "merged.gguf", "F32"))
    path = write_adapter_file(read_sources(base, [adapter]), tmp_path / "lora.gguf")
    found = logits(plain, path)
    scale = np.abs(merged).max()
    assert np.abs(found - merged).max() < 2e-3 * scale
    assert np.abs(found - logits(plain)).max() > 0.05 * scale  # the adapter is felt


def test_head_of_its_own_may_carry_a_lora_and_weights_scale_it(tmp_path: Path) -> None:
    base = tiny_export.save_zoo_base(tmp_path / "base", "llama-2")
    adapter = tiny_export.save_adapter_of(tmp_path / "adapter", base, target_modules=["lm_head", "v_proj"])
    plain = export_file(base, None, tmp_path / "plain.gguf", "F32")
    from llmft.export.file.quants import QUANTS
    from llmft.export.writer import Options, write_files

    sources = read_sources(base, [adapter], [0.5])
    write_files(sources, {QUANTS["F32"]: tmp_path / "merged.gguf"}, "m", Options(threads=1))
    found = logits(plain, write_adapter_file(sources, tmp_path / "lora.gguf"))
    merged = logits(tmp_path / "merged.gguf")
    assert np.abs(found - merged).max() < 2e-3 * np.abs(merged).max()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = tiny_export.save_zoo_base(tmp_path / "base", "llama-2")
    adapter = tiny_export.save_adapter_of(tmp_path / "adapter", base, lora_alpha=0)  # an adapter that changes nothing
    command = ["export", "--base", str(base), "--adapter", str(adapter), "--adapter-only", "--output", str(tmp_path / "a.gguf")]
    assert main(command) == 0
    plain = export_file(base, None, tmp_path / "plain.gguf", "F32")
    assert np.array_equal(logits(plain, tmp_path / "a.gguf"), logits(plain))
    assert main(command) == 1
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"target_modules": ["embed_tokens"]},
        {"target_modules": ["lm_head"]},
        {"target_modules": ["q_proj"], "bias": "all"},
    ],
)
def test_more_than_low_rank_changes_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    base = tiny_export.save_zoo_base(tmp_path / "base", "qwen-2.5")
    adapter = tiny_export.save_adapter_of(tmp_path / "adapter", base, **settings)
    with pytest.raises(CheckpointError, match="by more than a LoRA of a linear layer"):
        write_adapter_file(read_sources(base, [adapter]), tmp_path / "lora.gguf")
    assert not (tmp_path / "lora.gguf").exists()


def test_no_adapter_and_two_are_refused(tmp_path: Path) -> None:
    base = tiny_export.save_zoo_base(tmp_path / "base", "llama-2")
    adapter = tiny_export.save_adapter_of(tmp_path / "adapter", base)
    for adapters in ([], [adapter, adapter]):
        with pytest.raises(ExportError, match="needs one --adapter"):
            write_adapter_file(read_sources(base, adapters), tmp_path / "lora.gguf")

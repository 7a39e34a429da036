"""Run with: pytest tests/test_export_checkpoint.py"""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_export

from llmft.errors import CheckpointError
from llmft.export.adapters.adapter import fit, read_adapter
from llmft.export.base.checkpoint import read_base, read_header
from llmft.export.base.families import describe
from llmft.export.sources import read_sources


def write_safetensors(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_export.save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_export.save_adapter(tmp_path_factory.mktemp("adapter"), base)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_rows_equal_torch_in_every_precision(tmp_path: Path, dtype: str) -> None:
    import torch
    from safetensors.torch import load_file

    folder = tiny_export.save_base(tmp_path, dtype=dtype)
    expected = load_file(folder / "model.safetensors")
    tensors = read_base(folder).tensors
    assert set(tensors) == set(expected)
    for name, tensor in expected.items():
        rows = tensors[name].rows(0, tensor.shape[0])
        assert rows.dtype == np.float32
        assert np.array_equal(rows, tensor.to(torch.float32).reshape(rows.shape).numpy())
        assert np.array_equal(tensors[name].rows(1, 3), rows[1:3])


def test_sharded_base_equals_single_file(base: Path, tmp_path: Path) -> None:
    sharded = read_base(tiny_export.save_base(tmp_path, shard="100KB"))
    single = read_base(base)
    assert len({stored.path for stored in sharded.tensors.values()}) > 2
    assert set(sharded.tensors) == set(single.tensors)
    name = "model.layers.1.mlp.down_proj.weight"
    assert np.array_equal(sharded.tensors[name].rows(0, 64), single.tensors[name].rows(0, 64))


def test_missing_shard_is_named(tmp_path: Path) -> None:
    folder = tiny_export.save_base(tmp_path, shard="100KB")
    missing = sorted(folder.glob("model-*.safetensors"))[1]
    missing.unlink()
    with pytest.raises(CheckpointError, match=f"lacks 1 of its .* the first is {missing.name}"):
        read_base(folder)


def test_index_must_not_lead_out_of_the_folder(base: Path, tmp_path: Path) -> None:
    shutil.copy(base / "config.json", tmp_path)
    index = {"weight_map": {"model.norm.weight": "../../etc/model.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="not a plain file name"):
        read_base(tmp_path)


def test_index_that_promises_an_absent_tensor_is_refused(tmp_path: Path) -> None:
    folder = tiny_export.save_base(tmp_path, shard="100KB")
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.extra.weight"] = next(iter(index["weight_map"].values()))
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"lacks 'model\.extra\.weight'"):
        read_base(folder)


@pytest.mark.parametrize("kept", [0, 5, 9, 200, 60_000])
def test_truncated_weights_are_refused(base: Path, tmp_path: Path, kept: int) -> None:
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="truncated"):
        read_base(tmp_path)


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HOSTILE = {
    "not JSON": b"{]",
    "not UTF-8": b"\xff\xfe{}",
    "a list": b"[1, 2]",
    "deeply nested": b"[" * 100_000,
    "no offsets": {"a": {"dtype": "F32", "shape": [2]}},
    "three offsets": {"a": {**F32, "data_offsets": [0, 4, 8]}},
    "negative offset": {"a": {**F32, "data_offsets": [-8, 0]}},
    "negative shape": {"a": {**F32, "shape": [-1, -2]}},
    "float shape": {"a": {**F32, "shape": [2.0]}},
    "true as a number": {"a": {**F32, "shape": [True, 2]}},
    "unknown dtype": {"a": {**F32, "dtype": "F3"}},
    "dtype is a list": {"a": {**F32, "dtype": ["F32"]}},
    "wrong size": {"a": {**F32, "shape": [3]}},
    "huge shape": {"a": {**F32, "shape": [1 << 62, 1 << 62]}},
    "past the end": {"a": {**F32, "shape": [200], "data_offsets": [0, 800]}},
    "overlap": {"a": F32, "b": {**F32, "data_offsets": [4, 12]}},
}


@pytest.mark.parametrize("header", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_header_is_one_sentence(tmp_path: Path, header: Any) -> None:
    path = write_safetensors(tmp_path / "model.safetensors", header, bytes(16))
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read_header(path)


def test_unreadable_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        read_header(tmp_path)


def test_header_that_claims_more_than_memory_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", (1 << 63) - 1) + b"{}")
    with pytest.raises(CheckpointError, match="header claims"):
        read_header(path)


def test_pickled_base_is_refused(base: Path, tmp_path: Path) -> None:
    shutil.copy(base / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(CheckpointError, match=r"pickled weights \(pytorch_model\.bin\)"):
        read_base(tmp_path)


def test_folder_without_a_model_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        read_base(tmp_path)


def test_quantised_base_is_refused(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    config = json.loads((base / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": {"load_in_4bit": True}}))
    with pytest.raises(CheckpointError, match="original precision"):
        read_base(tmp_path)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"model_type": "mamba"}, "'mamba'; export knows gemma2, .*llama, mistral"),
        ({"hidden_size": None}, "'hidden_size' must be a positive number"),
        ({"hidden_size": 128}, r"has shape \[512, 64\], its config.json asks for \[512, 128\]"),
        ({"num_hidden_layers": 3}, "holds no tensor 'model.layers.2"),
        ({"num_hidden_layers": 1}, "which export does not know"),
        ({"head_dim": 7}, "7 rotated numbers of a head of 7"),
        ({"head_dim": "wide"}, "'head_dim' must be a positive number, not 'wide'"),
        ({"hidden_act": "gelu"}, "'hidden_act' is 'gelu'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope type 'yarn'"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rope scaling lacks 'factor'"),
    ],
)
def test_config_of_another_model_is_refused(base: Path, tmp_path: Path, setting: dict[str, Any], words: str) -> None:
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    config = json.loads((base / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **setting}))
    with pytest.raises(CheckpointError, match=words):
        describe(read_base(tmp_path))


def test_adapter_fits_its_base(base: Path, adapter: Path) -> None:
    read = read_adapter(adapter)
    fitted = fit(read, read_base(base), tied_head=True)
    assert fitted == read and fitted.modules == 14  # seven linear layers in each of two
    assert {change.scale for change in read.changes.values()} == {2.0}


def test_adapter_of_a_wider_base_is_refused(base: Path, tmp_path: Path) -> None:
    other = tiny_export.save_base(tmp_path / "wide", width=128)
    foreign = tiny_export.save_adapter(tmp_path / "adapter", other)
    with pytest.raises(CheckpointError, match="trained on another base: it changes 'model"):
        read_sources(base, [foreign])


def test_adapter_of_another_family_is_refused(base: Path, tmp_path: Path) -> None:
    other = tiny_export.save_base(tmp_path / "gptj", "gptj")
    foreign = tiny_export.save_adapter(tmp_path / "adapter", other, "gptj")
    with pytest.raises(CheckpointError, match=r"it changes 'transformer\.h\.0"):
        read_sources(base, [foreign])


def test_rank_stabilised_scale(base: Path, tmp_path: Path) -> None:
    read = read_adapter(tiny_export.save_adapter(tmp_path, base, use_rslora=True))
    assert {change.scale for change in read.changes.values()} == {4.0}  # 8 / sqrt(4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa', which changes the base's own weights"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "'layer_replication', which export cannot merge"),
    ],
)
def test_adapter_that_cannot_be_merged_is_refused(base: Path, tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    folder = tiny_export.save_adapter(tmp_path, base, **settings)
    with pytest.raises(CheckpointError, match=words):
        read_adapter(folder)


def test_pickled_adapter_is_refused(adapter: Path, tmp_path: Path) -> None:
    shutil.copy(adapter / "adapter_config.json", tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(CheckpointError, match="pickled adapter"):
        read_adapter(tmp_path)


def test_adapter_of_another_method_is_refused(adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path, dirs_exist_ok=True)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    with pytest.raises(CheckpointError, match="'IA3' adapter"):
        read_adapter(tmp_path)


def test_lora_without_its_partner_is_refused(adapter: Path, tmp_path: Path) -> None:
    shutil.copy(adapter / "adapter_config.json", tmp_path)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    header = {name: {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}}
    write_safetensors(tmp_path / "adapter_model.safetensors", header, bytes(8))
    with pytest.raises(CheckpointError, match="only one of the two LoRA matrices"):
        read_adapter(tmp_path)

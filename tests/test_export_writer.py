"""Run with: pytest tests/test_export_writer.py"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_export
from gguf import GGUFReader, GGUFValueType
from gguf.quants import dequantize

from llmft import run
from llmft.errors import CheckpointError, DiskError, ExportError
from llmft.export import writer
from llmft.export.file import header, stream
from llmft.export.file.quants import QUANTS, tensor_types
from llmft.export.sources import read_sources
from llmft.export.writer import export, export_file


@pytest.fixture(scope="module", params=["llama", "gptj"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base and an adapter of each family."""
    folder = tmp_path_factory.mktemp(request.param)
    base = tiny_export.save_base(folder / "base", request.param, width=256, dtype="bfloat16")
    return base, tiny_export.save_adapter(folder / "adapter", base, request.param)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_export.save_base(tmp_path_factory.mktemp("base"))


def field(reader: GGUFReader, key: str) -> Any:
    found = reader.get_field(key)
    assert found is not None, key
    return found.contents()


def test_file_says_what_gpt4all_and_llama_cpp_read(pair: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = pair
    path = export_file(base, adapter, tmp_path / "m.gguf", "q4_0")
    reader = GGUFReader(path)
    architecture = field(reader, "general.architecture")
    assert architecture == {"llama": "llama", "gptj": "phi2"}[json.loads((base / "config.json").read_text())["model_type"]]
    assert field(reader, "general.file_type") == 2
    assert field(reader, "general.quantization_version") == 2
    for key in ("context_length", "block_count"):
        found = reader.get_field(f"{architecture}.{key}")
        assert found is not None and found.types == [GGUFValueType.UINT32]
    assert field(reader, "tokenizer.chat_template") == (adapter / "chat_template.jinja").read_text(encoding="utf-8")
    tokens = field(reader, "tokenizer.ggml.tokens")
    assert len(tokens) == len(set(tokens)) == 512 == field(reader, f"{architecture}.vocab_size")
    end = {"llama": "<|eot_id|>", "phi2": "<|endoftext|>"}[architecture]
    assert tokens[field(reader, "tokenizer.ggml.eos_token_id")] == end
    assert field(reader, "tokenizer.ggml.add_bos_token") is (architecture == "llama")
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


def test_merged_weights_equal_pefts(pair: tuple[Path, Path], tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base, adapter = pair
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict()
    path = export_file(base, adapter, tmp_path / "m.gguf", "F32")
    ours = {tensor.name: tensor.data for tensor in GGUFReader(path).tensors}
    names = {"blk.1.ffn_down.weight": ("model.layers.1.mlp.down_proj.weight", "transformer.h.1.mlp.fc_out.weight")}
    names |= {"blk.0.attn_v.weight": ("model.layers.0.self_attn.v_proj.weight", "transformer.h.0.attn.v_proj.weight")}
    for name, theirs in names.items():
        expected = next(merged[key] for key in theirs if key in merged).numpy()
        assert np.abs(ours[name] - expected).max() < 1e-6
    queries = next(
        merged[k] for k in ("model.layers.0.self_attn.q_proj.weight", "transformer.h.0.attn.q_proj.weight") if k in merged
    )
    ours_sorted, theirs_sorted = np.sort(ours["blk.0.attn_q.weight"], 0), np.sort(queries.numpy(), 0)
    assert np.abs(ours_sorted - theirs_sorted).max() < 1e-6  # the same rows in another order
    assert np.abs(ours["blk.0.attn_q.weight"] - queries.numpy()).max() > 0.1


def test_several_quants_from_one_read_equal_single_ones(pair: tuple[Path, Path], tmp_path: Path) -> None:
    together = export(*pair, tmp_path, "m", ["F16", "Q8_0", "Q4_0", "Q4_K_M"])
    for path, quant in zip(together, ("F16", "Q8_0", "Q4_0", "Q4_K_M"), strict=True):
        (tmp_path / quant).mkdir()
        alone = export_file(*pair, tmp_path / quant / f"m-{quant}.gguf", quant)
        ours, single = GGUFReader(path).tensors, GGUFReader(alone).tensors
        assert [tensor.name for tensor in ours] == [tensor.name for tensor in single]
        assert all(one.data.tobytes() == other.data.tobytes() for one, other in zip(ours, single, strict=True))


def test_chunks_and_threads_do_not_change_the_file(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = export_file(*pair, tmp_path / "m.gguf", "Q4_K_M", threads=1).read_bytes()
    monkeypatch.setattr(stream, "CHUNK_BYTES", 3 * 256 * 4)  # three rows, fewer than a head has
    assert export_file(*pair, tmp_path / "m.gguf", "Q4_K_M", force=True, threads=5).read_bytes() == whole


def test_size_is_known_before_the_first_byte(pair: tuple[Path, Path], tmp_path: Path) -> None:
    sources = read_sources(pair[0], [pair[1]])
    for path, name in zip(export(*pair, tmp_path, "m", ["F16", "Q4_0"]), ("F16", "Q4_0"), strict=True):
        types = tensor_types(sources.model, QUANTS[name])
        planned = header.plan(path, "m", QUANTS[name], types, sources.model, sources.vocabulary)
        assert path.stat().st_size == planned.size_bytes


def test_base_without_adapter_and_head_lora_on_a_tied_head(base: Path, tmp_path: Path) -> None:
    plain = GGUFReader(export_file(base, None, tmp_path / "plain.gguf", "F32"))
    assert "output.weight" not in {tensor.name for tensor in plain.tensors}
    adapter = tiny_export.save_adapter(tmp_path / "adapter", base, target_modules=["lm_head"])
    tensors = {t.name: t.data for t in GGUFReader(export_file(base, adapter, tmp_path / "m.gguf", "F32")).tensors}
    assert np.abs(tensors["output.weight"] - tensors["token_embd.weight"]).max() > 0.1


def test_companions_name_every_file(pair: tuple[Path, Path], tmp_path: Path) -> None:
    paths = export(*pair, tmp_path, "m", ["Q8_0"], system_message='Dis "bonjour".\nPuis trie.')
    paths += export(*pair, tmp_path, "m", ["Q4_0"])  # the manifest keeps what was there
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert set(manifest["files"]) == {path.name for path in paths}
    for path in paths:
        assert manifest["files"][path.name]["sha256"] == run.sha256(path)
        assert manifest["files"][path.name]["made_from"]["adapters"][0]["sha256"]
    card = (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "Not a medical device" in card and all(path.name in card for path in paths)
    assert (tmp_path / "Modelfile").read_text(encoding="utf-8").startswith("FROM ./m-Q4_0.gguf\nTEMPLATE")
    assert "[model-m-Q4_0.gguf]" in (tmp_path / "gpt4all.ini").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*(path.name for path in paths), "MODEL_CARD.md", "Modelfile", "gpt4all.ini", "manifest.json"]
    )


def test_gpt4all_settings_are_quoted(base: Path, tmp_path: Path) -> None:
    export(base, None, tmp_path, "mon modèle", ["Q8_0"], system_message='Dis "oui".\nPuis trie.')
    text = (tmp_path / "gpt4all.ini").read_text(encoding="utf-8")
    assert text.startswith("[model-mon%20mod%E8le-Q8_0.gguf]\n")
    assert 'systemMessage="Dis \\"oui\\".\\nPuis trie."\n' in text


def test_existing_file_is_kept_unless_forced(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"precious")
    with pytest.raises(ExportError, match=r"m\.gguf exists already; .*--force"):
        export_file(base, None, path, "Q8_0")
    assert path.read_bytes() == b"precious"
    assert export_file(base, None, path, "Q8_0", force=True).read_bytes()[:4] == b"GGUF"


@pytest.mark.parametrize(("name", "quants"), [("a/b", ["Q8_0"]), ("", ["Q8_0"]), ("m", [])])
def test_bad_name_or_no_quant_is_refused(base: Path, tmp_path: Path, name: str, quants: list[str]) -> None:
    with pytest.raises(ExportError):
        export(base, None, tmp_path, name, quants)
    assert list(tmp_path.iterdir()) == []


def test_file_in_place_of_the_folder_is_a_sentence(base: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ExportError, match="out is a file"):
        export(base, None, tmp_path / "out" / "deeper", "m", ["Q8_0"])


def test_output_must_end_in_gguf(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"must end in \.gguf"):
        export_file(base, None, tmp_path / "model.bin", "Q8_0")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_weight_that_is_no_number_is_refused(base: Path, tmp_path: Path, value: float, where: str) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(base, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights[where].view(-1)[7] = value
    save_file(weights, tmp_path / "base" / "model.safetensors")
    with pytest.raises(CheckpointError, match="not a number or infinite"):
        export_file(tmp_path / "base", None, tmp_path / "m.gguf", "Q4_0")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_weight_beyond_float16_names_a_way_out(base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(base, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 3] = 1e5
    save_file(weights, tmp_path / "base" / "model.safetensors")
    with pytest.raises(CheckpointError, match="100000, beyond float16; choose Q8_0"):
        export_file(tmp_path / "base", None, tmp_path / "m.gguf", "F16")


def test_full_disk_is_noticed_before_the_first_byte(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(DiskError, match="free space there"):
        export(base, None, tmp_path, "m", ["F16", "Q4_0"])
    assert list(tmp_path.iterdir()) == []


def test_disk_that_fills_up_in_the_middle_leaves_nothing(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def pad_until_full(file: Any, size_bytes: int) -> None:
        calls.append(size_bytes)
        if len(calls) == 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        pad(file, size_bytes)

    pad = stream.pad
    monkeypatch.setattr(stream, "pad", pad_until_full)
    with pytest.raises(DiskError, match="is full; free space"):
        export(base, None, tmp_path, "m", ["F16", "Q4_0"])
    assert list(tmp_path.iterdir()) == []


def test_a_really_full_disk_leaves_nothing(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small disk can be mounted by root only")
    try:
        monkeypatch.setattr(writer, "require_space", lambda *_: None)
        with pytest.raises(DiskError, match="is full; free space"):
            export(base, None, disk, "m", ["F16", "Q4_0"])
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


SLOW_EXPORT = """
import sys, time
from pathlib import Path
from llmft.export import writer
from llmft.export.file import stream
fast = stream.quantize_rows
def slow(rows, kind, weights):
    time.sleep(0.2)
    return fast(rows, kind, weights)
stream.quantize_rows = slow
writer.export(Path(sys.argv[1]), None, Path(sys.argv[2]), "m", ["F16", "Q4_0"])
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_kill_in_the_middle_leaves_no_final_file_and_a_rerun_succeeds(base: Path, tmp_path: Path, ending: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(writer.__file__).parents[2])}
    command = [sys.executable, "-c", SLOW_EXPORT, str(base), str(tmp_path)]
    listen = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 - a shell's background job ignores it
    child = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, preexec_fn=listen)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("*.partial")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    child.send_signal(ending)
    assert child.wait() == -ending
    assert {path.suffix for path in tmp_path.iterdir()} <= {".partial"}
    paths = export(base, None, tmp_path, "m", ["F16", "Q4_0"])
    assert all(path.is_file() for path in paths) and not list(tmp_path.glob("*.partial"))


def test_quantised_weights_are_near_the_original(pair: tuple[Path, Path], tmp_path: Path) -> None:
    exact, *coarse = export(*pair, tmp_path, "m", ["F32", "Q8_0", "Q4_0", "Q4_K_M"])
    expected = {tensor.name: tensor.data for tensor in GGUFReader(exact).tensors}
    for path, bound in zip(coarse, (0.01, 0.15, 0.15), strict=True):
        for tensor in GGUFReader(path).tensors:
            found = dequantize(tensor.data, tensor.tensor_type).reshape(expected[tensor.name].shape)
            spread = np.abs(expected[tensor.name]).std() + 1e-9
            assert np.abs(found - expected[tensor.name]).mean() / spread < bound, tensor.name

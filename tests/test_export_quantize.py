"""Run with: pytest tests/test_export_quantize.py"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
import tiny_export
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader

from llmft.errors import ExportError, MissingExtraError
from llmft.export import quantize
from llmft.export.quantize import QUANTS, Mixture, parse_quant, quantize_rows, row_bytes
from llmft.export.writer import export


def quantize_with_llama_cpp(source: Path, target: Path, file_type: int) -> None:
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = file_type, 2
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters)) == 0


# width 256: K-quants fit. 64: they fall back to blocks of 32. 8 layers: the mixture has three kinds of layer
MODELS = [
    ("llama", True, 256, 8, "llama3"),
    ("llama", False, 256, 2, "default"),
    ("llama", True, 64, 2, "default"),
    ("gptj", True, 256, 2, "default"),
    ("gptj", False, 64, 8, "default"),
]


@pytest.mark.parametrize(("family", "tied", "width", "layers", "rope"), MODELS)
def test_bytes_equal_llama_cpp_for_every_tensor(
    tmp_path: Path, family: str, tied: bool, width: int, layers: int, rope: str
) -> None:
    base = tiny_export.save_base(tmp_path / "base", family, tied=tied, width=width, layers=layers, rope=rope)
    adapter = tiny_export.save_adapter(tmp_path / "adapter", base, family)
    source, *ours = export(base, adapter, tmp_path, "m", ["F32", "Q8_0", "Q4_0", "Q4_K_M"])
    kinds_seen = set()
    for path, name in zip(ours, ("Q8_0", "Q4_0", "Q4_K_M"), strict=True):
        theirs = tmp_path / "theirs.gguf"
        quantize_with_llama_cpp(source, theirs, int(QUANTS[name].file_type))
        expected = {tensor.name: tensor for tensor in GGUFReader(theirs).tensors}
        found = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
        assert list(found) and set(found) == set(expected)
        for tensor_name, tensor in found.items():
            assert tensor.tensor_type == expected[tensor_name].tensor_type, (name, tensor_name)
            assert tensor.data.tobytes() == expected[tensor_name].data.tobytes(), (name, tensor_name)
            kinds_seen.add(tensor.tensor_type)
    due = {Type.Q4_K, Type.Q6_K} if width == 256 else {Type.Q5_0}
    assert kinds_seen >= {Type.F32, Type.Q8_0, Type.Q4_0} | due


@pytest.mark.parametrize("kind", [Type.Q8_0, Type.Q4_0])
def test_numpy_gives_the_same_bytes_without_llama_cpp(monkeypatch: pytest.MonkeyPatch, kind: Type) -> None:
    rows = np.random.default_rng(3).normal(0, 0.1, (64, 256)).astype(np.float32)
    rows[5] = 0
    expected = quantize_rows(rows, kind)
    monkeypatch.setattr(quantize, "library", lambda: None)
    assert np.array_equal(quantize_rows(rows, kind), expected)


def test_without_llama_cpp_the_head_is_q8_and_k_quants_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "library", lambda: None)
    mixture = Mixture(parse_quant("q4_0"), layers=2, has_output=True)
    assert mixture.type_of("output.weight", (512, 256)) == Type.Q8_0
    with pytest.raises(MissingExtraError, match=r"llmft\[export\]"):
        parse_quant("Q4_K_M")


def test_unknown_quant_lists_the_known_ones() -> None:
    with pytest.raises(ExportError, match="'Q3_X' is not known; choose among .*Q4_0, Q4_K_M"):
        parse_quant("Q3_X")


def test_llama_70b_keeps_attention_values_finer() -> None:
    mixture = Mixture(QUANTS["Q4_K_M"], layers=80, has_output=True, is_wide_gqa=True)
    kinds = [mixture.type_of(f"blk.{layer}.attn_v.weight", (1024, 8192)) for layer in range(80)]
    assert set(kinds) == {Type.Q5_K, Type.Q6_K}
    assert kinds[:10] == [Type.Q6_K] * 10 and kinds[70:] == [Type.Q6_K] * 10


@pytest.mark.parametrize("columns", [32, 256, 96])
def test_row_bytes_are_what_is_written(columns: int) -> None:
    rows = np.ones((3, columns), np.float32)
    mixture = Mixture(QUANTS["Q4_K_M"], layers=2, has_output=True)
    kind = mixture.type_of("blk.0.ffn_up.weight", rows.shape)
    assert quantize_rows(rows, kind).nbytes == 3 * row_bytes(kind, columns)


def test_row_that_no_block_divides_stays_float16() -> None:
    mixture = Mixture(QUANTS["Q4_0"], layers=2, has_output=True)
    assert mixture.type_of("blk.0.ffn_up.weight", (3, 40)) == Type.F16

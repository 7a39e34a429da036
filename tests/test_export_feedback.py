"""Rounding with error feedback. Run with: pytest tests/test_export_feedback.py"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_export
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader
from gguf.quants import dequantize

from llmft.export.calibration.calls import Calls, read_layers
from llmft.export.calibration.embedding import embedding_moments
from llmft.export.file import feedback
from llmft.export.file.feedback import BLOCK, groups_of, round_groups, round_q4_0, spread_of, spreads_of
from llmft.export.file.kernels import Bytes, quantize_rows
from llmft.export.file.known import Given
from llmft.export.file.quants import QUANTS
from llmft.export.sources import read_sources
from llmft.export.stage import rounded_with_feedback
from llmft.export.writer import Options, write_files
from llmft.prompt import Encoded

ROWS = [Encoded("a", [5, 9, 17, 300, 41, 8], [-100, -100, 17, 300, 41, 8]), Encoded("b", [7, 99, 250], [-100, 99, 250])]
COLUMNS = 96


def drawn(rows: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((rows, COLUMNS)).astype(np.float32)


def correlated() -> np.ndarray:
    """Mean outer product of inputs that move together, some of them rarely."""
    draw = np.random.default_rng(2)
    inputs = draw.standard_normal((400, 12)) @ draw.standard_normal((12, COLUMNS)) + 0.3 * draw.standard_normal((400, COLUMNS))
    inputs *= np.linspace(0.2, 2, COLUMNS)
    return (inputs.T @ inputs / 400).astype(np.float32)


def lost(rows: np.ndarray, made: Bytes, moments: np.ndarray) -> float:
    """Mean squared error of the layer's output."""
    errors = rows - dequantize(made, Type.Q4_0)
    return float(((errors @ moments) * errors).sum())


def test_output_loses_half_of_what_importance_alone_loses() -> None:
    rows, moments = drawn(64), correlated()
    spread = spread_of(moments)
    assert spread is not None
    made = round_q4_0(rows, spread)
    nearest = quantize_rows(rows, Type.Q4_0, np.diag(moments).copy())
    assert made.shape == nearest.shape and made.dtype == np.uint8
    assert lost(rows, made, moments) < 0.5 * lost(rows, nearest, moments)


def test_inputs_that_do_not_move_together_are_rounded_each_for_itself() -> None:
    rows = drawn(32)
    spread = spread_of(np.eye(COLUMNS, dtype=np.float32))
    assert spread is not None
    made, plain = (dequantize(found, Type.Q4_0) for found in (round_q4_0(rows, spread), quantize_rows(rows, Type.Q4_0)))
    errors, plain_errors = (((rows - found) ** 2).reshape(32, -1, BLOCK).sum(-1) for found in (made, plain))
    assert errors.sum() < 0.9 * plain_errors.sum() and (errors <= 1.001 * plain_errors).mean() > 0.97


def test_columns_keep_their_places() -> None:
    """The heaviest block is rounded first, and stands where it stood; numbers on the grid come back as they were."""
    moments = np.diag(np.repeat([1.0, 9.0, 4.0], BLOCK)).astype(np.float32)
    spread = spread_of(moments)
    assert spread is not None and spread.columns[::BLOCK].tolist() == [BLOCK, 2 * BLOCK, 0]
    numbers = np.random.default_rng(3).integers(-8, 8, (5, COLUMNS))
    numbers[:, ::BLOCK] = -8
    rows = (numbers * np.repeat([0.5, 0.125, 2.0], BLOCK)).astype(np.float32)
    assert np.array_equal(dequantize(round_q4_0(rows, spread), Type.Q4_0), rows)
    assert np.array_equal(round_q4_0(rows, spread), quantize_rows(rows, Type.Q4_0))


def test_nothing_becomes_nothing() -> None:
    spread = spread_of(correlated())
    assert spread is not None
    assert np.array_equal(dequantize(round_q4_0(np.zeros((3, COLUMNS), np.float32), spread), Type.Q4_0), np.zeros((3, COLUMNS)))


@pytest.mark.parametrize("filled_with", [0.0, float("nan"), float("inf")])
def test_moments_that_say_nothing_are_not_used(filled_with: float) -> None:
    assert spread_of(np.full((64, 64), filled_with, np.float32)) is None
    assert (
        spread_of(5 - 4 * np.eye(64, dtype=np.float32)) is None
    )  # of no inputs at all: their products would contradict each other


def test_rare_inputs_do_not_break_the_factor() -> None:
    moments = correlated()
    moments[:40], moments[:, :40] = 0, 0  # never seen
    spread = spread_of(moments)
    assert spread is not None and np.isfinite(spread.factor).all()
    assert np.isfinite(dequantize(round_q4_0(drawn(4), spread), Type.Q4_0)).all()


def test_wide_layers_are_rounded_group_by_group(monkeypatch: pytest.MonkeyPatch) -> None:
    assert groups_of(2048) == [range(2048)]
    assert groups_of(5632) == [range(1856), range(1856, 3744), range(3744, 5632)]
    for columns in (32, 96, 2080, 8192, 28672):
        groups = groups_of(columns)
        assert [column for group in groups for column in group] == list(range(columns))
        assert all(group.start % BLOCK == 0 and len(group) <= 2048 for group in groups)
    monkeypatch.setattr(feedback, "WIDEST", 64)
    first, second = groups_of(COLUMNS)
    moments = correlated()
    parts = moments[:32, :32], moments[32:, 32:]
    assert (len(first), len(second)) == (32, 64)
    rows = drawn(6)
    spreads = spreads_of(parts)
    expected = [round_q4_0(rows[:, :32], spreads[0]), round_q4_0(rows[:, 32:], spreads[1])]
    assert np.array_equal(round_groups(rows, spreads), np.hstack(expected))
    assert spreads_of((moments, np.zeros((32, 32), np.float32))) == ()


def test_factor_is_that_of_the_inverse() -> None:
    """U of H⁻¹ = Uᵀ U, in the order of the columns."""
    moments = correlated()
    spread = spread_of(moments)
    assert spread is not None
    ordered = moments[np.ix_(spread.columns, spread.columns)].astype(np.float64)
    ordered[np.diag_indices(COLUMNS)] += 0.01 * np.diag(moments).astype(np.float64).mean()
    assert np.allclose(np.tril(spread.factor, -1), 0, atol=1e-12)
    assert np.allclose(spread.factor.T @ spread.factor @ ordered, np.eye(COLUMNS), atol=1e-3)


def test_moments_are_the_outer_products_of_what_enters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_export.save_zoo_base(tmp_path / "base", "llama-2")
    sources = read_sources(base, [tiny_export.save_adapter_of(tmp_path / "adapter", base)])
    wanted = rounded_with_feedback(sources, [QUANTS["Q4_0"], QUANTS["F16"]], ())
    in_layers = {tensor.name for tensor in sources.model.tensors if tensor.name.startswith("blk.") and len(tensor.shape) == 2}
    assert wanted == {*in_layers, "token_embd.weight"}
    assert rounded_with_feedback(sources, [QUANTS["F16"], QUANTS["Q8_0"]], ()) == set()
    *layers, head = read_layers(sources, ROWS, wanted)
    assert head.moments == {} and {name for layer in layers for name in layer.moments} == in_layers
    for layer in layers:
        number = next(iter(layer.moments)).split(".")[1]
        assert layer.moments[f"blk.{number}.attn_q.weight"] is layer.moments[f"blk.{number}.attn_v.weight"]
        for name, (moments,) in layer.moments.items():
            assert np.allclose(np.diag(moments), layer.statistics[name].mean, rtol=1e-4)
            assert np.allclose(moments, moments.T, rtol=1e-4, atol=1e-6) and not np.allclose(moments, np.diag(np.diag(moments)))
    monkeypatch.setattr(feedback, "WIDEST", 32)
    for whole, cut in zip(layers, read_layers(sources, ROWS, wanted), strict=False):
        for name, (moments,) in whole.moments.items():
            parts = [moments[group.start : group.stop, group.start : group.stop] for group in groups_of(len(moments))]
            assert all(np.allclose(*pair, rtol=1e-5, atol=1e-7) for pair in zip(cut.moments[name], parts, strict=True))


def test_q4_0_alone_is_rounded_with_feedback(tmp_path: Path) -> None:
    """In one pass with other files, and the same as from numbers that are known before."""
    base = tiny_export.save_zoo_base(tmp_path / "base", "llama-2")
    sources = read_sources(base, [tiny_export.save_adapter_of(tmp_path / "adapter", base)])
    wanted = rounded_with_feedback(sources, [QUANTS["Q4_0"]], ())

    def made(title: str, options: Options) -> dict[str, dict[str, GGUFReader]]:
        paths = {QUANTS[name]: tmp_path / f"{title}-{name}.gguf" for name in ("Q4_0", "Q8_0", "F16")}
        write_files(sources, paths, "m", options)
        return {quant.name: {t.name: t for t in GGUFReader(path).tensors} for quant, path in paths.items()}

    layers = list(read_layers(sources, ROWS, wanted))
    importance = {name: found.mean for layer in layers for name, found in layer.statistics.items()}
    moments = {name: found for layer in layers for name, found in layer.moments.items()}
    moments["token_embd.weight"] = embedding_moments(sources)
    read = made("read", Options(threads=1, known=Calls(sources, ROWS, wanted)))
    given = made("given", Options(threads=1, known=Given(importance, moments)))
    nearest = made("nearest", Options(threads=1, known=Given(importance)))
    for quant, tensors in read.items():
        assert all(np.array_equal(tensor.data, given[quant][name].data) for name, tensor in tensors.items())
        assert all(tensor.tensor_type == nearest[quant][name].tensor_type for name, tensor in tensors.items())
        differing = {name for name, tensor in tensors.items() if not np.array_equal(tensor.data, nearest[quant][name].data)}
        assert differing == (wanted if quant == "Q4_0" else set())


@pytest.mark.parametrize("name", ["llama-2", "gpt-j"])
def test_embedding_weighs_what_the_first_layer_reads(name: str, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    base = tiny_export.save_zoo_base(tmp_path / "base", name)
    (found,) = embedding_moments(read_sources(base))
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    state = {key.partition(".0.")[2]: value.numpy() for key, value in model.state_dict().items() if ".0." in key}
    readers = {
        "llama-2": {"input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
                    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj")},
        "gpt-j": {"ln_1": ("attn.q_proj", "attn.k_proj", "attn.v_proj", "mlp.fc_in")},
    }[name]  # fmt: skip
    reading = [state[f"{part}.weight"] * state[f"{norm}.weight"] for norm, parts in readers.items() for part in parts]
    products = sum(weight.T @ weight for weight in reading)
    expected = products / np.trace(products) * len(products) + 0.1 * np.eye(len(products))
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-5)

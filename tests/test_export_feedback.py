"""Rounding with error feedback. Run with: pytest tests/test_export_feedback.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_export
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, ReaderTensor
from gguf.quants import dequantize

from llmft.export.adapters.merge import in_head_order
from llmft.export.calibration.calls import Calls, read_layers
from llmft.export.calibration.embedding import embedding_moments
from llmft.export.file import feedback
from llmft.export.file.feedback import BLOCK, DAMPING, LOWEST, groups_of, round_groups, round_rows, spread_of, spreads_of
from llmft.export.file.kernels import Bytes, quantize_rows
from llmft.export.file.known import Given, Known
from llmft.export.file.quants import QUANTS, parse_rules
from llmft.export.sources import read_sources
from llmft.export.stage import rounded_with_feedback
from llmft.export.writer import Options, write_files
from llmft.prompt import Encoded

ROWS = [Encoded("a", [5, 9, 17, 300, 41, 8], [-100, -100, 17, 300, 41, 8]), Encoded("b", [7, 99, 250], [-100, 99, 250])]
COLUMNS = 96
KINDS = sorted(LOWEST)
PARTS = {  # of a layer, in the order in which they compute; what reads the same input together
    "llama-2": [["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], ["self_attn.o_proj"],
                ["mlp.gate_proj", "mlp.up_proj"], ["mlp.down_proj"]],
    "phi-3": [["self_attn.qkv_proj"], ["self_attn.o_proj"], ["mlp.gate_up_proj"], ["mlp.down_proj"]],
    "gpt-j": [["attn.q_proj", "attn.k_proj", "attn.v_proj", "mlp.fc_in"], ["attn.out_proj"], ["mlp.fc_out"]],
}  # fmt: skip


def drawn(rows: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((rows, COLUMNS)).astype(np.float32)


def correlated() -> np.ndarray:
    """Mean outer product of inputs that move together, some of them rarely."""
    draw = np.random.default_rng(2)
    inputs = draw.standard_normal((400, 12)) @ draw.standard_normal((12, COLUMNS)) + 0.3 * draw.standard_normal((400, COLUMNS))
    inputs *= np.linspace(0.2, 2, COLUMNS)
    return (inputs.T @ inputs / 400).astype(np.float32)


def lost(rows: np.ndarray, made: Bytes, moments: np.ndarray, kind: Type) -> float:
    """Mean squared error of the layer's output."""
    errors = rows - dequantize(made, kind)
    return float(((errors @ moments) * errors).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_output_loses_half_of_what_importance_alone_loses(kind: Type) -> None:
    rows, moments = drawn(64), correlated()
    spread = spread_of(moments)
    assert spread is not None
    made = round_rows(rows, spread, kind)
    nearest = quantize_rows(rows, kind, np.diag(moments).copy())
    assert made.shape == nearest.shape and made.dtype == np.uint8
    assert lost(rows, made, moments, kind) < 0.5 * lost(rows, nearest, moments, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_that_do_not_move_together_are_rounded_each_for_itself(kind: Type) -> None:
    rows = drawn(32)
    spread = spread_of(np.eye(COLUMNS, dtype=np.float32))
    assert spread is not None
    made, plain = (dequantize(found, kind) for found in (round_rows(rows, spread, kind), quantize_rows(rows, kind)))
    errors, plain_errors = (((rows - found) ** 2).reshape(32, -1, BLOCK).sum(-1) for found in (made, plain))
    assert errors.sum() < 0.9 * plain_errors.sum() and (errors <= 1.001 * plain_errors).mean() > 0.97


@pytest.mark.parametrize("kind", KINDS)
def test_columns_keep_their_places(kind: Type) -> None:
    """The heaviest block is rounded first, and stands where it stood; numbers on the grid come back as they were."""
    moments = np.diag(np.repeat([1.0, 9.0, 4.0], BLOCK)).astype(np.float32)
    spread = spread_of(moments)
    assert spread is not None and spread.columns[::BLOCK].tolist() == [BLOCK, 2 * BLOCK, 0]
    lowest = LOWEST[kind]
    numbers = np.random.default_rng(3).integers(lowest, -lowest, (5, COLUMNS))
    numbers[:, ::BLOCK] = lowest
    rows = (numbers * np.repeat([0.5, 0.125, 2.0], BLOCK)).astype(np.float32)
    assert np.array_equal(dequantize(round_rows(rows, spread, kind), kind), rows)
    assert np.array_equal(round_rows(rows, spread, kind), quantize_rows(rows, kind))


def test_nothing_becomes_nothing() -> None:
    spread = spread_of(correlated())
    assert spread is not None
    zeros = np.zeros((3, COLUMNS), np.float32)
    assert np.array_equal(dequantize(round_rows(zeros, spread, Type.Q4_0), Type.Q4_0), zeros)


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
    assert np.isfinite(dequantize(round_rows(drawn(4), spread, Type.Q4_0), Type.Q4_0)).all()


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
    expected = [round_rows(rows[:, :32], spreads[0], Type.Q4_0), round_rows(rows[:, 32:], spreads[1], Type.Q4_0)]
    assert np.array_equal(round_groups(rows, spreads, Type.Q4_0), np.hstack(expected))
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


def test_rows_move_to_where_drifted_inputs_give_the_exact_output() -> None:
    """Least squares of W x by W' x̃, as numpy solves it, with the damping as a ridge."""
    draw = np.random.default_rng(4)
    exact = draw.standard_normal((300, COLUMNS)) @ draw.standard_normal((COLUMNS, COLUMNS)) / 4
    drifted = exact @ (np.eye(COLUMNS) + 0.1 * draw.standard_normal((COLUMNS, COLUMNS)))
    rows, moments, drift = drawn(7), drifted.T @ drifted / 300, (exact - drifted).T @ drifted / 300
    spread = spread_of(moments.astype(np.float32), drift.astype(np.float32))
    assert spread is not None and spread.shift is not None
    ordered = rows[:, spread.columns]
    moved = np.empty_like(rows)
    moved[:, spread.columns] = ordered + ordered @ spread.shift
    ridge = np.sqrt(300 * DAMPING * np.trace(moments) / COLUMNS) * np.eye(COLUMNS)
    wanted = np.vstack([exact @ rows.T, ridge @ rows.T])
    expected = np.linalg.lstsq(np.vstack([drifted, ridge]), wanted, rcond=None)[0].T
    assert np.allclose(moved, expected, rtol=1e-3, atol=1e-3)
    assert np.square(drifted @ moved.T - exact @ rows.T).sum() < 0.1 * np.square((drifted - exact) @ rows.T).sum()
    made, unmoved = (dequantize(round_rows(rows, found, Type.Q4_0), Type.Q4_0) for found in (spread, spread_of(moments)))
    errors = [np.square(drifted @ weight.T - exact @ rows.T).sum() for weight in (made, unmoved)]
    assert errors[0] < 0.5 * errors[1]


def entering(model: Any, title: str) -> np.ndarray:
    """What enters a linear part while the calls are read, of all tokens (tokens, columns)."""
    import torch

    found: list[np.ndarray] = []
    hook = model.get_submodule(title).register_forward_pre_hook(lambda _, inputs: found.append(inputs[0][0].numpy().copy()))
    with torch.inference_mode():
        for row in ROWS:
            model(torch.tensor([row.input_ids]))
    hook.remove()
    return np.concatenate(found)


@pytest.mark.parametrize("name", sorted(PARTS))
def test_each_part_is_rounded_for_what_the_rounded_ones_before_it_send(name: str, tmp_path: Path) -> None:
    """Played through with two whole models in transformers, the second rounded part by part."""
    import torch
    from transformers import AutoModelForCausalLM

    base = tiny_export.save_zoo_base(tmp_path / "base", name)
    sources = read_sources(base)
    kinds = rounded_with_feedback(sources, [QUANTS["Q4_0"], QUANTS["F16"]], parse_rules(["ffn_down=Q5_0", "attn_output=Q4_1"]))
    matrices = {t.name: t for t in sources.model.tensors if t.name.startswith("blk.") and len(t.shape) == 2}
    embeddings = {"token_embd.weight"} if sources.model.has_output else set()
    assert set(kinds) == {*matrices, *embeddings} and kinds["blk.0.ffn_down.weight"] == Type.Q5_0
    assert rounded_with_feedback(sources, [QUANTS["F16"], QUANTS["Q8_0"]], ()) == {}
    *layers, head = read_layers(sources, ROWS, kinds)
    made = {tensor: found for layer in layers for tensor, found in layer.rounded.items()}
    assert head.rounded == {} and set(made) == set(matrices)

    exact, rounded = (AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32) for _ in range(2))
    if embeddings:
        table = rounded.get_input_embeddings().weight.data.numpy()
        table[:] = dequantize(round_groups(table, spreads_of(embedding_moments(sources)), Type.Q4_0), Type.Q4_0)
    modules = {tensor.weight.removesuffix(".weight"): tensor for tensor in matrices.values()}
    layers_name = "transformer.h" if name == "gpt-j" else "model.layers"
    for titles in [[f"{layers_name}.{n}.{part}" for part in parts] for n in range(len(layers)) for parts in PARTS[name]]:
        inputs, drifted = entering(exact, titles[0]), entering(rounded, titles[0])
        moments, drift = drifted.T @ drifted / len(inputs), (inputs - drifted).T @ drifted / len(inputs)
        spreads, importance = spreads_of((moments,), (drift,)), np.diag(moments).copy()
        assert spreads
        for title in titles:
            tensor, weight = modules[title], rounded.get_submodule(title).weight.data.numpy()
            found = made[tensor.name]
            expected = in_head_order(round_groups(weight, spreads, kinds[tensor.name], importance), tensor)
            assert (found == expected).mean() > 0.97  # a sum in another order can turn a number that lies between two
            order = in_head_order(np.arange(len(weight))[:, None], tensor)[:, 0]
            weight[order] = dequantize(found, kinds[tensor.name])


def test_a_q4_0_file_alone_is_rounded_with_feedback(tmp_path: Path) -> None:
    """In one pass with other files; its layers hold what the calls made, its embedding what the first layer reads."""
    base = tiny_export.save_zoo_base(tmp_path / "base", "llama-2")
    sources = read_sources(base, [tiny_export.save_adapter_of(tmp_path / "adapter", base)])
    rules = parse_rules(["attn_v=Q5_0"])
    wanted = rounded_with_feedback(sources, [QUANTS["Q4_0"]], rules)

    def made(title: str, known: Known) -> dict[str, dict[str, ReaderTensor]]:
        paths = {QUANTS[name]: tmp_path / f"{title}-{name}.gguf" for name in ("Q4_0", "Q8_0", "F16")}
        write_files(sources, paths, "m", Options(rules=rules, threads=1, known=known))
        return {quant.name: {t.name: t for t in GGUFReader(path).tensors} for quant, path in paths.items()}

    layers = list(read_layers(sources, ROWS, wanted))
    importance = {name: found.mean for layer in layers for name, found in layer.statistics.items()}
    read = made("read", Calls(sources, ROWS, wanted))
    given = made("given", Given(importance, {"token_embd.weight": embedding_moments(sources)}))
    nearest = made("nearest", Given(importance))
    for name, found in [pair for layer in layers for pair in layer.rounded.items()]:
        assert np.array_equal(read["Q4_0"][name].data, found)
    assert np.array_equal(read["Q4_0"]["token_embd.weight"].data, given["Q4_0"]["token_embd.weight"].data)
    for quant, tensors in read.items():
        assert all(tensor.tensor_type == nearest[quant][name].tensor_type for name, tensor in tensors.items())
        differing = {name for name, tensor in tensors.items() if not np.array_equal(tensor.data, nearest[quant][name].data)}
        assert differing == (set(wanted) if quant == "Q4_0" else set())


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

"""Run with: pytest tests/test_export_quantize.py"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_export
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader

from llmft.errors import ExportError, MissingExtraError
from llmft.export.base.layout import Model, Tensor
from llmft.export.file import kernels, quants
from llmft.export.file.kernels import NUMPY_TYPES, quantize_rows, row_bytes
from llmft.export.file.known import Given
from llmft.export.file.quants import QUANTS, fit, parse_quant, parse_rules, tensor_types
from llmft.export.sources import read_sources
from llmft.export.writer import Options, write_files

NEEDS_IMPORTANCE = {"Q2_K_S"}


def quantize_with_llama_cpp(source: Path, target: Path, file_type: int, rules: Any = (), importance: Any = None) -> None:
    """llama.cpp's own quantiser on an F32 file."""
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = file_type, 1
    if rules:
        overrides = (llama_cpp.llama_model_tensor_override * (len(rules) + 1))()
        for number, rule in enumerate(rules):
            overrides[number].pattern, overrides[number].type = rule.pattern.pattern.encode(), int(rule.kind)
        parameters.tt_overrides = ctypes.cast(overrides, type(parameters.tt_overrides))
    if importance:
        entries = (llama_cpp.llama_model_imatrix_data * (len(importance) + 1))()
        for number, (name, values) in enumerate(importance.items()):
            data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            entries[number].name, entries[number].data, entries[number].size = name.encode(), data, values.size
        parameters.imatrix = ctypes.cast(entries, type(parameters.imatrix))
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters)) == 0


def differing(ours: Path, theirs: Path) -> list[str]:
    """Tensors whose type or bytes differ."""
    expected = {tensor.name: tensor for tensor in GGUFReader(theirs).tensors}
    found = {tensor.name: tensor for tensor in GGUFReader(ours).tensors}
    assert list(found) and set(found) == set(expected)
    return [
        f"{name}: {tensor.tensor_type.name}, due {expected[name].tensor_type.name}"
        for name, tensor in found.items()
        if tensor.tensor_type != expected[name].tensor_type or tensor.data.tobytes() != expected[name].data.tobytes()
    ]


def random_importance(sources: Any) -> dict[str, Any]:
    draw = np.random.default_rng(5)
    return {
        tensor.name: np.square(draw.normal(0, 1, tensor.columns)).astype(np.float32)
        for tensor in sources.model.tensors
        if tensor.name.startswith("blk.") and len(tensor.shape) == 2
    }


# width 256: K-quants fit. 64: they fall back to blocks of 32. 8 layers: the mixtures have three kinds of layer
MODELS = {
    "llama, tied, 8 layers, 4 heads a group": (
        "llama-3.2",
        256,
        {"num_hidden_layers": 8, "num_key_value_heads": 1, "intermediate_size": 256},
    ),
    "llama, untied": ("llama-2", 256, {"num_hidden_layers": 1}),
    "llama, narrow": ("llama-3.2", 64, {}),
    "gptj, tied": ("gpt-j", 256, {"tie_word_embeddings": True, "n_layer": 1}),
    "gptj, narrow, 8 layers": ("gpt-j", 64, {"n_layer": 8}),
    "phi3, fused": ("phi-3", 256, {"num_hidden_layers": 3, "intermediate_size": 256}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Each model as sources, with an F32 file."""
    found = {}
    for title, (family, width, settings) in MODELS.items():
        folder = tmp_path_factory.mktemp("model")
        sources = read_sources(tiny_export.save_zoo_base(folder / "base", family, width, **settings))
        write_files(sources, {QUANTS["F32"]: folder / "F32.gguf"}, "m", Options(threads=1))
        found[title] = (sources, folder)
    return found


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "importance"])
@pytest.mark.parametrize("title", MODELS)
def test_bytes_equal_llama_cpp_for_every_tensor_of_every_quant(made: dict[str, Any], title: str, weighted: bool) -> None:
    sources, folder = made[title]
    importance = random_importance(sources) if weighted else {}
    names = [name for name in QUANTS if name != "F32" and (weighted or name not in NEEDS_IMPORTANCE)]
    paths = {QUANTS[name]: folder / f"{name}-{weighted}.gguf" for name in names}
    write_files(sources, paths, "m", Options(threads=1, known=Given(importance)))
    wrong = {}
    for quant, path in paths.items():
        theirs = folder / "theirs.gguf"
        quantize_with_llama_cpp(folder / "F32.gguf", theirs, int(quant.file_type), importance=importance)
        if found := differing(path, theirs):
            wrong[quant.name] = found
    assert wrong == {}


def test_every_type_was_compared(made: dict[str, Any]) -> None:
    kinds = set()
    for sources, _ in made.values():
        for quant in QUANTS.values():
            kinds |= set(tensor_types(sources.model, quant, (), True).values())
    assert kinds == set(quants.TYPES.values())


def test_a_users_mixture_equals_llama_cpps_overrides(made: dict[str, Any]) -> None:
    sources, folder = made["llama, tied, 8 layers, 4 heads a group"]
    rules = parse_rules([r"blk\.[0-2]\.attn_v=Q8_0", "ffn_down=q6_k", "token_embd=Q4_1"])
    ours, theirs = folder / "mixed.gguf", folder / "theirs.gguf"
    write_files(sources, {QUANTS["Q4_K_M"]: ours}, "m", Options(threads=1, rules=rules))
    quantize_with_llama_cpp(folder / "F32.gguf", theirs, int(QUANTS["Q4_K_M"].file_type), rules)
    assert differing(ours, theirs) == []
    types = {tensor.name: tensor.tensor_type for tensor in GGUFReader(ours).tensors}
    assert (types["blk.2.attn_v.weight"], types["blk.3.attn_v.weight"]) == (Type.Q8_0, Type.Q6_K)
    assert (types["blk.3.ffn_down.weight"], types["token_embd.weight"]) == (Type.Q6_K, Type.Q4_1)


def test_a_wish_for_one_quant_leaves_the_others_alone(made: dict[str, Any]) -> None:
    sources, _ = made["llama, tied, 8 layers, 4 heads a group"]
    rules = parse_rules(["q4_0:ffn_down=Q6_K", "Q8_0: attn_v=F16", "(?:ffn_up)=Q5_0"])
    assert [rule.quant for rule in rules] == ["Q4_0", "Q8_0", None]
    changed = {
        name: {tensor: kind for tensor, kind in tensor_types(sources.model, QUANTS[name], rules).items() if kind != plain[tensor]}
        for name, plain in ((name, tensor_types(sources.model, QUANTS[name])) for name in ("F16", "Q4_0", "Q8_0"))
    }
    parts = {name: {(tensor.split(".")[2], kind) for tensor, kind in found.items()} for name, found in changed.items()}
    assert parts == {
        "F16": set(),
        "Q4_0": {("ffn_down", Type.Q6_K), ("ffn_up", Type.Q5_0)},
        "Q8_0": {("attn_v", Type.F16), ("ffn_up", Type.Q5_0)},
    }


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ("Q4_0:ffn_down", "not of the form PATTERN=TYPE"),
        ("Q4_0:=Q8_0", "not of the form"),
        ("ffn_down", "not of the form PATTERN=TYPE"),
        ("=Q4_0", "not of the form"),
        ("a=Q3", "a type among"),
        ("(=Q4_0", "no regular expr"),
    ],
)
def test_a_wish_that_makes_no_sense_is_a_sentence(wish: str, words: str) -> None:
    with pytest.raises(ExportError, match=words):
        parse_rules([wish])


@pytest.mark.parametrize("kind", NUMPY_TYPES)
def test_numpy_gives_the_same_bytes_without_llama_cpp(monkeypatch: pytest.MonkeyPatch, kind: Type) -> None:
    rows = np.random.default_rng(3).normal(0, 0.1, (64, 256)).astype(np.float32)
    rows[5] = 0
    expected = quantize_rows(rows, kind)
    monkeypatch.setattr(kernels, "library", lambda: None)
    assert np.array_equal(quantize_rows(rows, kind), expected)


def test_without_llama_cpp_the_head_is_q8_and_k_quants_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quants, "library", lambda: None)
    assert tensor_types(model_of(2), parse_quant("q4_0"))["output.weight"] == Type.Q8_0
    for name in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"):
        assert parse_quant(name).name == name
    with pytest.raises(MissingExtraError, match=r"llmft\[export\]"):
        parse_quant("Q4_K_M")
    with pytest.raises(MissingExtraError, match=r"llmft\[export\]"):
        parse_rules(["ffn_down=Q6_K"])


def test_unknown_quant_lists_the_known_ones() -> None:
    with pytest.raises(ExportError, match="'Q3_X' is not known; choose among .*Q4_0, .*Q4_K_M"):
        parse_quant("Q3_X")


def model_of(layers: int, **settings: Any) -> Model:
    names = [f"blk.{layer}.attn_v.weight" for layer in range(layers)]
    tensors = [Tensor(name, (1024, 8192)) for name in ["token_embd.weight", *names, "output.weight"]]
    return Model(
        **{"architecture": "llama", "metadata": {}, "has_bos": True, "query_groups": 8, **settings},
        tensors=tensors,
        layers=layers,
        vocabulary_size=8,
    )


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_a_70b_keeps_attention_values_finer(architecture: str) -> None:
    types = tensor_types(model_of(80, architecture=architecture), QUANTS["Q4_K_M"])
    kinds = [types[f"blk.{layer}.attn_v.weight"] for layer in range(80)]
    assert set(kinds) == {Type.Q5_K, Type.Q6_K}
    assert kinds[:10] == [Type.Q6_K] * 10 and kinds[70:] == [Type.Q6_K] * 10
    assert set(tensor_types(model_of(80, query_groups=1), QUANTS["Q4_K_M"]).values()) == {Type.Q4_K, Type.Q6_K}


@pytest.mark.parametrize("columns", [32, 256, 96])
def test_row_bytes_are_what_is_written(columns: int) -> None:
    rows = np.ones((3, columns), np.float32)
    kind = fit(Type.Q4_K, columns)
    assert quantize_rows(rows, kind).nbytes == 3 * row_bytes(kind, columns)


def test_row_that_no_block_divides_stays_float16() -> None:
    assert fit(Type.Q4_0, 40) == fit(Type.Q4_K, 40) == Type.F16

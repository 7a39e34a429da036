"""Run with: pytest tests/test_export_importance.py"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import tiny_export
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader
from test_export_quantize import differing, quantize_with_llama_cpp
from tiny import tiny_prepared

from llmft import settings
from llmft.cli import main
from llmft.dialogue import read_dialogues
from llmft.errors import CheckpointError
from llmft.export.adapters.attached import attach
from llmft.export.calibration.bases import NF4, ORIGINAL, losses_on_bases
from llmft.export.calibration.calls import Calls
from llmft.export.file.imatrix import Statistic, read_imatrix, require_fit, write_imatrix
from llmft.export.file.known import Given
from llmft.export.file.quants import QUANTS, parse_rules
from llmft.export.sources import read_sources
from llmft.export.stage import Wishes, even_sample, export_run, known_without_recipe, uses_importance
from llmft.export.writer import Options, write_files
from llmft.prompt import Encoded
from llmft.recipe import load_recipe

ROWS = [Encoded("a", [5, 300, 17, 42, 600, 8], [-100, -100, 17, 42, 600, 8]), Encoded("b", [1, 77, 500], [-100, 77, 500])]


@pytest.fixture(scope="module", params=["gemma-3", "gpt-j", "llama-2", "phi-3", "qwen-2.5"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    base = tiny_export.save_zoo_base(folder / "base", request.param)
    return base, tiny_export.save_adapter_of(folder / "adapter", base)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("llama")
    base = tiny_export.save_zoo_base(folder / "base", "llama-2")
    return base, tiny_export.save_adapter_of(folder / "adapter", base)


def adapted(base: Path, adapter: Path) -> Any:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()


def test_statistics_are_the_squares_of_what_enters_each_layer(pair: tuple[Path, Path]) -> None:
    import torch

    sources = read_sources(pair[0], [pair[1]])
    found = Calls(sources, ROWS).finish()
    matrices = {t.name for t in sources.model.tensors if t.name.startswith("blk.") and len(t.shape) == 2}
    head = "output.weight" if sources.model.has_output else "token_embd.weight"
    assert set(found) == matrices | {head}
    assert {statistic.count for statistic in found.values()} == {9}
    model = adapted(*pair)
    first: Any = 0
    last: Any = 0
    with torch.inference_mode():
        for row in ROWS:
            states = model(torch.tensor([row.input_ids]), output_hidden_states=True).hidden_states
            layer = next(m for n, m in model.named_modules() if n.endswith(("layers.0.input_layernorm", "h.0.ln_1")))
            first = first + layer(states[0]).double().square().sum((0, 1))
            last = last + states[-1].double().square().sum((0, 1))  # after the last norm
    entering = "blk.0.attn_qkv.weight" if "blk.0.attn_qkv.weight" in found else "blk.0.attn_q.weight"
    assert np.allclose(found[entering].squares, first.numpy(), rtol=1e-5)
    assert np.allclose(found[head].squares, last.numpy(), rtol=1e-5)


def test_file_reads_back_and_weighs_bytes_as_llama_cpp_does(llama: tuple[Path, Path], tmp_path: Path) -> None:
    sources = read_sources(llama[0], [llama[1]])
    statistics = Calls(sources, ROWS).finish()
    write_imatrix(tmp_path / "imatrix.gguf", statistics, "calls")
    means = read_imatrix(tmp_path / "imatrix.gguf")
    assert set(means) == set(statistics)
    assert all(np.array_equal(means[name], statistics[name].squares / np.float32(9)) for name in means)
    reader = GGUFReader(tmp_path / "imatrix.gguf")
    kept = {key: reader.get_field(key).contents() for key in ("general.type", "imatrix.datasets", "imatrix.chunk_count")}  # type: ignore[union-attr]
    assert kept == {"general.type": "imatrix", "imatrix.datasets": ["calls"], "imatrix.chunk_count": 1}
    options = Options(threads=1, known=Given(means))
    paths = {QUANTS[name]: tmp_path / f"{name}.gguf" for name in ("Q4_0", "Q4_K_M")}
    write_files(sources, {QUANTS["F32"]: tmp_path / "F32.gguf", **paths}, "m", options)
    plain = write_files(sources, {QUANTS["Q4_0"]: tmp_path / "plain.gguf"}, "m", Options(threads=1))[QUANTS["Q4_0"]][0]
    for quant, path in paths.items():
        quantize_with_llama_cpp(tmp_path / "F32.gguf", tmp_path / "theirs.gguf", int(quant.file_type), importance=means)
        assert differing(path, tmp_path / "theirs.gguf") == []
    assert differing(paths[QUANTS["Q4_0"]], plain)


def legacy(entries: dict[str, tuple[int, list[float]]]) -> bytes:
    """The form that llama.cpp wrote until 2025, from its description."""
    data = struct.pack("<i", len(entries))
    for name, (calls, values) in entries.items():
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", calls, len(values))
        data += np.asarray(values, "<f4").tobytes()
    return data + struct.pack("<ii", 3, 5) + b"calls"


def test_the_older_form_is_read(tmp_path: Path) -> None:
    path = tmp_path / "imatrix.dat"
    path.write_bytes(legacy({"blk.0.attn_q.weight": (4, [4.0, 8.0]), "blk.1.attn_q.weight": (0, [1.5, 2.5])}))
    means = read_imatrix(path)
    assert {name: values.tolist() for name, values in means.items()} == {
        "blk.0.attn_q.weight": [1.0, 2.0],
        "blk.1.attn_q.weight": [1.5, 2.5],
    }


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GGUF",
        b"PK\x03\x04" + bytes(60),
        struct.pack("<i", -1),
        struct.pack("<ii", 1, 1 << 30),
        legacy({"a": (1, [1.0, 2.0])})[:14],
        legacy({"a": (1, [float("nan")])}),
        legacy({"a": (1, [-1.0])}),
        legacy({}),
    ],
)
def test_damaged_matrix_is_one_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "imatrix.dat"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"imatrix\.dat"):
        read_imatrix(path)


def test_matrix_of_another_model_is_refused(llama: tuple[Path, Path]) -> None:
    model = read_sources(llama[0]).model
    with pytest.raises(CheckpointError, match="it has 3 columns, the weight 64"):
        require_fit({"blk.0.attn_q.weight": np.ones(3, np.float32)}, model)
    with pytest.raises(CheckpointError, match="names none of its tensors"):
        require_fit({"blk.9.attn_q.weight": np.ones(3, np.float32)}, model)


def test_what_was_never_seen_weighs_alike(tmp_path: Path) -> None:
    write_imatrix(tmp_path / "i.gguf", {"blk.0.attn_q.weight": Statistic(np.zeros(4, np.float32), 0)}, "none")
    assert read_imatrix(tmp_path / "i.gguf")["blk.0.attn_q.weight"].tolist() == [1.0] * 4


@pytest.mark.parametrize("name", ["gemma-2", "gpt-j", "llama-2", "phi-3"])
def test_losses_on_both_bases(name: str, tmp_path: Path) -> None:
    import torch

    base = tiny_export.save_zoo_base(tmp_path / "base", name)
    adapter = tiny_export.save_adapter_of(tmp_path / "adapter", base)
    found = losses_on_bases(read_sources(base, [adapter]), ROWS)
    model = adapted(base, adapter)
    with torch.inference_mode():
        losses = [model(torch.tensor([r.input_ids]), labels=torch.tensor([r.labels])).loss.item() for r in ROWS]
    assert found[ORIGINAL] == pytest.approx((4 * losses[0] + 2 * losses[1]) / 6, rel=1e-5)
    assert abs(found[NF4] - found[ORIGINAL]) > 1e-4
    assert losses_on_bases(read_sources(base, [adapter]), []) == {}


def test_losses_of_a_vocabulary_of_the_adapters_own(llama: tuple[Path, Path], tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    rows = read_sources(llama[0]).model.vocabulary_size + 5
    adapter = tiny_export.save_adapter_of(tmp_path / "resized", llama[0], rows=rows, modules_to_save=["embed_tokens", "lm_head"])
    asked = [Encoded("a", [5, rows - 1, 17, rows - 2], [-100, rows - 1, 17, rows - 2])]
    model = attach(AutoModelForCausalLM.from_pretrained(llama[0], dtype=torch.float32), [adapter], [1.0]).eval()
    with torch.inference_mode():
        expected = model(torch.tensor([asked[0].input_ids]), labels=torch.tensor([asked[0].labels])).loss.item()
    assert losses_on_bases(read_sources(llama[0], [adapter]), asked)[ORIGINAL] == pytest.approx(expected, rel=1e-5)


def test_weighted_adapters_are_read_as_their_sum(llama: tuple[Path, Path], tmp_path: Path) -> None:
    one = Calls(read_sources(llama[0], [llama[1]]), ROWS).finish()
    halves = Calls(read_sources(llama[0], [llama[1], llama[1]], [0.25, 0.75]), ROWS).finish()
    other = Calls(read_sources(llama[0], [llama[1], llama[1]]), ROWS).finish()
    assert set(one) == set(halves)
    assert all(np.allclose(one[name].squares, halves[name].squares, rtol=1e-4) for name in one)
    last = "blk.1.ffn_down.weight"
    assert not np.allclose(one[last].squares, other[last].squares, rtol=1e-2)
    turned = tiny_export.save_adapter_of(tmp_path / "dora", llama[0], use_dora=True)
    both = Calls(read_sources(llama[0], [llama[1], turned]), ROWS).finish()  # a sum that PEFT itself cannot compute
    assert set(both) == set(one)


@pytest.mark.parametrize("weighed_by", ["adapter", "embedding"])
def test_only_what_was_written_has_been_read(llama: tuple[Path, Path], weighed_by: str) -> None:
    """The writer asks for tensors in order; each answer costs one layer, and the rounded weights of one layer are held."""
    sources = read_sources(llama[0], [llama[1]])
    layers = [[t.name for t in sources.model.tensors if t.name.startswith(f"blk.{n}.") and len(t.shape) == 2] for n in (0, 1)]
    rounded = [*layers[0], *layers[1], "token_embd.weight"] if weighed_by == "embedding" else layers[1]
    calls = Calls(sources, ROWS, dict.fromkeys(rounded, Type.Q4_0))
    assert calls.of("token_embd.weight").importance is None and calls.statistics == {}
    assert bool(calls.of("token_embd.weight").moments) == (weighed_by == "embedding")
    assert calls.of("blk.0.attn_q.weight").importance is not None and set(calls.statistics) == set(layers[0])
    calls.of("blk.1.ffn_up.weight")
    assert set(calls.latest) == set(layers[1]) and "output.weight" not in calls.statistics
    assert calls.of("output_norm.weight").importance is None and "output.weight" not in calls.statistics
    assert set(calls.finish()) == {*layers[0], *layers[1], "output.weight"} and calls.latest == {}


def test_dialogues_are_taken_evenly(tmp_path: Path) -> None:
    path = tiny_prepared(tmp_path) / "train.jsonl"
    everything = read_dialogues(path)
    assert [d.id for d in even_sample(path, 5)] == [d.id for d in everything[:: len(everything) // 5][:5]]
    assert even_sample(tmp_path / "absent.jsonl", 5) == []


def test_the_recipe_knows_every_quant() -> None:
    assert set(get_args(settings.Quant)) == set(QUANTS)
    assert [name for name in QUANTS if not uses_importance(QUANTS[name])] == ["F32", "F16", "BF16", "Q8_0"]


def test_a_run_is_calibrated_on_its_training_calls(
    llama: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_prepared(tmp_path / "set", 8)
    recipe = {
        "name": "m",
        "base": str(llama[0]),
        "template": "llama2",
        "data": {"folder": "set"},
        "export": {
            "quants": ["Q4_0", "F16"],
            "calibration_dialogues": 3,
            "merge_base": "better",
            "rounding": "nearest",
            "mix": {"ffn_up": "Q5_0"},
        },
    }
    Path("recipe.yaml").write_text(json.dumps(recipe))
    paths = export_run(load_recipe(Path("recipe.yaml")), *llama, Wishes())
    folder = Path("export/m")
    assert paths == [folder / "m-Q4_0.gguf", folder / "m-F16.gguf"]
    means = read_imatrix(folder / "imatrix.gguf")
    made_from = json.loads((folder / "manifest.json").read_text())["files"]["m-Q4_0.gguf"]["made_from"]
    losses = made_from["validation_loss"]
    into_nf4 = losses["dequantised NF4"] < losses["original weights"]
    assert made_from["merged_into"] == ("dequantised NF4" if into_nf4 else "original weights")
    assert "validation loss in nats a token" in (folder / "MODEL_CARD.md").read_text("utf-8")
    sources = read_sources(llama[0], [llama[1]], into_nf4=into_nf4)
    expected = tmp_path / "expected.gguf"
    options = Options(rules=parse_rules(["ffn_up=Q5_0"]), known=Given(means))
    write_files(sources, {QUANTS["Q4_0"]: expected}, "m", options)
    assert differing(paths[0], expected) == []


def test_bare_export_is_weighed_by_a_set_that_is_given(
    llama: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same bytes as a recipe's run on the same calls, but for the system message that a recipe has."""
    tiny_prepared(tmp_path / "set", 8)
    command = ["export", "--base", str(llama[0]), "--adapter", str(llama[1]), "--quant", "Q4_0"]
    with_set = ["--data", str(tmp_path / "set")]
    assert main([*command, "--output", str(tmp_path / "a.gguf"), *with_set]) == 0
    assert main([*command, "--output", str(tmp_path / "b.gguf")]) == 0
    sources, rules = read_sources(llama[0], [llama[1]]), ()
    known = known_without_recipe(sources, ["Q4_0"], rules, tmp_path / "set", None)
    assert isinstance(known, Calls)
    moments = known.rounded
    assert "token_embd.weight" in moments
    paths = {QUANTS["Q4_0"]: tmp_path / "c.gguf"}
    write_files(sources, paths, "a", Options(known=known))
    assert differing(tmp_path / "a.gguf", tmp_path / "c.gguf") == []
    weighed = {found.partition(":")[0] for found in differing(tmp_path / "a.gguf", tmp_path / "b.gguf")}
    assert weighed >= set(moments)
    assert main([*command, "--output", str(tmp_path / "d.gguf"), "--data", str(tmp_path / "absent")]) == 1
    assert "holds no call that can be read; make a set with: llmft prepare" in capsys.readouterr().err

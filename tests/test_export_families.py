"""Every family with a recipe, through export and verify's own checks. Run with: pytest tests/test_export_families.py"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
import tiny_export
import tiny_zoo
from gguf import GGUFReader
from llama_cpp import Llama
from transformers import AutoTokenizer

from llmft.engine.torch_model import TorchModel
from llmft.errors import CheckpointError
from llmft.export import verify as verification
from llmft.export.base.checkpoint import read_base
from llmft.export.base.families import FAMILIES, describe
from llmft.export.proof import runtimes
from llmft.export.proof.child import Child
from llmft.export.verify import Limits, Texts
from llmft.export.writer import export, export_bare, export_file

QUANTS = ("F16", "Q8_0", "Q4_0", "Q4_K_M")
ARCHITECTURES = {
    **dict.fromkeys(("llama-2", "llama-3.1", "llama-3.2", "tinyllama", "mistral"), "llama"),
    **{"qwen-2.5": "qwen2", "qwen-3": "qwen3", "phi-3": "phi3", "phi-4": "phi3", "gpt-j": "phi2"},
    **{"gemma-2": "gemma2", "gemma-3": "gemma3"},
}
LLAMA_CPP = {"reference", "template", "llama_tokens", "llama_logits"}
CHECKS = {"end token", "template", "tokens, llama-cpp-python", "lines, llama-cpp-python", "first token"}
CHECKS |= {"logits, KL", "logits, top-1"}
ASKED = Texts(tiny_export.DIALOGUES)
ONE_THREAD = Limits(require_stop=False, threads=1)


def in_this_process(child: Child, check: str, gguf_path: Path | None = None) -> Any:
    """A check of verify without a process of its own, which test_verify.py covers: eleven families in seconds."""
    job = json.loads((child.work_dir / "job.json").read_text(encoding="utf-8"))
    assert check in LLAMA_CPP
    return runtimes.CHECKS[check](job, child.work_dir, gguf_path or child.gguf_path)


@pytest.fixture
def only_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    """gpt4all 2.8.2 cannot run all of these families; llama.cpp can."""
    import bitsandbytes
    import peft  # noqa: F401 - it looks once for bitsandbytes, which the reference hides from it

    monkeypatch.setitem(sys.modules, "bitsandbytes", bitsandbytes)  # and so put back afterwards

    def run(child: Child, check: str, gguf_path: Path | None = None) -> Any:
        return (
            {"ids": None, "lines": None, "answers": [[] for _ in tiny_export.DIALOGUES]}
            if check.startswith("gpt4all")
            else in_this_process(child, check, gguf_path)
        )

    monkeypatch.setattr(Child, "run", run)


def test_the_table_covers_the_zoo() -> None:
    assert set(ARCHITECTURES) == set(tiny_zoo.ZOO)
    types = {"Llama": "llama", "Mistral": "mistral", "Qwen2": "qwen2", "Qwen3": "qwen3", "Phi3": "phi3", "Gemma2": "gemma2"}
    types |= {"Gemma3": "gemma3_text", "GPTJ": "gptj"}
    assert {types[kind.model] for kind in tiny_zoo.ZOO.values()} == set(FAMILIES)


@pytest.mark.usefixtures("only_llama_cpp")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_family_with_adapter_is_the_same_model_in_every_quant(name: str, tmp_path: Path) -> None:
    base = tiny_export.save_zoo_base(tmp_path / "base", name)
    adapter = tiny_export.save_adapter_of(tmp_path / "adapter", base)
    paths = export(base, adapter, tmp_path / "out", "m", QUANTS, threads=1)
    divergence = {}
    for quant, path in zip(QUANTS, paths, strict=True):
        report = verification.verify(path, base, [adapter], ASKED, limits=ONE_THREAD)
        checks = {check.name: check for check in report.checks if "gpt4all 2.8.2" not in check.name}
        assert {*CHECKS, "template, GPT4All's Jinja"} >= set(checks) >= CHECKS
        divergence[quant] = checks["logits, KL"].measured
        # the logits of a random model lie so close together that four bits may reorder them
        failed = {title for title, check in checks.items() if not check.passed} - (
            {"logits, top-1"} if quant[1] == "4" else set()
        )
        assert failed == set(), report.as_json()
    assert 0 < divergence["F16"] < 1e-5 < divergence["Q8_0"] < 5e-3
    assert divergence["Q8_0"] < divergence["Q4_K_M"] < divergence["Q4_0"] < 1.0  # four bits of a random model
    found = GGUFReader(paths[0]).get_field("general.architecture")
    assert found is not None and found.contents() == ARCHITECTURES[name]
    engine = TorchModel(None, AutoTokenizer.from_pretrained(base))  # type: ignore[arg-type]
    vocabulary = Llama(str(paths[0]), vocab_only=True, verbose=False)
    handle = llama_cpp.llama_model_get_vocab(vocabulary.model)
    ends = [token for token in range(vocabulary.n_vocab()) if llama_cpp.llama_vocab_is_eog(handle, token)]
    assert engine.end_ids == ends


@pytest.mark.usefixtures("only_llama_cpp")
def test_weighted_sum_of_adapters_is_the_same_model(tmp_path: Path) -> None:
    base = tiny_export.save_zoo_base(tmp_path / "base", "llama-3.1")
    one = tiny_export.save_adapter_of(tmp_path / "one", base)
    other = tiny_export.save_adapter_of(tmp_path / "other", base, r=8, lora_alpha=4, target_modules=["q_proj", "down_proj"])
    (path,) = export_bare(base, [one, other], tmp_path / "m.gguf", ["F16"], shares=[0.7, -0.3])
    found = {}
    for shares in ((0.7, -0.3), (1.0, 1.0)):
        report = verification.verify(path, base, [one, other], ASKED, shares=shares, limits=ONE_THREAD)
        found[shares] = next(check.measured for check in report.checks if check.name == "logits, KL")
    assert found[0.7, -0.3] < 1e-5 < 1e-2 < found[1.0, 1.0]


@pytest.mark.usefixtures("only_llama_cpp")
def test_adapter_with_a_vocabulary_of_its_own_is_verified(tmp_path: Path) -> None:
    base = tiny_export.save_zoo_base(tmp_path / "base", "llama-2")
    rows = json.loads((base / "config.json").read_text())["vocab_size"] + 5
    adapter = tiny_export.save_adapter_of(tmp_path / "adapter", base, rows=rows, modules_to_save=["embed_tokens", "lm_head"])
    path = export_file(base, adapter, tmp_path / "m.gguf", "F16", threads=1)
    report = verification.verify(path, base, [adapter], ASKED, limits=ONE_THREAD)
    assert next(check.measured for check in report.checks if check.name == "logits, KL") < 1e-5


def changed_config(base: Path, folder: Path, **changes: Any) -> Path:
    """A base with another config.json; the weights are linked."""
    folder.mkdir()
    for path in base.iterdir():
        (folder / path.name).symlink_to(path)
    config = json.loads((base / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


GEMMA_LAYERS = ["full_attention", "sliding_attention"]
REFUSED = [
    ("qwen-2.5", {"use_sliding_window": True}, "'use_sliding_window' is True"),
    ("qwen-3", {"attention_bias": True}, "'attention_bias' is True"),
    ("qwen-3", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope type 'yarn' is not known"),
    ("gemma-2", {"layer_types": GEMMA_LAYERS}, "layer_types differ from every 2th full"),
    ("gemma-2", {"query_pre_attn_scalar": 224}, "query_pre_attn_scalar is 224, and llama.cpp computes with 32"),
    ("gemma-2", {"attn_logit_softcapping": None}, "needs attn_logit_softcapping"),
    ("gemma-3", {"attn_logit_softcapping": 50.0}, "'attn_logit_softcapping' is 50.0"),
    ("gemma-3", {"hidden_activation": "silu"}, "'hidden_activation' is 'silu'"),
    ("phi-3", {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "long_factor": [1.0]}}, "long_factor must list 8"),
    ("llama-2", {"num_key_value_heads": 3}, "4 heads cannot share 3 heads"),
    ("llama-2", {"rope_parameters": {"rope_theta": -1}}, "rope_theta must be a positive number, not -1"),
    ("llama-2", {"rms_norm_eps": "small"}, "'rms_norm_eps' must be a number"),
]


@pytest.mark.parametrize(("name", "changes", "words"), REFUSED)
def test_config_that_llama_cpp_would_not_compute_is_refused(
    name: str, changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    base = tiny_export.save_zoo_base(tmp_path / "base", name)
    with pytest.raises(CheckpointError, match=words):
        describe(read_base(changed_config(base, tmp_path / "changed", **changes)))


def test_gemma_2_has_no_place_for_a_head_of_its_own(tmp_path: Path) -> None:
    base = tiny_export.save_zoo_base(tmp_path / "base", "gemma-2")
    adapter = tiny_export.save_adapter_of(tmp_path / "adapter", base, target_modules=["lm_head"])
    with pytest.raises(CheckpointError, match="parts base's head from its embedding"):
        export_file(base, adapter, tmp_path / "m.gguf", "F16")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("llama-2", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}),
        ("llama-2", {"head_dim": 32}),
        ("llama-2", {"attention_bias": True, "mlp_bias": True}),
        ("phi-4", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}),
        (
            "phi-3",
            {
                "original_max_position_embeddings": 1024,
                "max_position_embeddings": 8192,
                "sliding_window": None,
                "rope_parameters": {
                    "rope_type": "longrope",
                    "rope_theta": 1e4,
                    "original_max_position_embeddings": 1024,
                    "long_factor": [8.0] * 8,
                    "short_factor": [1.0, 1.1, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0],
                },
            },
        ),
    ],
    ids=["linear rope", "wide heads", "biases", "partial rotation", "longrope"],
)
@pytest.mark.usefixtures("only_llama_cpp")
def test_variants_of_a_family_equal_transformers(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    base = tiny_export.save_zoo_base(tmp_path / "base", name, **changes)
    path = export_file(base, None, tmp_path / "m.gguf", "F16", threads=1)
    report = verification.verify(path, base, [], ASKED, limits=ONE_THREAD)
    found = {check.name: check.measured for check in report.checks}
    assert found["logits, KL"] < 1e-5 and found["logits, top-1"] >= 0.99, found


def test_no_context_beyond_a_window_that_llama_cpp_lacks(tmp_path: Path) -> None:
    for name, context in (("mistral", tiny_export.WINDOW), ("phi-3", tiny_export.WINDOW), ("gemma-2", 8192)):
        model = describe(read_base(tiny_export.save_zoo_base(tmp_path / name, name)))
        assert model.metadata["context_length"] == context, name
    assert model.metadata["attention.sliding_window"] == 32

"""Run with: pytest tests/test_verify.py"""

from __future__ import annotations

import json
import shutil
import struct
from functools import partial
from pathlib import Path

import pytest
import tiny_export

from llmft.errors import VerifyError
from llmft.export import verify as verification
from llmft.export.proof.child import Child, ChildFailure
from llmft.export.proof.gguf_file import read_gguf
from llmft.export.verify import Report, print_report
from llmft.export.vocabulary import tokenizer
from llmft.export.writer import export, export_file

# llama: LLaMA 3.1's stretched rope and an untied head; gptj: as the embedded base
FAMILIES = {"llama": {"tied": False, "rope": "llama3"}, "gptj": {"tied": True}}
verify = partial(verification.verify, threads=1)  # ggml's threads spin at barriers, which a busy machine punishes


@pytest.fixture(scope="module", params=FAMILIES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Base, adapter and a folder with an F16, a Q8_0 and a Q4_0 file."""
    folder = tmp_path_factory.mktemp(request.param)
    base = tiny_export.save_base(folder / "base", request.param, width=128, dtype="bfloat16", **FAMILIES[request.param])
    adapter = tiny_export.save_adapter(folder / "adapter", base, request.param)
    export(base, adapter, folder / "out", "m", ["F16", "Q8_0", "Q4_K_M"])
    return base, adapter, folder / "out"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Base, adapter and F16 file of one small LLaMA, for the checks that must fail."""
    folder = tmp_path_factory.mktemp("llama")
    base = tiny_export.save_base(folder / "base", "llama", width=128)
    adapter = tiny_export.save_adapter(folder / "adapter", base)
    return base, adapter, export_file(base, adapter, folder / "m.gguf", "F16")


def outcome(report: Report) -> dict[str, bool]:
    return {check.name: check.passed for check in report.checks}


def failed(report: Report) -> set[str]:
    return {check.name for check in report.checks if not check.passed}


def test_f16_file_is_the_model_in_every_runtime(made: tuple[Path, Path, Path]) -> None:
    base, adapter, folder = made
    report = verify(folder / "m-F16.gguf", base, adapter, tiny_export.DIALOGUES, require_stop=False)
    assert report.passed, report.as_json()
    measured = {check.name: check.measured for check in report.checks}
    assert set(measured) == {
        *("end token", "first token", "tokens, llama-cpp-python", "tokens, gpt4all 2.8.2"),
        *("logits, KL", "logits, top-1", "greedy, gpt4all 2.8.2"),
    }
    assert isinstance(measured["logits, KL"], float) and 0 < measured["logits, KL"] < 1e-4
    assert measured["tokens, gpt4all 2.8.2"] == "2 of 2"
    assert json.loads(json.dumps(report.as_json()))["passed"] is True


def test_coarser_files_are_held_to_looser_bounds(made: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    base, adapter, folder = made
    found = {}
    for quant in ("Q8_0", "Q4_K_M"):
        reference = folder / "m-F16.gguf" if quant == "Q4_K_M" else None
        report = verify(
            folder / f"m-{quant}.gguf",
            base,
            adapter,
            tiny_export.DIALOGUES,
            reference_f16=reference,
            require_stop=False,
        )
        found[quant] = {check.name: check for check in report.checks}
        # a random model's logits lie so close together that four bits may reorder them: not judged here
        assert failed(report) <= ({"logits, top-1"} if quant == "Q4_K_M" else set()), report.as_json()
        print_report(report)
    assert "m-Q8_0.gguf" in capsys.readouterr().out
    assert found["Q4_K_M"]["F16 logits, KL"].passed
    assert 1e-5 < found["Q8_0"]["logits, KL"].measured < found["Q4_K_M"]["logits, KL"].measured


def test_lost_adapter_is_found(llama: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, adapter, _ = llama
    path = export_file(base, None, tmp_path / "m.gguf", "F16")
    report = verify(path, base, adapter, tiny_export.DIALOGUES, require_stop=False)
    assert failed(report) == {"logits, KL", "logits, top-1", "greedy, gpt4all 2.8.2"}


def change_and_export(llama: tuple[Path, Path, Path], folder: Path, file: str, old: str, new: str) -> Path:
    """An F16 file made with an adapter folder in which ``old`` was replaced by ``new`` in ``file``."""
    base, adapter, _ = llama
    shutil.copytree(adapter, folder / "changed")
    path = folder / "changed" / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    return export_file(base, folder / "changed", folder / "m.gguf", "F16")


def test_other_template_is_found(llama: tuple[Path, Path, Path], tmp_path: Path) -> None:
    path = change_and_export(llama, tmp_path, "chat_template.jinja", "<|end_header_id|>\\n\\n", "<|end_header_id|>\\n")
    report = verify(path, *llama[:2], tiny_export.DIALOGUES, require_stop=False)
    assert {"tokens, llama-cpp-python", "tokens, gpt4all 2.8.2"} <= failed(report)


GUARD = "{%- if toolList is not defined %}{{- bos_token }}{%- endif %}"


def test_second_first_token_is_found(llama: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual fault of published templates: an unconditional BOS, and the runtime adds its own."""
    monkeypatch.setattr(tokenizer, "with_one_bos", lambda template, *_: template)
    path = change_and_export(llama, tmp_path, "chat_template.jinja", GUARD, "{{- bos_token }}")
    report = verify(path, *llama[:2], tiny_export.DIALOGUES, require_stop=False)
    assert failed(report) >= {"tokens, gpt4all 2.8.2", "first token"}
    assert outcome(report)["tokens, llama-cpp-python"]
    assert next(check.measured for check in report.checks if check.name == "first token") == "1, 2"


def test_template_that_always_writes_the_first_token_is_mended(llama: tuple[Path, Path, Path], tmp_path: Path) -> None:
    path = change_and_export(llama, tmp_path, "chat_template.jinja", GUARD, "{{- bos_token }}")
    report = verify(path, *llama[:2], tiny_export.DIALOGUES, require_stop=False)
    assert report.passed, report.as_json()
    assert next(check.measured for check in report.checks if check.name == "first token") == "1"


def test_wrong_end_token_is_found(llama: tuple[Path, Path, Path], tmp_path: Path) -> None:
    path = change_and_export(
        llama, tmp_path, "tokenizer_config.json", '"eos_token": "<|eot_id|>"', '"eos_token": "<|end_of_text|>"'
    )
    report = verify(path, *llama[:2], tiny_export.DIALOGUES, require_stop=False)
    assert "end token" in failed(report)


def test_model_that_never_ends_fails_only_where_it_must(llama: tuple[Path, Path, Path]) -> None:
    base, adapter, path = llama
    report = verify(path, base, adapter, tiny_export.DIALOGUES)
    assert failed(report) == {"stops"}


def test_abort_in_cpp_is_a_failed_check_and_a_sentence(llama: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, adapter, good = llama
    data = good.read_bytes()
    assert data.count(b"[PAD511]") == 1
    path = tmp_path / "m.gguf"
    path.write_bytes(data.replace(b"[PAD511]", b"[PAD510]"))  # two tokens of one text: llama.cpp asserts
    report = verify(path, base, adapter, tiny_export.DIALOGUES, require_stop=False)
    sentences = {check.name: check.detail for check in report.checks if not check.passed}
    assert "SIGABRT" in sentences["tokens, llama-cpp-python"]
    assert "SIGABRT" in sentences["greedy, gpt4all 2.8.2"]


def test_runtime_that_hangs_is_a_sentence(tmp_path: Path) -> None:
    child = Child(tmp_path, tmp_path / "m.gguf", 1, time_limit_s=0.01)
    with pytest.raises(ChildFailure, match=r"llama_tokens gave no answer within 0\.01 seconds"):
        child.run("llama_tokens")


def test_reference_that_cannot_run_is_a_sentence(llama: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, adapter, path = llama
    with pytest.raises(VerifyError, match="could not be run in transformers"):
        verify(path, tmp_path, adapter, tiny_export.DIALOGUES)


def test_file_that_is_no_gguf_is_a_sentence(llama: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, adapter, _ = llama
    path = tmp_path / "m.gguf"
    with pytest.raises(VerifyError, match="cannot be read"):
        verify(path, base, adapter)
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(VerifyError, match="is no GGUF file"):
        verify(path, base, adapter)


@pytest.mark.parametrize("version", [1, 4, 0x03000000])
def test_other_version_is_a_sentence(llama: tuple[Path, Path, Path], tmp_path: Path, version: int) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", version) + llama[2].read_bytes()[8:])
    with pytest.raises(VerifyError, match=f"GGUF version is {version}, and versions 2 and 3 are known"):
        read_gguf(path)


@pytest.mark.parametrize("fraction", [0.00001, 0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.9999])
def test_truncated_file_is_a_sentence(llama: tuple[Path, Path, Path], tmp_path: Path, fraction: float) -> None:
    data = llama[2].read_bytes()
    path = tmp_path / "m.gguf"
    path.write_bytes(data[: max(6, int(len(data) * fraction))])
    with pytest.raises(VerifyError, match="is damaged: it"):
        read_gguf(path)


def test_damaged_header_never_escapes_as_another_error(llama: tuple[Path, Path, Path], tmp_path: Path) -> None:
    data = bytearray(llama[2].read_bytes())
    path = tmp_path / "m.gguf"
    for position in range(8, 900, 7):
        damaged = bytearray(data)
        damaged[position : position + 4] = b"\xff\xff\xff\x7f"
        path.write_bytes(damaged)
        try:
            read_gguf(path)
        except VerifyError as error:
            assert str(path) in str(error)

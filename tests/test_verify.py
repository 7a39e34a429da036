"""Run with: pytest tests/test_verify.py"""

from __future__ import annotations

import json
import shutil
import struct
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import tiny_export

from llmft.errors import CheckpointError, VerifyError
from llmft.export import verify as verification
from llmft.export.proof import judge, lines, reference, runtimes
from llmft.export.proof.checks import Check, Report, print_report
from llmft.export.proof.child import Child, ChildFailure
from llmft.export.proof.gguf_file import read_gguf
from llmft.export.proof.mapped import wake_while_used
from llmft.export.proof.page import page
from llmft.export.verify import Limits, Texts
from llmft.export.vocabulary import tokenizer
from llmft.export.writer import export, export_file

# llama: LLaMA 3.1's stretched rope and an untied head; gptj: as the embedded base
FAMILIES = {"llama": {"tied": False, "rope": "llama3"}, "gptj": {"tied": True}}
LIMITS = Limits(threads=1)  # ggml's threads spin at barriers, which a busy machine punishes
NEVER_ENDS = replace(LIMITS, require_stop=False)
ASKED = Texts(tiny_export.DIALOGUES)
CALLS = [[*chat, {"role": "assistant", "content": "Restez allongé, j'envoie une équipe."}] for chat in tiny_export.DIALOGUES]
verify = partial(verification.verify, limits=NEVER_ENDS)


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
    report = verify(folder / "m-F16.gguf", base, [adapter], Texts(tiny_export.DIALOGUES, CALLS, ["Où ?"]))
    assert report.passed, report.as_json()
    measured = {check.name: check.measured for check in report.checks}
    assert set(measured) == {
        *("end token", "first token", "template", "template, GPT4All's Jinja"),
        *("tokens, llama-cpp-python", "tokens, gpt4all 2.8.2", "lines, llama-cpp-python", "lines, gpt4all 2.8.2"),
        *("logits, KL", "logits, top-1", "perplexity", "greedy, gpt4all 2.8.2"),
    }
    said = 1 + sum(map(len, [*tiny_export.DIALOGUES, *CALLS]))
    assert measured["lines, llama-cpp-python"] == measured["lines, gpt4all 2.8.2"] == f"{1000 + said} of {1000 + said}"
    assert measured["perplexity"] > 100  # of random weights
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
            [adapter],
            ASKED,
            reference_f16=reference,
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
    report = verify(path, base, [adapter], ASKED)
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
    report = verify(path, llama[0], [llama[1]], ASKED)
    assert {"tokens, llama-cpp-python", "tokens, gpt4all 2.8.2"} <= failed(report)


GUARD = "{%- if toolList is not defined %}{{- bos_token }}{%- endif %}"


def test_second_first_token_is_found(llama: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual fault of published templates: an unconditional BOS, and the runtime adds its own."""
    monkeypatch.setattr(tokenizer, "with_one_bos", lambda template, *_: template)
    path = change_and_export(llama, tmp_path, "chat_template.jinja", GUARD, "{{- bos_token }}")
    report = verify(path, llama[0], [llama[1]], ASKED)
    assert failed(report) >= {"tokens, gpt4all 2.8.2", "first token"}
    assert outcome(report)["tokens, llama-cpp-python"]
    assert next(check.measured for check in report.checks if check.name == "first token") == "1, 2"


def test_template_that_always_writes_the_first_token_is_mended(llama: tuple[Path, Path, Path], tmp_path: Path) -> None:
    path = change_and_export(llama, tmp_path, "chat_template.jinja", GUARD, "{{- bos_token }}")
    report = verify(path, llama[0], [llama[1]], ASKED)
    assert report.passed, report.as_json()
    assert next(check.measured for check in report.checks if check.name == "first token") == "1"


def test_wrong_end_token_is_found(llama: tuple[Path, Path, Path], tmp_path: Path) -> None:
    path = change_and_export(
        llama, tmp_path, "tokenizer_config.json", '"eos_token": "<|eot_id|>"', '"eos_token": "<|end_of_text|>"'
    )
    report = verify(path, llama[0], [llama[1]], ASKED)
    assert "end token" in failed(report)


def test_model_that_never_ends_fails_only_where_it_must(llama: tuple[Path, Path, Path]) -> None:
    base, adapter, path = llama
    report = verify(path, base, [adapter], ASKED, limits=LIMITS)
    assert failed(report) == {"stops"}


def test_abort_in_cpp_is_a_failed_check_and_a_sentence(llama: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, adapter, good = llama
    data = good.read_bytes()
    assert data.count(b"[PAD511]") == 1
    path = tmp_path / "m.gguf"
    path.write_bytes(data.replace(b"[PAD511]", b"[PAD510]"))  # two tokens of one text: llama.cpp asserts
    report = verify(path, base, [adapter], ASKED)
    sentences = {check.name: check.detail for check in report.checks if not check.passed}
    assert "SIGABRT" in sentences["tokens, llama-cpp-python"]
    assert "SIGABRT" in sentences["greedy, gpt4all 2.8.2"]


def test_runtime_that_hangs_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text("{}")
    (tmp_path / "m.gguf").touch()
    child = Child(tmp_path, tmp_path / "m.gguf", 1, time_limit_s=0.01)
    with pytest.raises(ChildFailure, match=r"llama_tokens gave no answer within 0\.01 seconds"):
        child.run("llama_tokens")


def test_reference_that_cannot_run_is_a_sentence(llama: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, adapter, path = llama
    with pytest.raises(VerifyError, match="could not be run in transformers"):
        verify(path, tmp_path, [adapter], ASKED)


def test_folder_that_is_not_there_is_a_sentence(llama: tuple[Path, Path, Path], tmp_path: Path) -> None:
    for base, adapters in ((tmp_path / "none", [llama[1]]), (llama[0], [tmp_path / "none"])):
        with pytest.raises(VerifyError, match="none is no folder; give the base and the adapter that m.gguf was made from"):
            verify(llama[2], base, adapters)


def test_file_that_is_no_gguf_is_a_sentence(llama: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, adapter, _ = llama
    path = tmp_path / "m.gguf"
    with pytest.raises(VerifyError, match="cannot be read"):
        verify(path, base, [adapter])
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(VerifyError, match="is no GGUF file"):
        verify(path, base, [adapter])


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


def test_lines_are_the_same_for_a_seed_and_hold_every_kind_and_what_was_said() -> None:
    made = lines.compared_lines(["Où ça ?", "e\u0301te\u0301"])
    assert made == lines.compared_lines(["Où ça ?", "e\u0301te\u0301"]) and made != lines.compared_lines([], seed=1)
    assert len(made) == lines.LINES + 2 and made[-2:] == ["Où ça ?", "été"]
    assert len(set(made[: lines.LINES])) > 0.95 * lines.LINES
    text = "".join(made)
    assert all(any(piece.strip() in text for piece in pieces) for pieces in lines.PIECES.values())
    assert len(lines.compared_lines(["a"] * 5000)) == lines.LINES + 1000
    assert lines.kind_of(lines.LINES) == "said in a call" and "right to left" in lines.kind_of(5)


def test_line_that_is_cut_otherwise_is_named_without_its_words() -> None:
    same = [[number] for number in range(lines.LINES + 2)]
    other = [*same[:-1], [7]]
    checks = judge.tokens("llama", [{"ids": [1]}], same, {"ids": [[1]], "lines": other})
    assert [check.passed for check in checks] == [True, False]
    assert checks[1].measured == "1001 of 1002" and checks[1].detail == "line 1002 (said in a call) is cut otherwise"


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{{ messages[0]['content'] }}\n{{ messages[0]['role'].replace('a', 'b') }}", "line 2: the method 'replace'"),
        ("{{ messages[::-1] | length }}", "line 1: a slice with a step"),
        ("{{ messages[0]['content'] | wordwrap }}", "line 1: the filter 'wordwrap'"),
    ],
)
def test_template_that_gpt4all_cannot_parse_is_refused_with_its_line(
    llama: tuple[Path, Path, Path], tmp_path: Path, template: str, fault: str
) -> None:
    job = {"template": template, "dialogues": tiny_export.DIALOGUES[:1], "bos_token": "<s>", "eos_token": "</s>"}
    found = runtimes.template(job, tmp_path, tmp_path)
    rows = [{"text": text} for text in found["texts"]]
    same, linted = judge.templates(read_gguf(llama[2]), rows, found["texts"], found)
    assert same.passed and not linted.passed and linted.detail.startswith(fault)
    assert not judge.templates(read_gguf(llama[2]), rows, ["other"], found)[0].passed


def test_model_mapped_from_its_files_has_the_logits_of_the_whole_one(
    made: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bitsandbytes
    import numpy as np
    import peft  # noqa: F401 - it looks once for bitsandbytes, which the reference hides from it

    monkeypatch.setitem(sys.modules, "bitsandbytes", bitsandbytes)  # and so put back afterwards
    base, adapter, _ = made
    job = {"base": str(base), "adapters": [str(adapter)], "shares": [1.0], "tokenizer": str(adapter), "threads": 1}
    job |= {"dialogues": tiny_export.DIALOGUES, "calls": CALLS, "lines": ["Où ?"], "line_start": ""}
    found = {}
    for is_mapped in (False, True):
        folder = tmp_path / str(is_mapped)
        folder.mkdir()
        found[is_mapped] = reference.compute({**job, "mapped": is_mapped}, folder, folder)
    whole, mapped = found[False], found[True]
    assert (whole["mode"], mapped["mode"]) == (reference.WHOLE, reference.MAPPED)
    assert mapped["loss"] == pytest.approx(whole["loss"], rel=1e-5) and mapped["lines"] == whole["lines"]
    for number in range(reference.MAPPED_DIALOGUES):
        one, other = (np.load(tmp_path / str(kind) / f"logits-{number}.npy") for kind in (False, True))
        np.testing.assert_allclose(one[: len(other)], other, atol=1e-4)
        assert whole["rows"][number]["answer"][: reference.MAPPED_TOKENS] == mapped["rows"][number]["answer"]


def test_dora_is_not_read_from_mapped_files(llama: tuple[Path, Path, Path], tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = tiny_export.save_adapter(tmp_path / "dora", llama[0], use_dora=True)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama[0]), adapter)
    with pytest.raises(CheckpointError, match="a DoRA adapter needs its base whole in memory"):
        wake_while_used(model)


def test_page_shows_every_file_and_fetches_nothing() -> None:
    checks = (Check("logits, KL", True, 3e-4, "< 0.001 nats", "<b>mean</b>"), Check("logits, top-1", False, 0.5, "≥ 99%", ""))
    verified = {f"m-{quant}.gguf": Report(f"m-{quant}.gguf", checks).as_json() for quant in ("F16", "Q4_0")}
    text = page("m", verified)
    assert text.count("<svg") == 2 and text.count("<rect") == 4  # no perplexity was measured
    assert "m-F16.gguf" in text and "m-Q4_0.gguf" in text and "&lt;b&gt;mean" in text and "<b>mean" not in text
    assert "http" not in text.replace("http-equiv", "") and "ÉCHEC" in text
    assert page("m", {}).count("<svg") == 0

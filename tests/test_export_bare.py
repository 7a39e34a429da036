"""Any base and any adapter on the command line, parts, and exports that were killed.

Run with: pytest tests/test_export_bare.py
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_export
from gguf import GGUFReader

from llmft.cli import main
from llmft.errors import CheckpointError
from llmft.export import writer
from llmft.export.file import journal, stream
from llmft.export.file.known import Inputs
from llmft.export.file.quants import QUANTS
from llmft.export.sources import read_sources
from llmft.export.vocabulary import check
from llmft.export.writer import Options, export_file, write_files


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_export.save_zoo_base(tmp_path_factory.mktemp("base"), "llama-2")


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_export.save_adapter_of(tmp_path_factory.mktemp("adapter"), base)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_one_file_and_what_goes_with_it(base: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "export",
        "--base",
        str(base),
        "--adapter",
        str(adapter),
        "--output",
        str(tmp_path / "model.gguf"),
        "--quant",
        "q4_0",
    ]
    assert main(command) == 0
    beside = {f"model.{name}" for name in ("manifest.json", "MODEL_CARD.md", "Modelfile", "gpt4all.ini")}
    assert names(tmp_path) == {"model.gguf", *beside}
    alone = export_file(base, adapter, tmp_path / "alone" / "model.gguf", "Q4_0")
    assert (tmp_path / "model.gguf").read_bytes() == alone.read_bytes()
    before = (tmp_path / "model.gguf").stat().st_mtime_ns
    assert main(command) == 1
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "model.gguf").stat().st_mtime_ns == before


def test_several_quants_and_weighted_adapters(base: Path, adapter: Path, tmp_path: Path) -> None:
    both = ["--adapter", str(adapter), "--adapter", str(adapter), "--weight", "0.25", "--weight", "0.75"]
    command = [
        "export",
        "--base",
        str(base),
        *both,
        "--output",
        str(tmp_path / "m.gguf"),
        "--quant",
        "F32,Q8_0",
        "--mix",
        "ffn=Q4_1",
    ]
    assert main(command) == 0
    assert {"m-F32.gguf", "m-Q8_0.gguf"} <= names(tmp_path)
    single = GGUFReader(export_file(base, adapter, tmp_path / "single.gguf", "F32")).tensors
    for one, other in zip(GGUFReader(tmp_path / "m-F32.gguf").tensors, single, strict=True):
        assert np.abs(one.data - other.data).max() < 1e-5
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(tmp_path / "m-Q8_0.gguf").tensors}
    assert kinds["blk.0.ffn_up.weight"] == "Q4_1" and kinds["blk.0.attn_q.weight"] == "Q8_0"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--quant", "Q4_0"], "needs --output"),
        (["--output", "m.bin", "--quant", "Q4_0"], "must end in .gguf"),
        (["--output", "m.gguf", "--quant", "Q4_0", "--weight", "1"], "0 adapters and 1 weights"),
        (["--output", "m.gguf", "--quant", "Q4_0", "--split-gb", "0"], "--split-gb must be above 0"),
        (["--output", "m.gguf", "--quant", "Q4_0", "--mix", "ffn"], "not of the form PATTERN=TYPE"),
    ],
)
def test_command_that_makes_no_sense_writes_nothing(
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--base", str(base), *options]) == 1
    assert words in capsys.readouterr().err
    assert names(tmp_path) == set()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no folder in which nobody can make a file")
def test_a_place_where_no_file_can_be_made_is_a_sentence(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--base", str(base), "--output", "/proc/x.gguf", "--quant", "F16"]) == 1
    assert capsys.readouterr().err.startswith("llmft: /proc/x.gguf cannot be made: No such file or directory")


def test_parts_are_one_model_to_llama_cpp(base: Path, adapter: Path, tmp_path: Path) -> None:
    from llama_cpp import Llama

    sources = read_sources(base, [adapter])
    options = Options(threads=1, part_bytes=60_000)
    parts = write_files(sources, {QUANTS["Q8_0"]: tmp_path / "m.gguf"}, "m", options)[QUANTS["Q8_0"]]
    assert len(parts) > 2 and parts[0].name == f"m-00001-of-{len(parts):05d}.gguf"
    assert names(tmp_path) == {path.name for path in parts}
    whole = export_file(base, adapter, tmp_path / "whole.gguf", "Q8_0")
    expected = {tensor.name: tensor.data.tobytes() for tensor in GGUFReader(whole).tensors}
    found = {tensor.name: tensor.data.tobytes() for path in parts for tensor in GGUFReader(path).tensors}
    assert found == expected
    scores = []
    for path in (whole, parts[0]):
        llm = Llama(str(path), n_ctx=32, logits_all=True, verbose=False, n_threads=1, n_threads_batch=1)
        llm.eval([5, 300, 17])
        scores.append(llm.scores[:3].copy())
    assert np.array_equal(*scores)


KILLED = """
import os, signal, sys, time
from dataclasses import dataclass, field
from pathlib import Path
from llmft.export import writer
from llmft.export.file import journal, stream
journal.SYNC_BYTES = 1
fast = stream.quantize_rows
path = Path(sys.argv[2])
def until_noted(rows, kind, weights):
    time.sleep(0.02)
    if journal.journal_path(path).read_text().count("\\n") > 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return fast(rows, kind, weights)
stream.quantize_rows = until_noted
writer.export_file(Path(sys.argv[1]), None, path, "Q8_0", threads=1)
"""


def test_killed_export_goes_on_where_it_was(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.gguf"
    whole_path = export_file(base, None, tmp_path / "whole.gguf", "Q8_0")
    environment = {**os.environ, "PYTHONPATH": str(Path(writer.__file__).parents[2])}
    command = [sys.executable, "-c", KILLED, str(base), str(path)]
    assert subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, check=False).returncode == -signal.SIGKILL
    notes = journal.journal_path(path)
    finished = int(notes.read_text().splitlines()[-1])
    assert finished > 2 and not path.exists()
    written: list[str] = []
    write = stream.Output.write

    def watched(output: stream.Output, tensor: Any, piece: Any) -> None:
        written.append(tensor.name)
        write(output, tensor, piece)

    monkeypatch.setattr(stream.Output, "write", watched)
    export_file(base, None, path, "Q8_0")
    tensors = [tensor.name for tensor in read_sources(base).model.tensors]
    assert list(dict.fromkeys(written)) == tensors[finished:]
    found = {tensor.name: tensor.data.tobytes() for tensor in GGUFReader(path).tensors}
    whole = {tensor.name: tensor.data.tobytes() for tensor in GGUFReader(whole_path).tensors}
    assert found == whole
    assert not list(tmp_path.glob("*.partial"))


@dataclass
class Asked:
    """Knows nothing; remembers what it was asked, and ends the export as a user would, at ``end_at``."""

    end_at: str = ""
    names: list[str] = field(default_factory=list)
    weighs: bool = False
    identity: str = "nothing"

    def of(self, tensor: str) -> Inputs:
        self.names.append(tensor)
        if tensor == self.end_at:
            raise KeyboardInterrupt
        return Inputs()


def test_an_embedding_that_is_the_head_too_comes_last_and_an_export_goes_on_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls tell of the head after all layers; its place in the file is the first all the same."""
    sources = read_sources(tiny_export.save_base(tmp_path / "base", tied=True))
    tensors = [tensor.name for tensor in sources.model.tensors]
    assert tensors[0] == "token_embd.weight" and "output.weight" not in tensors
    paths, whole = ({QUANTS["Q4_0"]: tmp_path / name / "m.gguf"} for name in ("a", "b"))
    first, second = Asked(end_at="token_embd.weight"), Asked()
    monkeypatch.setattr(journal, "SYNC_BYTES", 1)
    with pytest.raises(KeyboardInterrupt):
        write_files(sources, paths, "m", Options(threads=1, known=first))
    assert first.names == [*tensors[1:], "token_embd.weight"]
    finished = int(journal.journal_path(paths[QUANTS["Q4_0"]]).read_text().splitlines()[-1])
    write_files(sources, paths, "m", Options(threads=1, known=second))
    assert second.names == first.names[finished:]
    write_files(sources, whole, "m", Options(threads=1))
    assert paths[QUANTS["Q4_0"]].read_bytes() == whole[QUANTS["Q4_0"]].read_bytes()
    assert [tensor.name for tensor in GGUFReader(whole[QUANTS["Q4_0"]]).tensors] == tensors


@pytest.mark.parametrize("changed", ["another quant", "another adapter", "shorter file", "nonsense"])
def test_what_a_killed_export_left_is_used_for_the_same_files_alone(
    base: Path, adapter: Path, tmp_path: Path, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.gguf"
    monkeypatch.setattr(journal, "SYNC_BYTES", 1)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_rename", interrupt)  # all is written, nothing has its name
        with pytest.raises(KeyboardInterrupt):
            export_file(base, None, path, "Q8_0")
    partial = path.with_name("m.gguf.partial")
    assert partial.is_file() and not path.exists()
    if changed == "shorter file":
        partial.write_bytes(partial.read_bytes()[:40_000])
    if changed == "nonsense":
        journal.journal_path(path).write_text("{]")
    quant = "Q4_0" if changed == "another quant" else "Q8_0"
    used = adapter if changed == "another adapter" else None
    export_file(base, used, path, quant)
    other = export_file(base, used, tmp_path / "other" / "m.gguf", quant)
    assert path.read_bytes() == other.read_bytes()
    assert names(tmp_path) == {"m.gguf", "other"}


def test_tokenizer_that_llama_cpp_cuts_otherwise_leaves_no_file(base: Path, tmp_path: Path) -> None:
    """A SentencePiece model whose merges lack all but one way to a piece: llama.cpp would take the others too."""
    changed = tmp_path / "changed"
    changed.mkdir()
    for path in base.iterdir():
        (changed / path.name).symlink_to(path)
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][::-1]  # the ranks, and so the scores, upside down
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][: len(tokenizer["model"]["merges"]) // 2]
    (changed / "tokenizer.json").unlink()
    (changed / "tokenizer.json").write_text(json.dumps(tokenizer))
    out = tmp_path / "out"
    with pytest.raises(CheckpointError, match="llama.cpp cuts the line .* into other tokens; a model with this tokenizer"):
        export_file(changed, None, out / "m.gguf", "Q4_0")
    assert names(out) == set()


def test_a_vocabulary_that_llama_cpp_aborts_on_is_a_sentence(base: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "v.gguf"
    with (
        pytest.raises(CheckpointError, match="llama.cpp cannot (load its|read the) vocabulary"),
        check.checked_vocabulary(b"GGUF" + bytes(60), base / "tokenizer.json", "</s>", scratch),
    ):
        assert scratch.is_file()
    assert not scratch.exists()

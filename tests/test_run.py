"""Whole files only, whatever happens, and a manifest that says what made them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmft.errors import CheckpointError, DiskError
from llmft.run import (
    PARTIAL,
    RunFolder,
    atomic_path,
    base_fingerprint,
    disk_error,
    make_folder,
    manifest,
    require_same_base,
    require_space,
    sha256,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_run_keeps_everything_under_its_root():
    run = RunFolder(Path("runs/demo"))
    paths = [
        run.recipe_path,
        run.manifest_path,
        run.adapter_dir,
        run.checkpoints_dir,
        run.metrics_path,
        run.plots_dir,
        run.evaluation_dir,
    ]
    assert [str(path.relative_to(run.root)) for path in paths] == [
        "recipe.yaml",
        "manifest.json",
        "adapter",
        "checkpoints",
        "metrics.jsonl",
        "plots",
        "evaluation",
    ]


def test_a_file_appears_whole_with_its_folders(tmp_path):
    write_text(tmp_path / "a" / "b.txt", "é\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "é\n".encode()
    assert names(tmp_path / "a") == ["b.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old", "utf-8")
    with pytest.raises(error), atomic_path(path) as partial:
        partial.write_text("half", "utf-8")
        raise error
    assert path.read_text("utf-8") == "old"
    assert names(tmp_path) == ["file"]


def test_a_killed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old", "utf-8")
    script = (
        "import os, signal, sys; from pathlib import Path; from llmft.run import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text("utf-8") == "old"
    assert names(tmp_path) == ["file", f"file{PARTIAL}"]
    write_text(path, "new")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_sentence(tmp_path, number):
    with pytest.raises(DiskError, match="is full; free space"), atomic_path(tmp_path / "file") as partial:
        partial.write_text("half", "utf-8")
        raise OSError(number, "no room")
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_forbidden_folder_is_a_sentence(number):
    error = disk_error(Path("out/file"), OSError(number, os.strerror(number)))
    assert isinstance(error, DiskError)
    assert "out/file cannot be written" in str(error)


@pytest.mark.parametrize("place", ["file/under.txt", "file/folder/under.txt", "folder", "x" * 300])
def test_a_place_where_nothing_can_be_made_is_a_sentence(tmp_path, place):
    (tmp_path / "file").write_text("a file", "utf-8")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DiskError, match=f"{place} cannot be made: .*; choose another place"):
        write_text(tmp_path / place, "text")
    with pytest.raises(DiskError, match="cannot be made: a file stands in the way"):
        make_folder(tmp_path / "file" / place)
    assert names(tmp_path) == ["file", "folder"] and (tmp_path / "file").read_text("utf-8") == "a file"


def test_other_errors_pass_unchanged(tmp_path):
    error = OSError(errno.EIO, "broken")
    assert disk_error(Path("file"), error) is error
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file"):  # what is read is not what is written
        (tmp_path / "source").read_text("utf-8")


def test_space_is_required_on_the_disk_that_will_hold_the_folder(tmp_path):
    require_space(tmp_path / "not" / "there" / "yet", 1)
    with pytest.raises(DiskError, match=r"needs 1,000,000,000,000 MB and its disk has"):
        require_space(tmp_path / "not" / "there" / "yet", 10**18)


@given(st.binary(max_size=5000))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
def test_sha256_is_that_of_the_bytes(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content * 300)  # more than one piece of 1 MiB for the longest
    assert sha256(path) == hashlib.sha256(content * 300).hexdigest()


def test_json_is_readable_utf8(tmp_path):
    write_json(tmp_path / "file.json", {"é": [1]})
    assert (tmp_path / "file.json").read_text("utf-8") == '{\n  "é": [\n    1\n  ]\n}\n'


def test_manifest_tells_what_made_an_artefact():
    made = manifest(seed=3, data={"train": "ab"})
    assert made["seed"] == 3 and made["data"] == {"train": "ab"}
    assert {"created", "versions", "python", "git", "hardware"} <= set(made)
    assert made["versions"]["llmft"] and made["hardware"]["cores"] == os.cpu_count()
    assert json.loads(json.dumps(made)) == made


def test_a_base_that_changed_after_the_training_is_refused(tmp_path):
    base, run = tmp_path / "base", RunFolder(tmp_path / "run")
    base.mkdir()
    weights = bytes(range(256)) * 40_000  # 10 MB, most of which is between the samples
    (base / "model.safetensors").write_bytes(weights)
    require_same_base(run, base)  # no manifest: nothing is known
    write_json(run.manifest_path, {"seed": 1})
    require_same_base(run, base)  # an older one does not say
    write_json(run.manifest_path, {"base_fingerprint": base_fingerprint(base)})
    require_same_base(run, base)
    for changed in (weights + b"x", weights[:-1] + b"x", b"x" + weights[1:]):
        (base / "model.safetensors").write_bytes(changed)
        with pytest.raises(CheckpointError, match="was trained on other weights .* train it again with: llmft sft"):
            require_same_base(run, base)
    (base / "model.safetensors").write_bytes(weights)
    (base / "config.json").write_text("{}")
    require_same_base(run, base)
    (base / "other.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="other weights"):
        require_same_base(run, base)

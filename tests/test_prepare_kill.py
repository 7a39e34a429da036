"""Killed with signal 9 at any moment and run again, `prepare` leaves exactly what an undisturbed run leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_stage import FILES, changed, chat, contents, nonsense, options, record, write_rows

from llmft.prepare.labels import icd_import
from llmft.prepare.parts import Part, PartFolder
from llmft.prepare.readers.sources import ReadOptions
from llmft.prepare.stage import PrepareOptions, knowledge_hash, prepare
from llmft.prepare.synthetic.synthesize import synthesize

LOOP = Path(__file__).parent / "kill_loop.py"
KILLED_LATE = """
import os, signal, sys
from pathlib import Path
from tiny_stage import changed, options
from llmft.prepare.parts import Part, PartFolder
from llmft.prepare.stage import prepare

source, root, left = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
out, begun = root / "out", False

def hook(event, names):
    global left, begun
    begun = begun or event == "os.remove" and str(names[0]).endswith("report.json")
    if begun and event == "os.rename":
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

(out / "report.json").touch()  # an earlier kill took it
sys.addaudithook(hook)
prepare([source], out, changed(options(root), seed=2))
"""


def source_of(folder: Path) -> Path:
    """A hundred calls of every fate."""
    rows = [chat(n, subject=f"P{n // 2}") for n in range(60)] + [chat(n, id=f"again{n}") for n in range(5)]
    rows += [json.loads(call.model_dump_json(exclude_defaults=True)) | {"split": None} for call in synthesize(30, seed=3)]
    rows += [record(n, lang="de") for n in range(70, 75)] + ['{"id": 1, "id": 2}'] * 5
    return write_rows(folder / "calls.jsonl", rows)


def killed(folder: Path, kills: int, *way: str) -> dict[str, int]:
    """Kill and rerun in one process that loads once; how many were killed, and in how many folders."""
    source = source_of(folder)
    command = [sys.executable, str(LOOP), str(source), str(folder), str(kills), "11", *way]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=LOOP.parent)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_all_as_undisturbed(folder: Path, folders: int) -> None:
    whole = contents(folder / "whole" / "out")
    assert sorted(whole) == FILES and whole["duplicates.jsonl"] and whole["quarantine.jsonl"]
    for number in range(folders):
        found = contents(folder / f"k{number:02}" / "out")
        assert [name for name in sorted({*whole, *found}) if whole.get(name) != found.get(name)] == [], number


@pytest.mark.skipif(sys.platform != "linux", reason="the clock of a child's work is Linux's")
def test_killed_twenty_times_at_random_moments_it_leaves_the_same_set(tmp_path):
    found = killed(tmp_path, 20)
    assert found["killed"] >= 20 and found["folders"] >= 13
    assert_all_as_undisturbed(tmp_path, found["folders"])


def test_killed_at_a_rename_or_removal_it_leaves_the_same_set(tmp_path):
    """Between two files is where a careless writer leaves half a set: six such moments from first to last."""
    assert killed(tmp_path, 6, "rename") == {"killed": 6, "folders": 6}
    assert_all_as_undisturbed(tmp_path, 6)


def test_a_killed_run_leaves_whole_files_and_no_report(tmp_path):
    """Killed over an older set, each file is the old or the new one, and the folder does not claim to be whole."""
    source = write_rows(tmp_path / "calls.jsonl", [record(n) for n in range(60)])
    given, out = options(tmp_path), tmp_path / "out"
    prepare([source], out, changed(given, seed=1))
    old = contents(out)
    prepare([source], tmp_path / "new" / "out", changed(given, seed=2))
    new = contents(tmp_path / "new" / "out")
    for left in (0, 4, 13):  # of fourteen renames after the old report has gone; the last one is the new report's
        ended = subprocess.run([sys.executable, "-c", KILLED_LATE, str(source), str(tmp_path), str(left)], cwd=LOOP.parent)
        assert ended.returncode == -signal.SIGKILL
        assert not (out / "report.json").exists()
        for name in set(old) - {"report.json", "calls.duckdb", "versions.jsonl", "report.html", "DATA_CARD.md"}:
            assert (out / name).read_bytes() in (old[name], new[name]), name
    prepare([source], out, changed(given, seed=2))
    assert {**contents(out), "versions.jsonl": b""} == {**new, "versions.jsonl": b""}


def test_parts_that_a_killed_cleaning_up_left_are_not_trusted(tmp_path, monkeypatch):
    """Stopped after a part's words are gone and before its notes are, the next run makes it again."""
    folder = PartFolder(tmp_path / "work")
    folder.begin({"sources": 1})
    folder.write(0, Part(("a\n",), np.zeros(1), {}))

    def stopped(path, **_):
        (path / "part-00000.jsonl").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr("shutil.rmtree", stopped)
        folder.drop()
    folder.begin({"sources": 1})
    assert not folder.has(0)


def stopped_and_changed(folder: Path, monkeypatch, source: Path, given: PrepareOptions, change) -> dict[str, object]:
    """Stopped once the parts are made, with ``change`` done before the rerun: what the rerun leaves."""

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr("llmft.prepare.stage._finish", stopped)
        prepare([source], folder / "out", given)
    assert (folder / "out" / ".work" / "part-00000.json").exists()
    change()
    prepare([source], folder / "out", given)
    return contents(folder / "out")


def test_columns_that_change_between_a_kill_and_the_rerun_are_not_mixed(tmp_path, monkeypatch):
    source, columns = tmp_path / "calls.csv", tmp_path / "columns.yaml"
    rows = [f"fr;PATIENT : {nonsense(n)} OPÉRATEUR : Oui.;PATIENT : {nonsense(n + 50)} OPÉRATEUR : Oui." for n in range(9)]
    source.write_text("\n".join(["langue;first;second", *rows]), "utf-8")
    columns.write_text("transcript: first", "utf-8")
    given = options(tmp_path, read=ReadOptions(columns=str(columns)))
    found = stopped_and_changed(tmp_path, monkeypatch, source, given, lambda: columns.write_text("transcript: second", "utf-8"))
    prepare([source], tmp_path / "new" / "out", given)
    assert found == contents(tmp_path / "new" / "out")
    assert nonsense(53).encode() in found["train.jsonl"] + found["validation.jsonl"] + found["test.jsonl"]


def test_a_table_of_codes_that_comes_between_a_kill_and_the_rerun_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_DATA", str(tmp_path / "data"))
    icd_import._imported.cache_clear()
    table = tmp_path / "table.csv"
    table.write_text("R99.9;un code national\nR99.8;un autre\n", "utf-8")
    rows = [chat(n, labels={"icd10": "R99.9" if n == 3 else "R07.4"}) for n in range(9)]
    source = write_rows(tmp_path / "calls.jsonl", rows)
    found = stopped_and_changed(tmp_path, monkeypatch, source, options(tmp_path), lambda: icd_import.import_table(table))
    icd_import._imported.cache_clear()
    assert found["quarantine.jsonl"] == b""


def test_every_file_of_knowledge_decides(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_DATA", str(tmp_path / "data"))
    (tmp_path / "known" / "protocols").mkdir(parents=True)
    seen = {knowledge_hash()}
    for name in ("names.yaml", "protocols/orl.yaml"):
        for text in ("a", "b"):
            (tmp_path / "known" / name).write_text(text)
            seen.add(knowledge_hash(tmp_path / "known"))
    assert len(seen) == 5 and knowledge_hash() == knowledge_hash()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="children are found in /proc")
def test_workers_end_with_a_killed_run(tmp_path):
    source = write_rows(tmp_path / "calls.jsonl", [record(n) for n in range(2000)])
    code = (
        "import sys; from pathlib import Path; from tiny_stage import options; from llmft.prepare import parts\n"
        "from llmft.prepare.stage import prepare\n"
        "parts.CHUNK_ROWS = 10; root = Path(sys.argv[2])\n"
        "prepare([Path(sys.argv[1])], root / 'out', options(root, workers=2))\n"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(source), str(tmp_path)], cwd=LOOP.parent)
    waited = time.monotonic() + 120
    while not (tmp_path / "out" / ".work" / "part-00001.json").exists() and time.monotonic() < waited:
        time.sleep(0.02)
    workers = [int(child) for child in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()]
    run.kill()
    run.wait()
    assert len(workers) == 2
    waited = time.monotonic() + 60
    while any(map(is_running, workers)) and time.monotonic() < waited:
        time.sleep(0.1)
    assert not any(map(is_running, workers))


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
        return "zombie" not in Path(f"/proc/{process}/status").read_text()
    except (OSError, ProcessLookupError):
        return False

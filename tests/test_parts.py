"""Parts: any number of workers, on this machine or on a cluster, makes the same set, and none is made twice."""

from __future__ import annotations

import json
from concurrent.futures import Future

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_stage import FILES, chat, contents, options, record, write_rows

from llmft.errors import DialogueError
from llmft.prepare import parts
from llmft.prepare.parts import AHEAD, Part, PartFolder, make_parts, worker_pool
from llmft.prepare.stage import prepare


def upper(chunk):
    """A part of a chunk of words."""
    return Part(tuple(f"{word.upper()}\n" for word in chunk), np.array([len(word) for word in chunk]), {"rows": list(chunk)})


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(parts, "CHUNK_ROWS", 7)


@pytest.fixture
def source(tmp_path):
    """Sixty calls of every fate, nine parts."""
    rows = [chat(n, subject=f"P{n // 3}") for n in range(45)] + [chat(n, id=f"again{n}") for n in range(5)]
    return write_rows(tmp_path / "calls.jsonl", [*rows, *(record(n, lang="de") for n in range(50, 55)), "{", '{"a": NaN}'])


@given(st.lists(st.text("ab\u2028\x85é", min_size=1), max_size=30))
def test_a_part_is_read_as_it_was_written(tmp_path_factory, words):
    folder = PartFolder(tmp_path_factory.mktemp("parts") / "work")
    folder.write(3, upper(words))
    lines = [f"{word.upper()}\n" for word in words]
    assert (list(folder.lines(3)), folder.keys(3).tolist(), folder.notes(3)["rows"]) == (lines, list(map(len, words)), words)
    assert folder.has(3) and not folder.has(0)


def test_whole_parts_are_not_made_again(tmp_path, small_chunks):
    folder, made = PartFolder(tmp_path / "work"), []

    def noted(chunk):
        made.append(list(chunk))
        return upper(chunk)

    words = [f"w{n}" for n in range(20)]
    assert make_parts(words, noted, folder, None, 1) == 3 == len(made)
    (tmp_path / "work" / "part-00001.json").unlink()  # its notes make a part whole
    assert make_parts(words, noted, folder, None, 1) == 3
    assert made[3:] == [words[7:14]]


@pytest.mark.parametrize("suffix", ["jsonl", "npy", "json"])
def test_a_part_that_a_power_cut_left_damaged_is_made_again(tmp_path, suffix):
    folder = PartFolder(tmp_path / "work")
    folder.write(0, upper(["a", "b"]))
    assert folder.has(0)
    file = tmp_path / "work" / f"part-00000.{suffix}"
    content = file.read_bytes()
    for damaged in (content[:-1], bytes(len(content)), b""):
        file.write_bytes(damaged)
        assert not folder.has(0)


def test_the_keys_of_all_parts_are_one_table(tmp_path):
    folder = PartFolder(tmp_path / "work")
    for number, words in enumerate((["a", "bb"], [], ["ccc"])):
        folder.write(number, Part(tuple(words), np.array([len(word) for word in words], np.uint8), {}))
    whole = folder.all_keys(3)
    assert whole.tolist() == [1, 2, 3] and whole.dtype == np.uint8


def test_parts_of_another_plan_are_dropped(tmp_path):
    folder = PartFolder(tmp_path / "work")
    folder.begin({"sources": 1})
    folder.write(0, upper(["a"]))
    folder.begin({"sources": 1})
    assert folder.has(0)
    folder.begin({"sources": 2})
    assert not folder.has(0)
    folder.write(0, upper(["a"]))
    (tmp_path / "work" / "plan.json").write_text("{")
    folder.begin({"sources": 2})
    assert not folder.has(0)


def test_no_more_chunks_wait_than_the_workers_need(tmp_path, small_chunks):
    """Memory stays flat: the reader is not run to its end before the first part is written."""
    waiting, most = [0], [0]

    class Slow:
        def submit(self, clean, chunk):
            waiting[0] += 1
            most[0] = max(most[0], waiting[0])
            future: Future[Part] = Future()
            future.result = lambda: (waiting.__setitem__(0, waiting[0] - 1), clean(chunk))[1]
            return future

    folder = PartFolder(tmp_path / "work")
    assert make_parts((f"w{n}" for n in range(700)), upper, folder, Slow(), 2) == 100
    assert most[0] == AHEAD * 2 + 1 and waiting[0] == 0
    assert [line for n in range(100) for line in folder.lines(n)] == [f"W{n}\n" for n in range(700)]


def test_two_workers_make_the_set_of_one(tmp_path, source, small_chunks):
    report = prepare([source], tmp_path / "one" / "out", options(tmp_path))
    assert (report.rows_in, report.quarantined, report.duplicates) == (57, 7, 5)
    prepare([source], tmp_path / "two" / "out", options(tmp_path, workers=2))
    whole = contents(tmp_path / "one" / "out")
    assert sorted(whole) == FILES and contents(tmp_path / "two" / "out") == whole


def test_the_size_of_a_chunk_leaves_no_trace(tmp_path, source, monkeypatch):
    whole = None
    for size in (3, 500):
        monkeypatch.setattr(parts, "CHUNK_ROWS", size)
        prepare([source], tmp_path / f"{size}" / "out", options(tmp_path))
        found = contents(tmp_path / f"{size}" / "out")
        assert found == (whole := whole or found)


def test_strict_in_a_worker_is_the_same_sentence(tmp_path, source, small_chunks):
    sentences = []
    for workers in (1, 2):
        with pytest.raises(DialogueError) as caught:
            prepare([source], tmp_path / "out", options(tmp_path, strict=True, workers=workers))
        sentences.append(str(caught.value))
    assert sentences[0] == sentences[1] and "calls.jsonl:51: " in sentences[0]


def test_one_worker_is_this_process():
    with worker_pool(1, None) as executor:
        assert executor is None
    with worker_pool(2, None) as executor:
        assert executor.submit(json.dumps, {"a": 1}).result() == '{"a": 1}'


def test_a_dask_cluster_makes_the_set_of_one_worker(tmp_path, source, small_chunks):
    distributed = pytest.importorskip("distributed")
    prepare([source], tmp_path / "one" / "out", options(tmp_path))
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=str(tmp_path / "dask")
    ) as cluster:
        prepare([source], tmp_path / "two" / "out", options(tmp_path, cluster=cluster.scheduler_address))
        assert len(cluster.workers) == 2
    assert contents(tmp_path / "two" / "out") == contents(tmp_path / "one" / "out")


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense"])
def test_a_cluster_that_does_not_answer_is_one_sentence(tmp_path, source, monkeypatch, address):
    pytest.importorskip("distributed")
    monkeypatch.setattr("llmft.prepare.parts.CONNECT_S", 1)
    with pytest.raises(DialogueError, match=f"no Dask scheduler answers at {address}; start one with: dask scheduler"):
        prepare([source], tmp_path / "out", options(tmp_path, cluster=address))

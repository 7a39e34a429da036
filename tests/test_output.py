"""The files of a set, written from its parts in memory that hardly grows with them."""

from __future__ import annotations

import tracemalloc

import numpy as np
from tiny_stage import chat, lines_of, options, write_rows

from llmft.prepare.chunk import ChunkOptions, clean_chunk
from llmft.prepare.outcome import decide
from llmft.prepare.output import write_set
from llmft.prepare.parts import Part, PartFolder
from llmft.prepare.readers.sources import ReadOptions, find_sources, read_source
from llmft.prepare.splits import SPLITS
from llmft.prepare.stage import prepare

CHUNK = 500


def make_parts(folder: PartFolder, path, given, parts: int) -> int:
    """Parts of one cleaned chunk over and over, each row with keys of its own."""
    (source,) = find_sources([write_rows(path, [chat(n) for n in range(CHUNK)])], ReadOptions())
    part = clean_chunk(ChunkOptions(given.clean, b"salt", frozenset(), True, False), list(read_source(source, ReadOptions())))
    rng = np.random.default_rng(5)
    for number in range(parts):
        keys = part.keys.copy()
        for name in ("id", "family", "words", "signature"):
            keys[name] = rng.integers(0, 256 if name == "signature" else 2**63, keys[name].shape, keys[name].dtype)
        keys["silver"] = False
        folder.write(number, Part(part.lines, keys, part.notes))
    return parts


def finished(folder: PartFolder, parts: int, out):
    outcome = decide(folder.all_keys(parts), seed=1, recent_from=None, near=True)
    return write_set(folder, parts, outcome, out)


def test_memory_grows_by_some_hundred_bytes_a_row(tmp_path):
    """A million calls then need some 500 MB, most of it their keys, whatever they hold."""
    folder, peaks = PartFolder(tmp_path / "work"), {}
    make_parts(folder, tmp_path / "calls.jsonl", options(tmp_path), 80)
    finished(folder, 2, tmp_path / "warm")  # what is loaded once
    for parts in (10, 80):
        tracemalloc.start()
        counts, families = finished(folder, parts, tmp_path / str(parts))
        peaks[parts] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert counts.total("rows", "out") == families == parts * CHUNK
        assert sum(len(lines_of(tmp_path / str(parts) / f"{split}.jsonl")) for split in SPLITS) == parts * CHUNK
    grown = (peaks[80] - peaks[10]) / (70 * CHUNK)
    assert grown < 450, grown


def test_a_later_copy_that_people_labelled_stays_and_is_named(tmp_path):
    bare, labelled = chat(1), chat(1, labels={"urgency": "U3", "specialty": "orl"})
    sources = [write_rows(tmp_path / "a.jsonl", [bare, chat(2)]), write_rows(tmp_path / "b.jsonl", [{**labelled, "id": "later"}])]
    report = prepare(sources, tmp_path / "out", options(tmp_path, near_duplicates=True))
    kept = [row for split in SPLITS for row in lines_of(tmp_path / "out" / f"{split}.jsonl")]
    assert {row["id"]: row.get("labels", {}).get("confidence") for row in kept}["later"] == "gold"
    (copy,) = lines_of(tmp_path / "out" / "duplicates.jsonl")
    assert (copy["id"], copy["file"], copy["same_as"], copy["kind"]) == (bare["id"], str(sources[0]), "later", "exact")
    assert [row["id"] for row in lines_of(tmp_path / "out" / "lineage.jsonl")][0] == bare["id"]
    assert report.rows_in == report.rows_out + report.quarantined + report.duplicates + report.refused == 3

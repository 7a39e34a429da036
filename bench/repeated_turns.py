"""How much of what `bench/prepare.py` measures comes from turns that are said again word for word.

    .venv/bin/python bench/repeated_turns.py 4000
    .venv/bin/python bench/repeated_turns.py 4000 --forget

Counts the turns of so many raw calls that an earlier one has said already, and cleans the calls one by one: as `llmft
prepare` does, which remembers what the rules read in the last turns, or with --forget, so that no call gains from the
turns of an earlier one. Prints the milliseconds of CPU a call.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from prepare import SHARD, shard  # bench/prepare.py

import llmft.protocol
from llmft.prepare.chunk import ChunkOptions, clean_chunk
from llmft.prepare.readers.sources import ReadOptions, find_sources, read_source
from llmft.prepare.record import CleanOptions, Row
from llmft.protocol import answer, questions, terms
from llmft.protocol.heard import heard

REMEMBER = (  # what is kept of whole turns from one call to the next
    llmft.protocol._hints, answer._answer_of, heard, questions._telling, questions.complaint_asked, terms.words_of,
)  # fmt: skip
WARM = 1000  # calls before the first one that counts


def repeated(lines: Iterable[str]) -> tuple[float, float]:
    """The shares of turns, and of their characters, that an earlier turn has said."""
    seen: set[str] = set()
    turns = characters = again = again_characters = 0
    for line in lines:
        for message in json.loads(line)["messages"]:
            text = message["content"]
            turns, characters = turns + 1, characters + len(text)
            if text in seen:
                again, again_characters = again + 1, again_characters + len(text)
            seen.add(text)
    return again / turns, again_characters / characters


def rows_of(lines: Iterable[str]) -> list[Row]:
    """The calls as the reader gives them."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "calls.jsonl")
        path.write_text("".join(lines), "utf-8")
        options = ReadOptions()
        return [row for source in find_sources([path], options) for row in read_source(source, options)]


def cleaned(rows: Sequence[Row], options: ChunkOptions, *, forget: bool) -> float:
    """Seconds of CPU for ``rows``, without those that forgetting takes."""
    spent = 0.0
    for row in rows:
        started = time.process_time()
        clean_chunk(options, [row])
        spent += time.process_time() - started
        for known in REMEMBER if forget else ():
            known.cache_clear()
    return spent


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="what repeated turns are worth")
    parser.add_argument("calls", type=int, help=f"how many, more than {WARM}")
    parser.add_argument("--forget", action="store_true", help="forget after each call what was found out about its turns")
    chosen = parser.parse_args()
    shards = -(-chosen.calls // SHARD)
    lines = [line for number in range(shards) for line in shard("raw", number).splitlines(keepends=True)][: chosen.calls]
    turns, characters = repeated(lines)
    print(f"{len(lines)} calls: {turns:.0%} of the turns were said before, {characters:.0%} of the characters")
    rows, options = rows_of(lines), ChunkOptions(CleanOptions(salt=bytes(32)), bytes(32), frozenset(), False, False)
    gc.disable()
    cleaned(rows[:WARM], options, forget=chosen.forget)
    spent = cleaned(rows[WARM:], options, forget=chosen.forget)
    print(f"{1000 * spent / (len(rows) - WARM):.3f} ms of CPU a call{', turns forgotten after each' if chosen.forget else ''}")


if __name__ == "__main__":
    main()

"""Near-duplicate search: time, memory, and what it finds of copies planted among synthetic calls.

    .venv/bin/python bench/near_duplicates.py 10000
    .venv/bin/python bench/near_duplicates.py 100000
    .venv/bin/python bench/near_duplicates.py 10000 --datasketch   # the same calls through datasketch's MinHashLSH

Every tenth call gets one copy, of each kind in turn. Recall is the share of copies that land in their original's
group; precision the share of dropped rows that share 0.65 of their word pairs or more with the row that stays
(counted exactly). Writes bench/results/near-duplicates-<calls>[-datasketch].json.
"""

from __future__ import annotations

import json
import os
import platform
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np

from llmft.prepare.cleaning.duplicates import SIGNATURE_BYTES, THRESHOLD, fingerprint, near_duplicates, signature
from llmft.prepare.cleaning.normalise import words
from llmft.prepare.synthetic.synthesize import synthesize

KINDS = ("2 % words wrong", "5 % words wrong", "10 % words wrong", "an exchange missing", "other name and age")
FILLERS = ("je", "il", "elle", "de", "la", "un", "pas", "mal", "oui", "the", "a", "is", "my", "no", "so", "it", "was")


def misheard(rng: random.Random, texts: list[str], error: float) -> list[str]:
    """The texts as a second speech recogniser may write them: words replaced, lost, added."""
    heard = []
    for text in texts:
        kept: list[str] = []
        for word in text.partition("```json")[0].split():
            chance = rng.random() / error
            if chance >= 0.8:
                kept.append(word)
            if chance < 0.6 or 0.8 <= chance < 1:
                kept.append(rng.choice(FILLERS))
        heard.append(" ".join(kept))
    return heard


def copy(rng: random.Random, texts: list[str], kind: str) -> list[str]:
    """One call a second time."""
    if kind == "an exchange missing":
        place = rng.randrange(1, max(2, len(texts) - 2))
        return texts[:place] + texts[place + 2 :]
    if kind == "other name and age":
        return [*texts[:-1], "c'est pour [NOM_2], 47 ans", texts[-1]]
    return misheard(rng, texts, int(kind.split()[0]) / 100)


def calls(count: int) -> Iterator[tuple[list[str], int | None, str]]:
    """``count`` calls with their copies: texts, the original's row, the kind of copy."""
    rng, row = random.Random(9), 0
    for number, dialogue in enumerate(synthesize(count, 9)):
        texts = [turn.text for turn in dialogue.turns]
        yield texts, None, ""
        if number % 10 == 0:
            kind = KINDS[number // 10 % len(KINDS)]
            yield copy(rng, texts, kind), row, kind
            row += 1
        row += 1


def shared(left: list[str], right: list[str]) -> float:
    """The exact share of common word pairs."""
    a, b = (set(zip(spoken, spoken[1:], strict=False)) for spoken in (words(left), words(right)))
    return len(a & b) / len(a | b)


def with_datasketch(texts: list[list[str]]) -> tuple[float, float]:
    """Seconds that datasketch needs for the signatures and for its tables, at its own best threshold split."""
    from datasketch import MinHash, MinHashLSH

    started = time.perf_counter()
    hashes = []
    for call in texts:
        spoken = words(call)
        made = MinHash(num_perm=128)
        made.update_batch([b" ".join(pair) for pair in zip(spoken, spoken[1:], strict=False)])
        hashes.append(made)
    signed = time.perf_counter()
    tables = MinHashLSH(threshold=THRESHOLD, num_perm=128)
    for number, made in enumerate(hashes):
        tables.query(made)
        tables.insert(number, made)
    return signed - started, time.perf_counter() - signed


def peak_mb() -> int:
    """Peak resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def ours(texts: list[list[str]], origins: list[int | None], kinds: list[str]) -> dict[str, object]:
    """Time, memory, recall and precision of our search."""
    started = time.perf_counter()
    signatures = np.frombuffer(b"".join(signature(words(call)) for call in texts), np.uint8).reshape(-1, SIGNATURE_BYTES)
    signed = time.perf_counter()
    before = peak_mb()
    home = near_duplicates(signatures).tolist()
    searched = time.perf_counter()
    for call in texts:
        fingerprint(words(call))
    dropped = [(row, kept) for row, kept in enumerate(home) if kept != row]
    found = Counter(kinds[row] for row, first in enumerate(origins) if first is not None and home[row] == home[first])
    planted = Counter(kind for kind in kinds if kind)
    shares = [shared(texts[kept], texts[row]) for row, kept in dropped]
    return {
        "signature_ms": round((signed - started) / len(texts) * 1e3, 3),
        "fingerprint_ms": round((time.perf_counter() - searched) / len(texts) * 1e3, 3),
        "search_s": round(searched - signed, 2),
        "search_added_mb": peak_mb() - before,
        "dropped": len(shares),
        "dropped_not_planted": sum(origins[row] is None for row, _ in dropped),
        "recall": {kind: round(found[kind] / planted[kind], 3) for kind in KINDS if planted[kind]},
        "precision": round(sum(share >= THRESHOLD for share in shares) / len(shares), 3),
        "least_share_dropped": round(min(shares), 3),
    }


def main() -> None:
    """Measure one size in one process, so that the peak memory is its own."""
    count = int(sys.argv[1])
    other = "--datasketch" in sys.argv
    rows = list(calls(count))
    texts, origins, kinds = ([row[column] for row in rows] for column in range(3))
    result: dict[str, object] = {"calls": len(texts), "texts_mb": peak_mb()}
    if other:
        signing_s, tables_s = with_datasketch(texts)
        result |= {"signature_ms": round(signing_s / len(texts) * 1e3, 3), "search_s": round(tables_s, 2)}
    else:
        result |= ours(texts, origins, kinds)
    result |= {"peak_mb": peak_mb(), "machine": {"cores": os.cpu_count(), "python": platform.python_version()}}
    result["load_before"] = [round(load, 2) for load in os.getloadavg()]
    result["versions"] = {name: metadata.version(name) for name in ("numpy", "xxhash", *(["datasketch"] if other else []))}
    path = Path("bench/results") / f"near-duplicates-{count}{'-datasketch' if other else ''}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

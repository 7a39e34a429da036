"""Calls that stand in the data twice: the same words (exact), or nearly the same (MinHash over word pairs).

Word pairs and 0.65 were measured on our calls: a second transcription with one word in twenty wrong shares
0.74 or more of its pairs (95 of 100), two calls of one family in other wordings 0.53 or less (99 of 100).

A signature is 150 minimum hashes, one byte each (b-bit MinHash: two different minima agree by chance once in
256). The search sorts one band of 5 bytes after another, so a million calls need 150 MB and a few sorted
columns; the tables of ``datasketch`` hold 5 kB a call (bench/near_duplicates.py).
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from llmft.prepare.cleaning.normalise import words

if TYPE_CHECKING:
    from numpy import bool_, integer, uint8, uint64
    from numpy.typing import NDArray

BANDS, BAND_BYTES = 30, 5  # a pair that shares 0.65 meets in one band or more with probability 0.97
SIGNATURE_BYTES = BANDS * BAND_BYTES
THRESHOLD = 0.65  # share of two calls' word pairs (Jaccard) from which they are one call
_NEEDED = math.ceil(SIGNATURE_BYTES * (THRESHOLD + (1 - THRESHOLD) / 256))  # agreeing bytes, chance included
_WINDOW = 32  # neighbours that a row is compared with in a crowded bucket, besides the bucket's first row
_CHUNK = 1 << 15  # pairs compared at once: 10 MB

Groups = list[tuple[int, ...]]


def fingerprint(texts: Iterable[str]) -> bytes:
    """16 bytes that two calls share when they say the same words; empty when nothing is said."""
    spoken = words(texts)
    return hashlib.blake2b(b" ".join(spoken), digest_size=16).digest() if spoken else b""


def signature(texts: Iterable[str]) -> bytes:
    """``SIGNATURE_BYTES`` bytes, more of them equal the more alike two calls are; empty when nothing is said."""
    import numpy as np
    from xxhash import xxh3_64_intdigest

    spoken = words(texts)
    if not spoken:
        return b""
    hashes = np.fromiter(map(xxh3_64_intdigest, spoken), np.uint64, len(spoken))
    factors, addends = _hash_functions()
    pairs = hashes[:-1] * factors[0] + hashes[1:] if len(hashes) > 1 else hashes
    least = np.full(SIGNATURE_BYTES, -1, np.int64).view(np.uint64)
    for start in range(0, len(pairs), 4096):  # the table of a 5 MB call would not fit
        table = pairs[start : start + 4096, None] * factors + addends  # (word pairs, hash functions)
        np.minimum(least, table.min(axis=0), out=least)
    return (least >> np.uint64(32)).astype(np.uint8).tobytes()


@cache
def _hash_functions() -> tuple[NDArray[uint64], NDArray[uint64]]:
    """Odd factors and addends of ``SIGNATURE_BYTES`` multiply-add hash functions, the same on every machine."""
    import numpy as np
    from xxhash import xxh3_64_intdigest

    numbers = np.array([xxh3_64_intdigest(b"%d" % i) for i in range(2 * SIGNATURE_BYTES)], np.uint64)
    return numbers[::2] | np.uint64(1), numbers[1::2]


def exact_duplicates(fingerprints: Iterable[tuple[int, bytes]]) -> Groups:
    """Rows with the same fingerprint, each group ascending: the first stays. Empty fingerprints are passed over."""
    import numpy as np

    rows, table = _stacked(fingerprints, 16)
    halves = table.view(np.uint64)
    order = np.lexsort((rows, halves[:, 0], halves[:, 1]))
    same = (halves[order][1:] == halves[order][:-1]).all(axis=1)
    groups: dict[int, list[int]] = {}
    first = -1
    for place in np.flatnonzero(same).tolist():  # only rows that have a twin
        if place == 0 or not same[place - 1]:
            first = int(rows[order[place]])
        groups.setdefault(first, [first]).append(int(rows[order[place + 1]]))
    return sorted(tuple(group) for group in groups.values())


def near_duplicates(signatures: Iterable[tuple[int, bytes]]) -> Groups:
    """Groups of rows that are nearly one call, each ascending: the first stays, the others resemble it.

    ``signatures`` are (row number, signature) in any order, row numbers once each; the result depends
    on neither the order nor the workers. About 200 bytes of memory a row.
    """
    import numpy as np

    rows, table = _stacked(signatures, SIGNATURE_BYTES)
    active = np.argsort(rows, kind="stable")  # places in the table, by row number
    groups: dict[int, list[int]] = {}
    while True:  # a row whose likeness was itself dropped is looked at again among those that stay
        kept_by = _kept_by(table, active)
        dropped = np.flatnonzero(kept_by != np.arange(len(active)))
        if not len(dropped):
            return sorted(tuple(sorted(group)) for group in groups.values())
        for place in dropped.tolist():
            kept, gone = (int(rows[active[i]]) for i in (kept_by[place], place))
            groups.setdefault(kept, [kept]).extend(groups.pop(gone, [gone]))
        active = np.delete(active, dropped)


def _stacked(pairs: Iterable[tuple[int, bytes]], width: int) -> tuple[NDArray[integer[Any]], NDArray[uint8]]:
    """Row numbers and a table of their bytes, ``width`` a row; nothing said is empty, or zeros in a fixed-width column."""
    import numpy as np

    rows, table, nothing = array("q"), bytearray(), bytes(width)
    for row, value in pairs:
        if value and value != nothing:
            rows.append(row)
            table += value
    return np.frombuffer(rows, np.int64), np.frombuffer(table, np.uint8).reshape(len(rows), width)


def _kept_by(table: NDArray[uint8], active: NDArray[Any]) -> NDArray[Any]:
    """For each of ``active`` the position of the row that it duplicates, or its own."""
    import numpy as np

    earliest = np.arange(len(active))  # the earliest row that each is known to resemble
    for band in range(BANDS):
        _search_band(table, active, band, earliest)
    result = np.arange(len(active))
    for place in np.flatnonzero(earliest != result).tolist():
        if result[earliest[place]] == earliest[place]:  # what it resembles stays, so this one goes
            result[place] = earliest[place]
    return result


def _search_band(table: NDArray[uint8], active: NDArray[Any], band: int, earliest: NDArray[Any]) -> None:
    """Lower ``earliest`` by what the rows of each bucket of one band resemble."""
    import numpy as np

    keys = np.zeros(len(active), np.uint64)
    for column in range(band * BAND_BYTES, (band + 1) * BAND_BYTES):
        keys = keys << np.uint64(8) | table[active, column]
    order = np.argsort(keys, kind="stable")  # in a bucket the earlier row comes first
    keys = keys[order]
    follows = np.flatnonzero(np.concatenate(([False], keys[1:] == keys[:-1])))
    if not len(follows):
        return
    heads = np.searchsorted(keys, keys[follows])  # where each bucket begins
    _compare(table, active, order[heads], order[follows], earliest)
    for step in range(1, _WINDOW + 1):
        open_ = (follows - step > heads) & (earliest[order[follows]] > order[heads])
        follows, heads = follows[open_], heads[open_]
        if not len(follows):
            return
        _compare(table, active, order[follows - step], order[follows], earliest)


def _compare(
    table: NDArray[uint8], active: NDArray[Any], before: NDArray[Any], after: NDArray[Any], earliest: NDArray[Any]
) -> None:
    """Compare pairs of positions (before, after), of which none has the same ``after`` twice."""
    import numpy as np

    news = before < earliest[after]
    before, after = before[news], after[news]
    for start in range(0, len(after), _CHUNK):
        left, right = before[start : start + _CHUNK], after[start : start + _CHUNK]
        agree: NDArray[bool_] = table[active[left]] == table[active[right]]
        alike = np.count_nonzero(agree, axis=1) >= _NEEDED
        earliest[right[alike]] = left[alike]

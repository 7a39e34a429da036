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
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy import bool_, int64, uint8, uint64
    from numpy.typing import NDArray

BANDS, BAND_BYTES = 30, 5  # a pair that shares 0.65 meets in one band or more with probability 0.97
SIGNATURE_BYTES = BANDS * BAND_BYTES
THRESHOLD = 0.65  # share of two calls' word pairs (Jaccard) from which they are one call
_NEEDED = math.ceil(SIGNATURE_BYTES * (THRESHOLD + (1 - THRESHOLD) / 256))  # agreeing bytes, chance included
_WINDOW = 32  # neighbours that a row is compared with in a crowded bucket, besides the bucket's first row
_CHUNK = 1 << 15  # pairs compared at once: 10 MB


def fingerprint(spoken: Sequence[bytes]) -> bytes:
    """16 bytes that two calls share when they say the same ``words``; zeros when nothing is said."""
    return hashlib.blake2b(b" ".join(spoken), digest_size=16).digest() if spoken else bytes(16)


def signature(spoken: Sequence[bytes]) -> bytes:
    """``SIGNATURE_BYTES`` bytes, more of them equal the more alike the ``words`` of two calls are; zeros for none."""
    import numpy as np
    from xxhash import xxh3_64_intdigest

    if not spoken:
        return bytes(SIGNATURE_BYTES)
    hashes = np.fromiter(map(xxh3_64_intdigest, spoken), np.uint64, len(spoken))
    factors, addends = _hash_functions()
    pairs = hashes[:-1] * factors[0] + hashes[1:] if len(hashes) > 1 else hashes
    least = np.full(SIGNATURE_BYTES, -1, np.int64).view(np.uint64)
    for start in range(0, len(pairs), 4096):  # the table of a 5 MB call would not fit
        table = pairs[start : start + 4096, None] * factors  # (word pairs, hash functions)
        table += addends
        np.minimum(least, table.min(axis=0), out=least)
    return (least >> np.uint64(32)).astype(np.uint8).tobytes()


@cache
def _hash_functions() -> tuple[NDArray[uint64], NDArray[uint64]]:
    """Odd factors and addends of ``SIGNATURE_BYTES`` multiply-add hash functions, the same on every machine."""
    import numpy as np
    from xxhash import xxh3_64_intdigest

    numbers = np.array([xxh3_64_intdigest(b"%d" % i) for i in range(2 * SIGNATURE_BYTES)], np.uint64)
    return numbers[::2] | np.uint64(1), numbers[1::2]


def exact_duplicates(prints: NDArray[uint64]) -> NDArray[int64]:
    """Of each row the first one with the same fingerprint, itself where it is the first.

    ``prints`` are fingerprints as two numbers, (rows, 2); zeros are passed over.
    """
    import numpy as np

    rows = np.arange(len(prints))
    if not len(prints):
        return rows
    order = np.lexsort((prints[:, 0], prints[:, 1]))  # stable: of equals the earlier row comes first
    ordered = prints[order]
    begins = np.append(True, (ordered[1:] != ordered[:-1]).any(axis=1))
    first = np.empty_like(rows)
    first[order] = order[np.flatnonzero(begins)][np.cumsum(begins) - 1]
    return np.where(prints.any(axis=1), first, rows)


def near_duplicates(signatures: NDArray[uint8], among: NDArray[int64] | None = None) -> NDArray[int64]:
    """Of each row the first one that it is nearly the same call as, itself where it stays.

    ``signatures`` are (rows, SIGNATURE_BYTES), zeros are passed over; ``among`` are the rows that are compared, those
    to stay rather than others first, all in their order by default. The result depends on nothing else. About 100 bytes of
    memory a row besides the signatures.
    """
    import numpy as np

    said = np.asarray(signatures.any(axis=1))
    first = np.arange(len(signatures))
    active = first[said] if among is None else among[said[among]]
    searched = np.ones(len(active), bool)
    while searched.any():
        earliest = _earliest_likeness(signatures, active, searched)
        kept_by = _kept_by(earliest)
        dropped = kept_by != np.arange(len(active))
        first[active[dropped]] = active[kept_by[dropped]]
        # A row whose likeness was itself dropped is looked at again, among those that stay.
        searched = (earliest != kept_by)[~dropped]
        active = active[~dropped]
    while (first != first[first]).any():  # what they resemble was dropped later
        first = first[first]
    return first


def _earliest_likeness(table: NDArray[uint8], active: NDArray[Any], searched: NDArray[bool_]) -> NDArray[Any]:
    """For each of ``active`` the position of the earliest one that it resembles, or its own; of those that are searched for."""
    import numpy as np

    earliest = np.arange(len(active))
    for band in range(BANDS):
        _search_band(table, active, band, earliest, searched)
    return earliest


def _kept_by(earliest: NDArray[Any]) -> NDArray[Any]:
    """For each position the one that stays for it: what it resembles, if that stays, or itself."""
    import numpy as np

    result = np.arange(len(earliest))
    for place in np.flatnonzero(earliest != result).tolist():
        if result[earliest[place]] == earliest[place]:
            result[place] = earliest[place]
    return result


def _search_band(
    table: NDArray[uint8], active: NDArray[Any], band: int, earliest: NDArray[Any], searched: NDArray[bool_]
) -> None:
    """Lower ``earliest`` by what the rows of each bucket of one band resemble."""
    import numpy as np

    keys = np.zeros(len(active), np.uint64)
    for column in table[active, band * BAND_BYTES : (band + 1) * BAND_BYTES].T:
        keys = keys << np.uint64(8) | column
    order = np.argsort(keys, kind="stable")  # in a bucket the earlier row comes first
    keys = keys[order]
    follows = np.flatnonzero(np.append(False, keys[1:] == keys[:-1]) & searched[order])
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

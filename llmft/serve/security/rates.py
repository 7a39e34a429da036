"""How often somebody may ask: a bucket of tokens each, in memory."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import ceil
from time import monotonic

MAX_KNOWN = 10_000  # buckets; the ones that were quiet longest are forgotten, and they were full again anyway


@dataclass
class _Bucket:
    tokens: float
    seen: float


class Rates:
    """``per_minute`` requests a minute each, a minute's worth at once."""

    def __init__(self, per_minute: int) -> None:
        self._most, self._per_s = float(per_minute), per_minute / 60
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_s(self, who: str, now: float | None = None) -> int:
        """Take a token; 0 when there was one, else after how many seconds there will be."""
        now = monotonic() if now is None else now
        bucket = self._buckets.pop(who, None) or _Bucket(self._most, now)
        bucket.tokens = min(self._most, bucket.tokens + (now - bucket.seen) * self._per_s)
        bucket.seen = now
        self._buckets[who] = bucket
        while len(self._buckets) > MAX_KNOWN:
            self._buckets.popitem(last=False)
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return 0
        return max(1, ceil((1 - bucket.tokens) / self._per_s))

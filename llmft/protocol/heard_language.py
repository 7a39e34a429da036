"""Which of the two languages somebody speaks, from frequent words that only one of them has."""

from __future__ import annotations

import re
from collections.abc import Iterable

from llmft.knowledge import Lang

FRENCH = "je j ai c est et le la les un une des du mon ma mes pas depuis au avec il elle bonjour suis mal très oui"
ENGLISH = "i m my the and is it s have has been since of to hello hi for with he she not yes pain feel am his her"


def heard_language(texts: Iterable[str]) -> Lang:
    """The language of what was said: French unless it is clearly English."""
    words = re.findall(r"[^\W\d_]+", " ".join(texts).lower())
    english, french = (sum(word in known.split() for word in words) for known in (ENGLISH, FRENCH))
    return "en" if english > french else "fr"

"""Every wording of the knowledge base, and a scan of a text for the held-out ones."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from itertools import product

from pydantic import BaseModel

from llmft.knowledge import Bilingual, Lang, Split, conversation, protocols
from llmft.vocabulary import specialties

LANGS: tuple[Lang, ...] = ("fr", "en")
HELD_OUT: tuple[Split, ...] = ("validation", "test")


def plain(text: str) -> str:
    """Lower case, no accents, no punctuation, single spaces."""
    letters = unicodedata.normalize("NFKD", text.replace("œ", "oe").replace("Œ", "oe"))
    return " ".join(re.findall(r"[a-z0-9]+", "".join(c for c in letters if not unicodedata.combining(c)).lower()))


def bilinguals() -> Iterator[tuple[str, Bilingual]]:
    """Each set of wordings with its place."""
    for protocol in protocols():
        yield from _inside(protocol, protocol.specialty)
    yield from _inside(conversation(), "conversation")


def _inside(value: object, place: str) -> Iterator[tuple[str, Bilingual]]:
    if isinstance(value, Bilingual):
        yield place, value
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            yield from _inside(item, f"{place}.{getattr(item, 'id', getattr(item, 'slot', number))}")
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _inside(getattr(value, name), f"{place}.{name}")


def filled(wording: str, lang: Lang) -> Iterator[str]:
    """The wording with every value that its slots can take."""
    values = {
        "who": [relative.who for relative in conversation().relatives[lang]],
        "duration": conversation().durations[lang],
        "n": range(11),
        "age": range(100),
        "specialty": [entry.fr if lang == "fr" else entry.en for entry in specialties().values()],
    }
    slots = sorted(set(re.findall(r"\{(\w+)\}", wording)))
    for chosen in product(*(values[slot] for slot in slots)):
        yield wording.format(**dict(zip(slots, chosen, strict=True)))


@cache
def held_out() -> dict[str, dict[int, set[tuple[str, ...]]]]:
    """First word ─▶ number of words ─▶ the held-out wordings, plain, as words."""
    index: dict[str, dict[int, set[tuple[str, ...]]]] = {}
    for _, bilingual in bilinguals():
        for lang, split in product(LANGS, HELD_OUT):
            for wording in bilingual.of(lang, split):
                for text in filled(wording, lang):
                    words = tuple(plain(text).split())
                    index.setdefault(words[0], {}).setdefault(len(words), set()).add(words)
    return index


def held_out_in(text: str) -> list[str]:
    """The held-out wordings that stand in ``text``, as whole words in a row."""
    words = tuple(plain(text).split())
    return [
        " ".join(words[start : start + length])
        for start, word in enumerate(words)
        for length, known in held_out().get(word, {}).items()
        if words[start : start + length] in known
    ]

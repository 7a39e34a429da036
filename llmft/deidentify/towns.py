"""Towns of knowledge/towns.yaml in a text, told from ordinary words by what stands around them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from llmft.deidentify.lexicon import is_known
from llmft.deidentify.tokens import tokens
from llmft.deidentify.words import words_of
from llmft.knowledge import load
from llmft.vocabulary import without_accents

_ARTICLES = {"le": "(?:le|au|du)", "les": "(?:les|aux|des)", "la": "la", "l": "l"}
_SAINTS = {"saint": r"(?:saint|st\.?)", "sainte": r"(?:sainte|ste\.?)", "st": r"(?:saint|st\.?)"}
_WITH_ACCENTS = {"a": "[aàâ]", "e": "[eéèêë]", "i": "[iîï]", "o": "[oôö]", "u": "[uùûü]", "c": "[cç]", "y": "[yÿ]"}
_PARTS = re.compile("[A-Za-z\u00c0-\u1fff\u2c00-\ud7ff]+")  # explicit ranges are ten times faster
_BETWEEN_PARTS = r"[\s'’-]+"
_ARTICLE = re.compile(r"^(?:l[’']|(?:la|les?|au|aux|du|des)[\s-]+)", re.IGNORECASE)
_MERGED_ARTICLE = re.compile(r"(?:au|du|aux|des)[\s-]+", re.IGNORECASE)

_PLACED = re.compile(
    r"(?:\b(?:à|a|de|d|du|en|sur|vers|in|near|from|of|to|around|outside|at|ville|commune|habite|entre|between)[\s'’:]+|,\s*|^\s*)$",
    re.IGNORECASE,
)
_PLACED_FIRMLY = re.compile(r"\b(?:à|in|near|from|ville de|commune de|mairie de|à côté de|près de|outside)\s+$", re.IGNORECASE)
_LIVES = re.compile(
    r"\b(?:habit\w+|résid\w+|demeur\w+|viens|vient|originaire|domicili\w+|vis|vit|vivons|live[sd]?|living|based|moved|ville|town|city)\s+"
    r"(?:(?:est|c['’]est|is|à|a|de|in|near|to|from|sur|vers|dans|actuellement|currently)\s+|d['’])*$",
    re.IGNORECASE,
)
# "score de Glasgow", "savon de Marseille": a name for a thing.
_THING = re.compile(
    r"\b(?:score|échelle|scale|syndrome|maladie|savon|moutarde|saucisses?|jambon|eau|plâtre|plaster|huile|fièvre|classification|"
    r"critères?|calendrier|couteau|corset|brace|canal|nougat|dentelle|fort)\s+(?:de|d|du|of)[\s'’]+$",
    re.IGNORECASE,
)
_ENDS = re.compile(r"\s*(?:$|[.,;:!?\n)]|\d)")
_NEARLY_WORDS = frozenset(
    ("gosier", "noisy", "lourdes", "pertuis", "bron", "lisses", "vif", "ris", "bourges", "plaisance", "hayes")
)


@dataclass(frozen=True)
class Town:
    """A place in the text where a town's name stands."""

    start: int
    end: int
    sure: bool  # the words around say that it is a town


def towns(text: str, lang: str) -> Iterator[Town]:
    """Every town's name in ``text``, of names that overlap the longest."""
    read = tokens(text)
    keys = telling_words() & read.unique
    if not keys:
        return
    by_key = _by_key()
    places: dict[str, list[int]] = {}  # name ─▶ where its telling word stands
    for word, start in [(word, start) for word, start in zip(read.words, read.starts, strict=True) if word in keys]:
        for name in by_key[word]:
            places.setdefault(name, []).append(start)
    taken: list[tuple[int, int]] = []
    for name in sorted(places, key=lambda name: (-len(name), name)):
        for match in _matches(text, name, places[name]):
            if any(match.start() < end and start < match.end() for start, end in taken):
                continue
            taken.append(match.span())
            merged = _MERGED_ARTICLE.match(text, match.start(), match.end()) if name[:2] == "Le" else None
            start = merged.end() if merged else match.start()
            yield Town(start, match.end(), _is_placed(text, match, name in _marked(), merged is not None, lang))


def _matches(text: str, name: str, places: list[int]) -> Iterator[re.Match[str]]:
    """Where ``name`` stands near one of ``places``."""
    pattern, reach = _pattern(name), 2 * len(name) + 8
    for place in places:
        yield from pattern.finditer(text, max(0, place - reach), place + reach)


def _is_placed(text: str, match: re.Match[str], marked: bool, merged: bool, lang: str) -> bool:
    before = text[max(0, match.start() - 50) : match.start()].rpartition("¶")[2]
    if _THING.search(before) or (merged and not _LIVES.search(before) and text[match.start()] not in "aA"):
        return False
    capital = _ARTICLE.sub("", match[0])[:1].isupper()
    if marked:
        alone = lang == "fr" and capital and match[0] == text.strip(" .!,")
        written = capital or without_accents(match[0].lower()) not in _only_capital()
        return alone or (written and _PLACED_FIRMLY.search(before) is not None) or _LIVES.search(before) is not None
    if merged:
        return True
    if before.strip() == "" and _is_word(match[0]) and not _ENDS.match(text, match.end()):
        return False  # "Noisy breathing": the capital opens a sentence
    if before.strip() == "" or before.rstrip().endswith(","):  # the whole answer, or one part of an enumeration
        return capital or match[0] == text.strip(" .!,")
    return _PLACED.search(before) is not None


def _is_word(name: str) -> bool:
    """Whether every word of a town's name is an ordinary word, or the name of one."""
    return all(is_known(part) or part in _NEARLY_WORDS for part in words_of(name))


@cache
def telling_words() -> frozenset[str]:
    """Lower-case words without one of which no town stands in a text."""
    return frozenset(_by_key())


@cache
def _only_capital() -> frozenset[str]:
    return frozenset(without_accents(name.lower()) for name in load("towns.yaml")["only_with_capital"])


@cache
def _marked() -> frozenset[str]:
    return frozenset(load("towns.yaml")["also_words"])


@cache
def _by_key() -> dict[str, list[str]]:
    """A telling word of each town's name, as written and without accents ─▶ the towns with that word."""
    knowledge = load("towns.yaml")
    by_key: dict[str, list[str]] = {}
    for name in dict.fromkeys((*knowledge["france"], *knowledge["english"])):
        key = max((part for part in _PARTS.findall(name.lower()) if part not in _ARTICLES and part not in _SAINTS), key=len)
        for spelling in {key, without_accents(key)}:
            by_key.setdefault(spelling, []).append(name)
    return by_key


@cache
def _pattern(name: str) -> re.Pattern[str]:
    """The name in any case, with or without accents and hyphens, "Saint" also as "St", "Le" also within "au"."""
    parts = [without_accents(part) for part in _PARTS.findall(name.lower())]
    first = _ARTICLES.get(parts[0]) if len(parts) > 1 else None
    written = [_SAINTS.get(part) or "".join(_WITH_ACCENTS.get(letter, letter) for letter in part) for part in parts]
    written = [part.replace("[oôö][eéèêë]", "(?:[oôö][eéèêë]|œ)") for part in written]
    name_pattern = _BETWEEN_PARTS.join([first or written[0], *written[1:]])
    return re.compile(rf"(?<![\w-]){name_pattern}(?![\w-])", re.IGNORECASE)

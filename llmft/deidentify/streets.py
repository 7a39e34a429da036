"""Streets with or without a number, French ("12 bis rue de la Paix") and English ("42 Maple Street")."""

from __future__ import annotations

import re
from collections.abc import Iterator

from llmft.deidentify.numbers import NUMBER_WORDS, Piece, pieces_by_end, stretches
from llmft.deidentify.tokens import matches_at, starts_of
from llmft.deidentify.words import BREAK

_SURE_FR = "rue|avenue|av|boulevard|bd|blvd|boul|allée|allee|allées|chemin|impasse|ruelle|faubourg|lotissement|hameau|venelle"
_SURE_FR += "|lieu[ -]dit|sentier"
# These are other things as often as streets: a number or a capital name must stand beside them.
_UNSURE_FR = "place|cours|route|passage|résidence|residence|square|cité|villa|clos|domaine|quai|montée|traverse|promenade"
_UNSURE_FR += "|esplanade|mail|parvis"
_TYPE_FR = re.compile(rf"(?<![\w-])(?:(?P<sure>{_SURE_FR})|(?P<unsure>{_UNSURE_FR}))(?![\w-])\.?", re.IGNORECASE)
_SURE_EN = "street|road|avenue|lane|boulevard|crescent|terrace|ave|blvd|rd"
_UNSURE_EN = "st|drive|dr|close|court|ct|way|gardens|grove|place|square|hill|mews|walk|parkway|circle|trail|row|ln|park"
_TYPE_EN = re.compile(rf"\b(?:(?P<sure>{_SURE_EN})|(?P<unsure>{_UNSURE_EN}))\b", re.IGNORECASE)
_WORDS_FR = frozenset(f"{_SURE_FR}|{_UNSURE_FR}|lieu".split("|"))
_WORDS_EN = frozenset(f"{_SURE_EN}|{_UNSURE_EN}".split("|"))
STREET_WORDS = _WORDS_FR | _WORDS_EN
_LIVES = re.compile(
    r"\b(?:habit\w+|adresse|demeur\w+|domicil\w+|réside\w*|situé\w*|live[sd]?|living|address|stay\w*)\b[^.?!\n]{0,40}$",
    re.IGNORECASE,
)
_NUMBER_TAIL = re.compile(r"[\s,]*(?:\b(?:bis|ter|quater|[a-d])\b)?[\s,]*$", re.IGNORECASE)
_DATE_NAME = re.compile(
    r"\s+du\s+(?:\d{1,2}|\w+(?:[\s-]\w+)?)\s+"
    r"(?:janvier|février|mars|avril|mai|juin|juillet|août|septembre|octobre|novembre|décembre)"
    r"(?:\s+(?:19\d\d|dix[\s-]neuf[\s-]cent(?:[\s-](?:quarante|cinquante|soixante)(?:[\s-](?:et[\s-]un|deux|trois"
    r"|quatre|cinq))?)?))?",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"\s*([^\s,.;:?!()]+)")
_PARTICLES = frozenset(("de", "du", "des", "la", "le", "les", "d", "l", "aux", "en"))
_END_OF_NAME_LIST = """
    à a au c ce cest c'est ça je j'ai jai il elle on et ou où mais pour avec chez qui que dans sur près numéro code
    appartement appart bâtiment batiment escalier étage porte digicode interphone premier première deuxième troisième
    quatrième rez hier depuis parce mon ma mes son sa est suis sont oui non merci voilà donc alors euh ben j'habite j s'il
    quand si ne pas vers sans puis très in near and at apartment apt flat
"""
_END_OF_NAME = frozenset(_END_OF_NAME_LIST.split()) | NUMBER_WORDS
_NOT_IN_NAME_LIST = """
    minutes minute hours hour days day weeks week months month years year times mg ml tablets pills people cars the my your
    his her a an on in at of for to from down up by and or but was is are i we he she it ago old away into across off over
    along with this that no any one's degrees points percent miles
"""
_NOT_IN_NAME = frozenset(_NOT_IN_NAME_LIST.split())
_FLAT_AFTER = re.compile(r",?\s*(?:apt\.?|apartment|flat|unit|suite)\s+#?(?:number\s+)?\w{1,4}\b", re.IGNORECASE)
_FLAT_BEFORE = re.compile(r"\b(?:flat|apartment|apt|unit)\s+$", re.IGNORECASE)
_ANSWER = re.compile(
    r"^\W*(?:oui|alors|euh|c['’]est|j['’]habite|donc|la|l['’]|\W)*$", re.IGNORECASE
)  # the street answers a question
_WORD_BEFORE = re.compile(r"([A-Za-z0-9'’-]+)\s+$")


def streets(text: str, lang: str) -> Iterator[tuple[int, int]]:
    """Places of streets, each with its number."""
    starts = starts_of(text, _WORDS_FR)
    yield from (place for match in matches_at(_TYPE_FR, text, starts) if (place := _french(text, match)))
    if lang == "en":
        starts = starts_of(text, _WORDS_EN)
        yield from (place for match in matches_at(_TYPE_EN, text, starts) if (place := _english(text, match)))


def _french(text: str, match: re.Match[str]) -> tuple[int, int] | None:
    tail = _NUMBER_TAIL.search(text, max(0, match.start() - 12), match.start())
    number = _number_ending(text, tail.start() if tail else match.start())
    dated = _DATE_NAME.match(text, match.end())
    end = dated.end() if dated else _name_end(text, match.end())
    if end is None or (match["unsure"] and BREAK in text[match.end() : end]):
        return None  # "it stays in one place", and the next turn begins with "I"
    capital = re.search(r"(?:^|[\s'’-])[A-ZÉÈÎÂÔ]", text[match.end() : end]) is not None
    lives = _LIVES.search(text, max(0, match.start() - 60), match.start()) is not None
    lives = lives or (match.start() < 40 and _ANSWER.match(text[: match.start()]) is not None)
    if number:
        if match["sure"] or capital or lives or dated:
            return number.start, end
        return None
    return (match.start(), end) if (match["sure"] and (capital or lives or dated)) or (capital and lives) else None


def _number_ending(text: str, position: int) -> Piece | None:
    """The number that ends at ``position``."""
    piece = pieces_by_end(text).get(position)
    return piece if piece and len(piece.digits) <= 4 else None


def _name_end(text: str, position: int) -> int | None:
    """Where a French street's name ends: at most three telling words, in capitals only if the first one is."""
    end, telling, capitals = None, 0, False
    while telling < 4 and (token := _TOKEN.match(text, position)):
        word = token[1]
        bare = re.split(r"['’]", word.lower())[0] if re.match(r"[dl]['’]", word.lower()) else word.lower()
        position = token.end()
        if bare in _PARTICLES and bare == word.lower():
            continue
        if word.lower() in _END_OF_NAME or re.match(r"(?:j|c|qu|s|n|m|t)['’]", word.lower()) or word.isdecimal():
            break
        capital = re.match(r"(?:[dl]['’])?[A-ZÉÈÎÂÔ]", word, re.IGNORECASE) is not None and any(map(str.isupper, word))
        if telling and (capitals and not capital or not capitals and telling == 3):
            break
        telling, capitals, end = telling + 1, capitals or (telling == 0 and capital), token.end()
    return end


def _english(text: str, match: re.Match[str]) -> tuple[int, int] | None:
    start = match.start()
    names: list[str] = []
    number = None
    while len(names) < 4:
        number = _number_ending(text, len(text[:start].rstrip(" ,")))
        if number and names:
            break
        before = _WORD_BEFORE.search(text, max(0, start - 30), start)
        if before is None or before[1].lower() in _NOT_IN_NAME or "\n" in before[0]:
            break
        start = before.start()
        names.append(before[1])
    if not names:
        return None
    capital = all(name[0].isupper() or name[0].isdigit() for name in names) and match[0][0].isupper()
    lives = _LIVES.search(text, max(0, start - 60), start) is not None
    flat = _FLAT_AFTER.match(text, match.end())
    end = flat.end() if flat else match.end()
    if number and names:
        first = _first_of_row(text, number)
        before_flat = _FLAT_BEFORE.search(text, max(0, first - 12), first)
        return (before_flat.start() if before_flat else first, end) if match["sure"] or capital or lives else None
    return (start, end) if match["sure"] and (capital or (lives and len(names) <= 2)) else None


def _first_of_row(text: str, number: Piece) -> int:
    """Where a house number that was read digit by digit begins."""
    row = next(row for row in stretches(text) if number in row)
    upto = [piece for piece in row if piece.start <= number.start]
    return upto[0].start if sum(len(piece.digits) for piece in upto) <= 5 else number.start

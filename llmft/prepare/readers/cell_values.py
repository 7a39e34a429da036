"""What single cells mean: ids, languages, ages, sexes, phone numbers, lists of names."""

from __future__ import annotations

import hashlib
import re
from typing import Literal

from llmft.vocabulary import plain

AgeUnit = Literal["y", "m", "d"]
_UNSAFE = re.compile(r"[^\w.:-]+")
_AGE = re.compile(
    r"(\d{1,3})(?:[.,]0+)?\s*(ans?|an|years?|yrs?|yo|y|a|mois|months?|mo|m|jours?|days?|j|d)?(?:\s+old)?", re.IGNORECASE
)
_SEXES: dict[str, Literal["F", "M"] | None] = {
    **dict.fromkeys(("f", "femme", "female", "feminin", "fille", "woman", "girl", "w", "mme", "2"), "F"),
    **dict.fromkeys(("m", "h", "homme", "male", "masculin", "garcon", "man", "boy", "mr", "1"), "M"),
    **dict.fromkeys(("", "x", "u", "nr", "nc", "na", "0", "9", "inconnu", "unknown", "autre", "other", "indetermine"), None),
}
_LANGUAGES = {
    **dict.fromkeys(("fr", "fra", "fre", "francais", "francaise", "french"), "fr"),
    **dict.fromkeys(("en", "eng", "anglais", "anglaise", "english"), "en"),
}
_CALLERS = {
    **dict.fromkeys(("self", "patient", "patiente", "lui meme", "elle meme", "moi meme"), "self"),
    **dict.fromkeys(
        ("relative", "proche", "parent", "parents", "famille", "family", "mere", "pere", "mother", "father")
        + ("conjoint", "conjointe", "mari", "femme", "husband", "wife", "fils", "fille", "son", "daughter", "spouse"),
        "relative",
    ),
}


def safe_id(text: str) -> str | None:
    """An id that may stand in a record and a file name; None for one that reads like a path.

    Changed ids carry a digest of what they were, so that two of them stay two.
    """
    if not text or "/" in text or "\\" in text or "\0" in text or not text.strip(". "):
        return None
    safe = _UNSAFE.sub("-", text)[:80]
    if safe == text:
        return text
    return f"{safe}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def language_code(text: str) -> str:
    """``fr`` or ``en`` for any of their names, such as fr-FR; other text as it stands."""
    words = plain(text).split()
    return _LANGUAGES.get(words[0], text) if words else text


def age(text: str) -> tuple[int, AgeUnit] | None:
    """Number and unit of "54", "54 ans", "18 mois"; None when it is no possible age."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        return None
    number, unit = int(match[1]), _age_unit((match[2] or "y").lower())
    return None if unit == "y" and number > 130 else (number, unit)


def _age_unit(word: str) -> AgeUnit:
    return "m" if word.startswith("m") else "d" if word[0] in "jd" else "y"


def is_sex(text: str) -> bool:
    """Whether ``text`` is a word for a sex, or for not knowing it."""
    return plain(text) in _SEXES


def sex(text: str) -> Literal["F", "M"] | None:
    """F, M, or None when it is not known."""
    return _SEXES.get(plain(text))


def caller(text: str) -> str:
    """Who calls: self, relative or other."""
    return _CALLERS.get(plain(text), "other")


def names_of(text: str) -> list[str]:
    """The names of a cell that lists several."""
    return [name for part in re.split(r"[;|/\n]", text) if (name := " ".join(part.replace(",", " ").split()))]


def phones_of(text: str) -> list[str]:
    """The numbers of a cell; a spreadsheet that lost the leading zero gets the number with it as well."""
    numbers = [number for part in re.split(r"[;|/,\n]", text) if (number := part.strip())]
    return numbers + [f"0{number}" for number in numbers if re.fullmatch(r"[1-9]\d{8}", number)]

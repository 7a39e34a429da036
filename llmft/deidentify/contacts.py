"""How to reach somebody: phone numbers, e-mail addresses and web addresses, written or dictated."""

from __future__ import annotations

import re

from llmft.deidentify.claims import first_claims
from llmft.deidentify.numbers import NUMBER_WORDS, digits_in
from llmft.deidentify.phones import LAYER, find_phones
from llmft.deidentify.span import Span
from llmft.deidentify.tokens import words

__all__ = ["digits_in", "find"]

_AT_WORDS = frozenset(("arobase", "arobases", "arobas", "arrobase", "arrobas", "arobaze", "commercial", "sign"))
_DOT_WORDS = frozenset(("point", "dot"))
_TLD_NAMES = "fr|com|net|org|eu|uk|co|be|ch|ca|de|es|it|lu|us|ie|info|io|edu|gov|gouv|nhs|pro|paris|bzh"
_TLD = rf"(?:{_TLD_NAMES}|f r|c o m|n e t|o r g|u k|e u)\b"
_DOT = r"(?:\s?\.\s?|\s+(?:point|dot)\s+)"
_LABEL = r"[\w-]+(?:(?:\s+|-)(?!(?:point|dot)\b)[\w-]+){0,7}?"  # one word, or a name that is spelled or cut in words
_PROVIDERS = (
    "gmail|g mail|hotmail|yahoo|orange|free|wanadoo|sfr|la ?poste|outlook|icloud|live|bbox|neuf|numericable|aol|btinternet|nhs"
)
_DOMAIN = re.compile(
    rf"\s*,?\s*(?:{_LABEL}(?:{_DOT}[\w-]+)??{_DOT}{_TLD}(?:{_DOT}{_TLD})?|(?:{_PROVIDERS})\b(?:[\s.]+(?:com|fr|net)\b)?)",
    re.IGNORECASE,
)
_EMAIL = re.compile(r"[^\s@<>()\[\],;:\"“”«»]{1,64} ?@ ?[\w-]+(?:\.[\w-]+)+")
_AT = re.compile(r"\b(?:arr?oba[sz]e?s?|at sign|a commercial|chez(?=\s+[\w-]+\s+point\s+(?:com|fr|net)\b))\b|@", re.IGNORECASE)
_ENGLISH_AT = re.compile(rf"\bat(?=\s+(?:(?!at\b)[\w-]+\s+){{1,9}}?dot\s+{_TLD})", re.IGNORECASE)
_LOCAL_TOKEN = re.compile(r"[^\s,]+|,")
_JOINERS = frozenset(("point", "tiret", "du", "bas", "underscore", "souligné", "moins", "plus"))
_JOINERS |= {"dot", "dash", "hyphen", "underline"}
# Words that stand before a dictated address and are no part of it.
_NOT_LOCAL_WORDS = """
    est mail email e-mail courriel adresse mél à sur le la les mon ma mes son votre notre voici donc alors oui non bonjour merci
    écrire écrivez envoyer envoyez avec par de pour et voilà électronique euh ben toujours noter notez vous je peux pouvez moi me
    joindre contacter répondre ça cest sera cela ou
    is its it my address at the to on so yes no send write contact reach his her your um uh for and that would be well okay sure
    look looking see go find found online website site page
"""
_NOT_LOCAL = frozenset(_NOT_LOCAL_WORDS.split())
_PLAIN_WORDS = 2  # words without a joiner that may still belong to the address, such as first and last name
_URL = re.compile(
    r"https?://[^\s<>\"]+|\bwww\.[^\s<>\"]+|\b[a-z0-9][a-z0-9-]+(?:\.[a-z0-9-]+)*\.(?:gouv\.fr|co\.uk|fr|com|org|net|eu|uk|io)\b(?:/[^\s<>\"]*)?",
    re.IGNORECASE,
)
_INNER_DOT = re.compile(r"\.[a-zA-Z]")
_SPOKEN_URL = re.compile(
    rf"\b(?:(?:w ?w ?w|trois w|triple w){_DOT}[\w-]+(?:\s+[\w-]+){{0,3}}?|[\w-]{{3,}}(?:\s+tiret\s+[\w-]+)?)"
    rf"(?:{_DOT}[\w-]+)??\s+(?:point|dot)\s+(?:fr|com|org|eu|uk|co (?:dot|point) uk|net|c o m)\b",
    re.IGNORECASE,
)


def find(text: str, lang: str) -> list[Span]:
    """Phones [TEL], e-mail addresses [EMAIL] and web addresses [URL] in ``text``."""
    return first_claims(_emails(text) + _urls(text) + find_phones(text, lang))


def _emails(text: str) -> list[Span]:
    said = words(text)
    spans: list[Span] = []
    if "@" in text:
        spans += [_trimmed(match, "EMAIL") for match in _EMAIL.finditer(text)]
    if "@" in text or not _AT_WORDS.isdisjoint(said) or ("chez" in said and "point" in said):
        spans += [span for at in _AT.finditer(text) if not _covered(spans, at.start()) and (span := _dictated(text, at))]
    if "at" in said and "dot" in said:
        spans += [span for at in _ENGLISH_AT.finditer(text) if not _covered(spans, at.start()) and (span := _dictated(text, at))]
    return spans


def _covered(spans: list[Span], position: int) -> bool:
    return any(span.start <= position < span.end for span in spans)


def _trimmed(match: re.Match[str], label: str) -> Span:
    """The match without the full stop or bracket that ends the sentence."""
    return Span(match.start(), match.start() + len(match[0].rstrip(".,;:!?)»…")), label, LAYER)


def _dictated(text: str, at: re.Match[str]) -> Span | None:
    """The address around an "at" that was said aloud."""
    domain = _DOMAIN.match(text, at.end())
    start = _local_start(text, at.start())
    if start == at.start() and (domain is None or at[0].lower() == "at"):
        return None
    return Span(start, domain.end() if domain else at.end(), "EMAIL", LAYER)


def _local_start(text: str, at_start: int) -> int:
    """Where the part before the "at" begins: joined or spelled tokens, and at most a few plain words."""
    line_start = max(text.rfind("\n", 0, at_start) + 1, at_start - 160)
    start, plain_words, after = at_start, 0, "point"
    for token in reversed(list(_LOCAL_TOKEN.finditer(text, line_start, at_start))):
        word = token[0].lower()
        if word == "," or word[-1] in ".?!;:":
            if len(after) > 1 and after not in _JOINERS and after not in NUMBER_WORDS:
                break
            continue
        if word not in _JOINERS and not _is_spelled(word):
            if word in _NOT_LOCAL or "'" in word or "’" in word:
                break
            if after not in _JOINERS:
                plain_words += 1
            if plain_words > _PLAIN_WORDS:
                break
        start, after = token.start(), word
    return start


def _is_spelled(word: str) -> bool:
    return (len(word) == 1 and word not in "àyô") or word.isdecimal() or word in NUMBER_WORDS


def _urls(text: str) -> list[Span]:
    spans: list[Span] = []
    if _INNER_DOT.search(text) or "://" in text:
        spans += [_trimmed(match, "URL") for match in _URL.finditer(text)]
    if not _DOT_WORDS.isdisjoint(words(text)):
        spans += [Span(match.start(), match.end(), "URL", LAYER) for match in _SPOKEN_URL.finditer(text)]
    return spans

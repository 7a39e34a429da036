"""Plants invented personal data into synthetic calls, with the exact place of every piece.

What is planted is known, so how much of it de-identification finds can be counted on every build.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from llmft.deidentify.span import Roster, Span
from llmft.dialogue import Dialogue
from llmft.knowledge import Lang
from llmft.prepare.synthetic import invented
from llmft.prepare.synthetic.invented import Cast, inventory

LAYER = "planted"
LABELS = {
    "name": "NOM",
    "last": "NOM",
    "spelled": "NOM",
    "relative_last": "NOM",
    "first": "PRENOM",
    "relative": "PRENOM",
    "operator": "NOM",
    "doctor": "MEDECIN",
    "phone": "TEL",
    "email": "EMAIL",
    "birth_date": "DATE_NAISSANCE",
    "address": "ADRESSE",
    "city": "VILLE",
    "nir": "NIR",
    "iban": "IBAN",
    "card": "CARTE",
    "rpps": "RPPS",
    "plate": "PLAQUE",
}
NAME_SLOTS = frozenset(slot for slot, label in LABELS.items() if label in ("NOM", "PRENOM", "MEDECIN")) - {"spelled"}
MISHEARD_SHARE = 0.08  # of names: speech recognition gets one letter wrong
LOWER_CASE_SHARE = 0.5  # of calls: recognised without capitals
SLOT = re.compile(r"\{(\w+)\}|\[NOM_1\]")  # the generator leaves [NOM_1] where the caller's name would be
VOWELS, CONSONANTS = "aeiou", "bcdfgklmnprstvz"

Piece = tuple[str, str | None]  # words, and their label when they are personal


@dataclass(frozen=True)
class Planted:
    """The words of a call with personal data in them, turn by turn, and where it stands."""

    texts: tuple[str, ...]
    spans: tuple[tuple[Span, ...], ...]
    roster: Roster


def plant(dialogue: Dialogue, rng: random.Random) -> Planted:
    """Put two to five phrases with personal data into the turns; the last turn, with the triage, stays as it is."""
    cast = invented.invent_cast(rng, dialogue.lang)
    lower = rng.random() < LOWER_CASE_SHARE
    *spoken, last = dialogue.turns
    chosen = set(rng.sample(range(len(spoken)), k=min(len(spoken), rng.randint(2, 5))))
    turns = []
    for number, turn in enumerate(spoken):
        words = turn.text
        if number in chosen:
            phrase = rng.choice(inventory().phrases[dialogue.lang].of(turn.speaker))
            words = _joined(rng, phrase, words)
        turns.append(_placed(_pieces(rng, dialogue.lang, cast, words), lower))
    turns.append((last.text, ()))
    return Planted(tuple(text for text, _ in turns), tuple(spans for _, spans in turns), cast.roster())


def _joined(rng: random.Random, phrase: str, words: str) -> str:
    """The phrase before or after what was said anyway, as one turn."""
    first, second = (phrase, words) if rng.random() < 0.5 else (words, phrase)
    return f"{first}{' ' if first[-1] in '.?!,' else ', '}{second}"


def _pieces(rng: random.Random, lang: Lang, cast: Cast, words: str) -> list[Piece]:
    """``words`` cut at its slots, each slot filled."""
    pieces: list[Piece] = []
    end = 0
    for slot in SLOT.finditer(words):
        name = slot.group(1) or "name"
        pieces += [(words[end : slot.start()], None), (_value(rng, lang, cast, name), LABELS[name])]
        end = slot.end()
    return [*pieces, (words[end:], None)]


def _placed(pieces: list[Piece], lower: bool) -> tuple[str, tuple[Span, ...]]:
    """The pieces as one text, with the characters that the labelled ones take."""
    text, spans = "", []
    for words, label in pieces:
        start = len(text)
        text += words.lower() if lower else words
        if label is not None:
            spans.append(Span(start, len(text), label, LAYER))
    return text, tuple(spans)


def _value(rng: random.Random, lang: Lang, cast: Cast, slot: str) -> str:
    """What is said in a slot; names now and then with one letter wrong."""
    values: dict[str, Callable[[], str]] = {
        "name": lambda: rng.choice((f"{cast.first} {cast.last}", f"{cast.first} {cast.last}", f"{cast.last} {cast.first}")),
        "last": lambda: cast.last,
        "spelled": lambda: " ".join(letter for letter in cast.last.upper() if letter.isalpha()),
        "relative_last": lambda: cast.relative_last,
        "first": lambda: cast.first,
        "relative": lambda: cast.relative_first,
        "operator": lambda: rng.choice((cast.operator, cast.operator.split()[0])),
        "doctor": lambda: rng.choice((cast.doctor, cast.doctor.split(" ", 1)[1])),
        "phone": lambda: invented.say_phone(rng, lang, cast.phone),
        "email": lambda: invented.say_email(rng, lang, cast.email),
        "birth_date": lambda: invented.say_date(rng, lang, cast.birth),
        "address": lambda: cast.address,
        "city": lambda: cast.city,
        "nir": lambda: invented.invent_nir(rng, cast.birth),
        "iban": lambda: invented.invent_iban(rng),
        "card": lambda: invented.invent_luhn(rng, rng.choice(invented.CARD_STARTS), 16, 4),
        "rpps": lambda: invented.invent_luhn(rng, "10", 11, 3),
        "plate": lambda: invented.invent_plate(rng),
    }
    value = values[slot]()
    return _misheard(rng, value) if slot in NAME_SLOTS and rng.random() < MISHEARD_SHARE else value


def _misheard(rng: random.Random, name: str) -> str:
    """One letter of the longest word replaced by another of its kind; short names are heard right."""
    word = max(name.split(), key=len)
    if len(word) < 6:
        return name
    place = rng.randrange(1, len(word) - 1)
    letters = VOWELS if word[place] in VOWELS else CONSONANTS
    other = rng.choice([letter for letter in letters if letter != word[place]])
    return name.replace(word, word[:place] + other + word[place + 1 :], 1)

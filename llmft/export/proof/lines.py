"""Lines on which tokenizers part ways, and what the calls themselves say: verify compares them token by token."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Sequence

LINES = 1000  # made here, whatever the calls bring
MOST_SAID = 1000  # of the calls' own turns
PIECES = {
    "accents": (
        "où",
        "été",
        "naïve",
        "œuf",
        "çà",
        "l'hôpital",
        "Édouard",
        "ÂGÉE",
        "d'ÉTÉ",
        "ñandú",
        "Größe",
        "İstanbul",
        "Ångström",
    ),
    "letters of one case": ("J'AI", "QU'EST", "CAN'T", "I'LL", "'S", "we've", "aujourd'hui", "y'a", "SpO2", "iPhone"),
    "digits": ("39,5", "1234567", "10:45", "0033", "3e", "17/9", "2.5e-3", "1 000", "½", "²", "٣", "+33 6 12 34 56 78"),
    "emoji": ("😟", "👩‍⚕️", "🫀", "🏳️‍🌈", "👍🏽", "1️⃣", "🇫🇷", "❤️", "(^_^)", "🩺💊"),
    "code": ("f(x)", "{'a': [1]}", "return None", "#!/bin", "x->y", "a_b__c", "```json", '"U1",', "//", "<b>", "&amp;", "\\n"),
    "right to left": ("مرحبا", "ألم", "في الصدر", "שלום", "כואב לי", "٢٠٢٦", "؟", "עברית-1"),
    "other scripts": ("你好", "胸口疼。", "ありがとう", "Привет", "боль", "γειά", "한국어", "ไข้", "हिन्दी"),
    "marks": ("...", "…", "—", "«", "»", "!!", "?!", "€", "°C", "%", "n°", "§", "•", "'", "’", "``", "''", "--"),
    "white space": ("  ", "\t", "\n", "\n\n\n", "   ", " \n", "\u00a0", "\u202f", "\r\n"),
}
BETWEEN = (" ", " ", " ", "", "", "  ", "\n", ", ", "-")
KINDS = tuple(PIECES)


def compared_lines(said: Sequence[str], seed: int = 0) -> list[str]:
    """LINES made ones, the same for a seed, then up to MOST_SAID of ``said``, evenly taken."""
    draw = random.Random(seed)
    made = [_line(draw, KINDS[number % len(KINDS)]) for number in range(LINES)]
    step = max(1, -(-len(said) // MOST_SAID))
    return [unicodedata.normalize("NFC", line) for line in (*made, *said[::step])]


def kind_of(number: int) -> str:
    """What line ``number`` is, in words that hold nothing of a call."""
    return f"mostly {KINDS[number % len(KINDS)]}" if number < LINES else "said in a call"


def _line(draw: random.Random, kind: str) -> str:
    """Two to twelve pieces, half of them of ``kind``, joined in every way in which people join words."""
    pieces = []
    for _ in range(draw.randint(2, 12)):
        chosen = kind if draw.random() < 0.5 else draw.choice(KINDS)
        pieces += [draw.choice(PIECES[chosen]), draw.choice(BETWEEN)]
    return "".join(pieces).strip(" ")

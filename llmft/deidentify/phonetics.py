"""How a name sounds, roughly, to a French or English ear: recognition errors sound like what was said.

The key is coarse on purpose. "Boisseau" and "Boissot", "Quéméneur" and "Kemener", "Thierry" and "Tiery" are equal, and
so are sounds that telephones blur (v and f, z and s, the two g). Rules of our own, from how both languages are spelled.
"""

from __future__ import annotations

import re
from functools import lru_cache

# A letter without which a rule has nothing to do, the pattern, and its sound.
_RULES = tuple(
    (letter, re.compile(pattern), heard)
    for letter, pattern, heard in (
        ("k", "^kn", "n"),
        ("w", "^wr", "r"),
        ("d", "^des(?=[bcdfgmnpqrtv])", "de"),  # Deschamps, Desmoulins
        ("p", "ph", "f"),
        ("h", "ch(?=[rlt])", "k"),
        ("h", "sch|tch|sh|ch", "C"),
        ("q", "c?qu?", "k"),
        ("c", "ck", "k"),
        ("c", "c(?=[eiy])", "s"),
        ("t", "ti(?=[ao])", "si"),  # Laetitia
        ("c", "c", "k"),
        ("g", "gu(?=[eiy])|ge(?=[ao])|gh", "g"),
        ("j", "j", "g"),
        ("g", "gn", "n"),
        ("h", "h", ""),
        ("e", "(?:ie|ee|ey)$", "i"),
        ("y", "y", "i"),
        ("", "(?<=..)[estxdzp]+$", ""),  # silent
        ("x", "x", "ks"),
        ("u", "e?au", "o"),
        ("w", "[ao]w", "o"),
        ("w", "w", "f"),
        ("v", "v", "f"),
        ("z", "z", "s"),
        ("m", "m(?=[bp])", "n"),
        ("", "(?:[ae]i[nm]|[iu][nm])(?![aeiounm])", "in"),
        ("", "(?:a[nm]|(?<!i)e[nm])(?![aeiounm])", "an"),
        ("i", "[ae]i", "e"),
        ("e", "[ao]e|eu", "e"),
        ("o", "ou|oo", "u"),
        ("", r"(.)\1+", r"\1"),
        ("e", "(?<=..)(?<=[^aeiou])e(?=[^aeiou][aeiou])", ""),  # mute between consonants
    )
)
_VOWELS = re.compile("[aeiou]")


@lru_cache(maxsize=1 << 14)
def sound(word: str) -> str:
    """The key of a folded ``word``."""
    for letter, pattern, heard in _RULES:
        if letter in word:
            word = pattern.sub(heard, word)
    return word


def consonants(key: str) -> str:
    """The consonants of a key: what stays when the vowels were misheard."""
    return key[:1].replace("e", "a") + _VOWELS.sub("", key[1:])

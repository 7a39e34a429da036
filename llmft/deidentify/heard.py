"""What the turns of a call gave away, as a roster for the words beside them.

A summary names people without the phrases that give them away in speech: "Brumelune a mal" after "je m'appelle
Brumelune". Whoever was found in the turns is therefore looked for by name in what stands beside them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from llmft.deidentify.numbering import PEOPLE
from llmft.deidentify.span import Roster, Span
from llmft.deidentify.spelled import unspelled

_FIELDS = {"VILLE": "cities", "ADRESSE": "addresses", "EMAIL": "emails", "TEL": "phones"}
_NAMED = frozenset(("HOPITAL", "EMPLOYEUR", "MUTUELLE"))  # told by their name alone
_TIMES = frozenset(("DATE", "DATE_NAISSANCE", "AGE90+"))  # "le 15" is no person
_MIN_DIGITS = 5  # of a number that is looked for alone: "145" is a blood pressure too
_SPELLED = re.compile(r"[^\W\d_][\W_]")


def heard(text: str, spans: Sequence[Span], roster: Roster) -> Roster:
    """``roster`` with everybody and everything that ``spans`` of ``text`` hold; ``roster`` itself when they hold nothing."""
    found: dict[str, list[str]] = {}
    for span in _whole_names(text, spans):
        said = text[span.start : span.end]
        if span.label in PEOPLE:
            field = "doctors" if span.label == "MEDECIN" else "relatives"
            found.setdefault(field, []).append(unspelled(said) if _SPELLED.match(said) else said)
        elif span.label in _FIELDS or span.label in _NAMED or _is_number(said, span.label):
            found.setdefault(_FIELDS.get(span.label, "identifiers"), []).append(said)
    fresh = {field: (*getattr(roster, field), *dict.fromkeys(names)) for field, names in found.items()}
    return replace(roster, **fresh) if fresh else roster


def _whole_names(text: str, spans: Sequence[Span]) -> list[Span]:
    """The spans in their order, first name and surname that stand together as one: "Rose" tells who "Petit" is."""
    whole: list[Span] = []
    for span in spans:
        last = whole[-1] if whole else span
        if {last.label, span.label} == {"NOM", "PRENOM"} and text[last.end : span.start] == " ":
            whole[-1] = last._replace(end=span.end)
        else:
            whole.append(span)
    return whole


def _is_number(said: str, label: str) -> bool:
    return label not in _TIMES and sum(map(str.isdigit, said)) >= _MIN_DIGITS

"""What else people are called than by the first name in the file: knowledge/nicknames.yaml, ready for look-up."""

from __future__ import annotations

from functools import cache

from llmft.knowledge import load

_EMPTY: frozenset[str] = frozenset()


def nicknames(name: str) -> frozenset[str]:
    """Other forms of a folded first name, either way round: "manu" of "emmanuel", "emmanuel" of "manu"."""
    return _by_name().get(name, _EMPTY)


@cache
def _by_name() -> dict[str, frozenset[str]]:
    forms: dict[str, set[str]] = {}
    knowledge = load("nicknames.yaml")
    for line in (*knowledge["fr"].splitlines(), *knowledge["en"].splitlines()):
        full, _, short = line.partition(": ")
        for name in full.split():
            forms.setdefault(name, set()).update(short.split())
        for name in short.split():
            forms.setdefault(name, set()).update(full.split())
    return {name: frozenset(others - {name}) for name, others in forms.items()}

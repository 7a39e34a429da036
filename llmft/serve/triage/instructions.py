"""Sentences that a caller addresses to the software, kept away from the model.

A patient has no reason to speak of roles, prompts, JSON or "U4". Clauses with such words are cut, and those of the same
sentence after them unless somebody speaks of a person in them; markup is cut alone; the answer says so. The rules have read
the whole turn before, so a symptom said in the same breath still counts. The list is of our own writing and cannot be whole:
the rules' floor holds whatever it misses.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_NEAR = r"[^.!?\n]{0,40}"  # within the same sentence
_DROP = r"(?:ignor\w*|oubli\w*|disregard|forget|override|bypass)"
_ORDERS = r"(?:instruct\w*|consign\w*|règle\w*|rules?|prompts?|previous|précédent\w*|above|protocol\w*|safety)"
_TELL = (
    r"(?:urgency|urgence|triage|niveau|level|priorit[éy]|answer|output|say|write|set|mets|mettez|sors"
    r"|répond(?:s|ez|re)?|écri(?:s|t|vez)|class(?:e|ez|er)|donne[rz]?)"
)
_BE = r"(?:you are|you're|act as|pretend (?:to be|you)|tu es|vous êtes|agi(?:s|ssez) comme|fais semblant d)"
_NOW = r"(?:now|désormais|maintenant|une?|an?|the|le|la|new|nouve(?:au|l|lle))"
_SOFTWARE = r"(?:assistant\w*|ia|ai|bot|chatbot|model\w*|modèle|system|système|admin\w*|developer|développeur|dan|robot)"
_SHOW = r"(?:repeat|répète[rz]?|reveal|révèle[rz]?|affiche[rz]?|print|show|montre[rz]?|dump|list|liste[rz]?)"
_SECRETS = (
    r"(?:prompt\w*|instruct\w*|consign\w*|(?:other|previous) (?:calls?|patients?)|autres (?:appels?|patients?)"
    r"|appels? précédents?|database|base de données|api keys?)"
)
_INSTRUCTION = re.compile(
    "|".join(
        (
            rf"\b{_DROP}\b{_NEAR}\b{_ORDERS}\b",
            r"\b(?:system|système)\s*(?:prompt|message|turn|instruct\w*)",
            r"\b(?:prompt|message|consigne|instruction)s?\s+(?:système|system|secr[eè]te?s?|cachée?s?|hidden|initiale?s?)\b",
            r"^\s*(?:system|assistant|user|developer|operator|opérateur|système)\s*(?::|$)",
            rf"\b{_BE}\W+(?:{_NOW}\s+){{0,3}}{_SOFTWARE}\b",
            rf"\b{_TELL}\b{_NEAR}\bU\s?[1-4]\b",
            r"\bU[1-4]\b",
            r"\"\w+\"\s*:",
            r"\bjson\b",
            rf"\b{_SHOW}\b{_NEAR}\b{_SECRETS}\b",
            r"\b(?:emergency|urgence)\b[^.!?\n]{0,30}\b(?:whatever|regardless|quoi qu|peu importe)",
            r"\bescalate\b\W{0,3}(?:false|=|:)",
        )
    ),
    re.IGNORECASE | re.MULTILINE,
)
_MARKUP = re.compile(
    r"```.*?```|```|<\|[^|>]{0,40}\|?>|\[/?INST\]|<</?SYS>>|</?[a-z][^<>]{0,200}>"
    r"|###\s*(?:system|instruction|human|user|response|assistant|context|prompt)",
    re.IGNORECASE | re.DOTALL,
)
_CLAUSE = re.compile(r"[^.!?;,\n]*(?:[.!?;\n]|,|\Z)")
_SOMEBODY = re.compile(r"\b(?:j|je|moi|mon|ma|mes|il|elle|son|sa|ses|on|i|i'm|my|me|he|she|his|her|we)\b", re.IGNORECASE)
_SENTENCE_END = ".!?\n"


class Heard(NamedTuple):
    """A turn as the model may read it."""

    text: str
    was_cut: bool


def for_the_model(text: str) -> Heard:
    """``text`` without what is addressed to the software; empty when nothing else was said."""
    spoken = _MARKUP.sub(" ", text)
    kept: list[str] = []
    position = 0
    while found := _INSTRUCTION.search(spoken, position):
        kept.append(_before(spoken[position : found.start()]))
        position = max(_after(spoken, found.end()), found.end())
    if spoken == text and not kept:
        return Heard(text, False)
    rest = " ".join("".join((*kept, " ", spoken[position:])).split()).strip(" ,;:-")
    return Heard(rest if re.search(r"\w", rest) else "", True)


def _before(said: str) -> str:
    """What stands before an instruction, without the beginning of its clause unless that speaks of somebody."""
    start = max((said.rfind(mark) for mark in ".!?;,\n"), default=-1) + 1
    return said if _SOMEBODY.search(said, start) else said[:start]


def _after(spoken: str, position: int) -> int:
    """Where the patient speaks again: after the clause, and after those that follow it in the sentence and name nobody."""
    while (clause := _CLAUSE.match(spoken, position)) and clause.end() > position:
        position = clause.end()
        if spoken[position - 1] in _SENTENCE_END:
            break
        following = _CLAUSE.match(spoken, position)
        if following is None or _SOMEBODY.search(following.group()):
            break
    return position

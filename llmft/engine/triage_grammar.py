"""The operator's last turn as a GBNF grammar of llama.cpp's: a free sentence, then a block with labels of the closed lists.

What the grammar lets through to its end, ``read_triage`` reads. Texts and lists are bounded, so that a model that
loops comes to an end. Lists are written as trees of their common beginnings, so that few branches are open at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from llmft.protocol.rules import flag_labels
from llmft.vocabulary import GENERAL_SLOTS, icd10_labels, slot_labels, specialties, urgencies


@cache
def triage_grammar(*, sentence_characters: int = 400, summary_characters: int = 500, listed: int = 8) -> str:
    """The grammar's text; at most ``listed`` labels stand in one list of the block."""
    slots = {*GENERAL_SLOTS, *slot_labels()}
    fields = (
        ("urgency", r'"\"" urgency "\""'),
        ("specialty", r'"\"" specialty "\""'),
        ("icd10", _list("code", listed)),
        ("red_flags", _list("flag", listed)),
        ("summary", r'"\"" text "\""'),
        ("missing_info", _list("slot", listed)),
        ("escalate", '("true" | "false")'),
    )
    body = r' ", " '.join(rf'"\"{name}\": " {rule}' for name, rule in fields)
    rules = (
        rf'root ::= sentence "\n```json\n{{" {body} "}}\n```"',
        rf"sentence ::= [^`\n] [^`\n]{{0,{sentence_characters - 1}}}",
        rf'text ::= [^"\\`\x00-\x1F]{{0,{summary_characters}}}',
        f"urgency ::= {_one_of(urgencies())}",
        f"specialty ::= {_one_of(specialties())}",
        f"code ::= {_one_of(icd10_labels())}",
        f"flag ::= {_one_of(flag_labels())}",
        f"slot ::= {_one_of(slots)}",
    )
    return "\n".join(rules) + "\n"


def _list(rule: str, listed: int) -> str:
    item = rf'"\"" {rule} "\""'
    return rf'"[" ({item} (", " {item}){{0,{listed - 1}}})? "]"'


def _one_of(words: Iterable[str]) -> str:
    """One of ``words``, as a tree."""
    return _tree(sorted(set(words)), 0)


def _tree(words: list[str], depth: int) -> str:
    """The alternatives of words that agree in their first ``depth`` characters."""
    branches: list[str] = []
    start = 0
    while start < len(words):
        if len(words[start]) == depth:
            branches.append('""')
            start += 1
            continue
        end = start
        while end < len(words) and words[end][depth : depth + 1] == words[start][depth]:
            end += 1
        branches.append(_branch(words[start:end], depth))
        start = end
    return branches[0] if len(branches) == 1 else f"({' | '.join(branches)})"


def _branch(words: list[str], depth: int) -> str:
    """What words with the same next character have in common, then where they part."""
    first, last = words[0], words[-1]
    common = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    head = f'"{first[depth:common]}"'
    return head if len(words) == 1 else f"{head} {_tree(words, common)}"

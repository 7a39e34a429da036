"""A patient who answers from the facts of a case: by rules, seeded, in French or English, in one of four manners.

The manner changes how a fact is said, never the fact: who plays down still says yes.
"""

from __future__ import annotations

import random
import re
from functools import cache
from typing import Literal

from pydantic import Field

from llmft.evaluate.conversation.case import Case
from llmft.evaluate.conversation.questions import GENERAL, OTHER, slot_of
from llmft.knowledge import Label, Lang, Relative, Strict, conversation, load

Manner = Literal["terse", "talkative", "minimising", "relative"]
MANNERS: tuple[Manner, ...] = ("terse", "talkative", "minimising", "relative")
PLAYED_DOWN = 3  # points of ten that somebody who plays down takes off
WORDINGS = {"onset": "since", "age": "age", "severity": "severity", "treatment": "treatment", "name": "name"}
ASIDES = 0.5  # share of the turns of a talkative patient


class _Asides(Strict):
    fr: tuple[str, ...] = Field(min_length=1)
    en: tuple[str, ...] = Field(min_length=1)

    def of(self, lang: Lang) -> tuple[str, ...]:
        return self.fr if lang == "fr" else self.en


class _Manners(Strict):
    date: str
    source: str
    yes: Label
    no: Label
    unknown: _Asides
    told: _Asides
    talkative: _Asides
    minimising_opening: _Asides
    minimising: _Asides


class Patient:
    """One call's patient; asked the same questions in the same order, it says the same."""

    def __init__(self, case: Case, manner: Manner, seed: int) -> None:
        """Draw what the record leaves open: since when, how bad."""
        self.case, self.manner = case, manner
        self.rng = random.Random(f"{seed} {case.id} {manner}")
        self.said: set[str] = set()  # facts that were told
        spoken = conversation()
        severity = {"U1": 9, "U2": 7, "U3": 5}.get(case.truth.urgency, 3)
        severity -= PLAYED_DOWN if manner == "minimising" else 0
        values = {"duration": self.rng.choice(spoken.durations[case.lang]), "n": severity, "age": self.rng.randint(*self._ages())}
        self._general = {
            slot: self.rng.choice(getattr(spoken, name).of(case.lang, "test")).format(**values) for slot, name in WORDINGS.items()
        }

    def _ages(self) -> tuple[int, int]:
        low, high = self.case.complaint.patient.age
        return max(low, 1), max(high, 1)

    def opening(self) -> str:
        """The first words of the call."""
        case, lang = self.case, self.case.lang
        if self.manner == "relative" and case.caller == "self" and (relative := self._relative()):
            reason = self.rng.choice(case.complaint.says_relative.of(lang, "test")).format(who=relative.who)
            return f"{self.rng.choice(conversation().greeting.of(lang, 'test'))} {reason}."
        if self.manner == "terse" and case.caller == "self":
            return f"{self.rng.choice(case.complaint.says.of(lang, 'test'))}."
        if self.manner == "minimising":
            return f"{self.rng.choice(_manners().minimising_opening.of(lang))} {case.opening}"
        if self.manner == "talkative":
            return f"{case.opening} {self._aside()} {self._volunteered()}".strip()
        return case.opening

    def answer(self, question: str) -> str:
        """What the patient says to an operator's turn."""
        slot = slot_of(question, self.case.complaint.id, self.case.lang)
        if slot is None or slot == OTHER:
            return self._in_manner(self.rng.choice(_manners().unknown.of(self.case.lang)), affirms=False)
        again = slot in self.said
        self.said.add(slot)
        text, affirms = self._fact(slot)
        if again:
            text = f"{self.rng.choice(_manners().told.of(self.case.lang))} {text}"
        return self._in_manner(text, affirms)

    def _fact(self, slot: str) -> tuple[str, bool]:
        """The words for a fact, and whether they say yes to something."""
        case = self.case
        if slot in case.told and not (slot == "severity" and self.manner == "minimising"):
            return case.told[slot], slot in case.present
        if slot in GENERAL:
            return self._general[slot], False
        evidence = next(evidence for evidence in case.complaint.evidence if evidence.slot == slot)
        answers = evidence.present if slot in case.present else evidence.absent
        return self.rng.choice(answers.of(case.lang, "test")), slot in case.present

    def _in_manner(self, text: str, affirms: bool) -> str:
        if self.manner == "terse":
            return re.split(r"[,;.]", text, maxsplit=1)[0] if text.lower().startswith(self._yes_or_no()) else text
        if self.manner == "minimising" and affirms:
            return f"{text}, {self.rng.choice(_manners().minimising.of(self.case.lang))}"
        if self.manner == "talkative" and self.rng.random() < ASIDES:
            return f"{self._aside()} {text}"
        return text

    def _yes_or_no(self) -> tuple[str, str]:
        return _manners().yes.of(self.case.lang), _manners().no.of(self.case.lang)

    def _aside(self) -> str:
        return self.rng.choice(_manners().talkative.of(self.case.lang))

    def _volunteered(self) -> str:
        """A fact that nobody asked for, if there is one."""
        slot = next((e.slot for e in self.case.complaint.evidence if e.slot in self.case.present), "onset")
        self.said.add(slot)
        return f"{self._fact(slot)[0]}."

    def _relative(self) -> Relative | None:
        wanted = self.case.complaint.patient
        fitting = [
            relative
            for relative in conversation().relatives[self.case.lang]
            if max(relative.age[0], wanted.age[0]) <= min(relative.age[1], wanted.age[1]) and wanted.sex in ("any", relative.sex)
        ]
        return self.rng.choice(fitting) if fitting else None


@cache
def _manners() -> _Manners:
    return _Manners.model_validate(load("manners.yaml"))

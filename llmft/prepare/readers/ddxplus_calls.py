"""Calls made from DDXPlus's tables: a patient with some facts of a condition, asked with its questions.

A family is a condition and the facts that are present. What the patient says first is in our words and
never names the condition; each question is DDXPlus's own, mended; the triage follows the condition.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from llmft.dialogue import Dialogue, EvidenceMention, Labels, Patient, Triage, Turn
from llmft.knowledge import Lang, Relative, conversation
from llmft.prepare.readers.ddxplus import Condition, Question, Tables, notes, read_tables
from llmft.vocabulary import specialties

CALLS_A_CONDITION = 20
MOST_FACTS = 6  # present facts that one call talks about
_ARTICLE = re.compile(r"^(de la |de l'|du (?!mal )|des |de |d'|une |un |an |a )")


class Answer(NamedTuple):
    """What is said to a question and what it means."""

    text: str
    value: bool | int | str


def ddxplus_calls(folder: Path, seed: int, count: int | None = None) -> Iterator[Dialogue]:
    """``count`` calls of each condition in ``folder``; the same ones for the same ``seed``."""
    tables = read_tables(folder)
    for condition in tables.conditions:
        rng = random.Random(f"{seed}:{condition.key}")  # a condition's calls do not depend on the others
        for number in range(CALLS_A_CONDITION if count is None else count):
            lang: Lang = rng.choice(("fr", "fr", "en"))  # French first
            yield Call(rng, tables, condition, lang).dialogue(f"ddx-{seed}-{_slug(condition.key)}-{number:04d}")


class Call:
    """One call: who is ill, which facts are present, what was said of them."""

    def __init__(self, rng: random.Random, tables: Tables, condition: Condition, lang: Lang) -> None:
        """Draw the patient, then the facts that suit the patient."""
        self.rng, self.tables, self.condition, self.lang = rng, tables, condition, lang
        low, high = condition.note.age
        self.relative = self._pick_relative() if high < 10 else None  # a child does not call
        self.age = rng.randint(low, high)
        self.sex: Literal["F", "M"] = self.relative.sex if self.relative else rng.choice(("F", "M"))
        self.present = self._draw_facts()
        self.told = self._pick_told()

    def _pick_relative(self) -> Relative:
        low, high = self.condition.note.age
        fitting = [r for r in conversation().relatives[self.lang] if r.age[0] <= low and high <= r.age[1]]
        return self.rng.choice(fitting)

    def _suits(self, code: str) -> bool:
        """Whether this patient can be asked: women's matters of women, a child's by what a relative sees."""
        if self.sex == "M" and code in notes().female_only:
            return False
        return self.relative is None or code in notes().phrases

    def _draw_facts(self) -> tuple[str, ...]:
        """Present facts, symptoms first; details come with the fact that they detail.

        A mild condition is drawn without red flags: its label would contradict them.
        """
        mild = self.condition.urgency in ("U3", "U4")
        alarming = notes().red_flags if mild else {}
        symptoms = [c for c in self.condition.symptoms if self._suits(c) and not self._details(c) and c not in alarming]
        self.rng.shuffle(symptoms)
        some = symptoms[: max(2, round(len(symptoms) * self.rng.uniform(0.3, 0.7)))]
        antecedents = [code for code in self.condition.antecedents if self._suits(code) and self.rng.random() < 0.2]
        return tuple((some[: MOST_FACTS - 1] + antecedents)[:MOST_FACTS])

    def _details(self, code: str) -> str | None:
        """The fact that ``code`` is a detail of, when this condition has it; None for a fact of its own."""
        parent = self.tables.questions[code].parent
        return parent if parent != code and parent in self.condition.symptoms else None

    def _pick_told(self) -> tuple[str, ...]:
        """The one or two facts that the patient calls for."""
        sayable = [code for code in self.present if code in notes().phrases]
        return tuple(sayable[: self.rng.choice((1, 2, 2))])

    def phrase(self, code: str) -> str:
        """A fact in a patient's words; "" if we have none."""
        if code == notes().pain.code:
            return notes().areas[self.condition.note.pain].of(self.lang)
        label = notes().phrases.get(code) or notes().details.get(code)
        return label.of(self.lang) if label else ""

    def dialogue(self, call_id: str) -> Dialogue:
        """The whole record."""
        turns = [self._opening()]
        for code in self._agenda():
            turns += self._exchange(self.tables.questions[code])
        turns.append(Turn(speaker="operator", text=f"{self._closing()}\n{self._triage().as_block()}"))
        return Dialogue(
            schema_version="1",
            id=call_id,
            family_id=f"ddx:{_slug(self.condition.key)}:{'.'.join(sorted(self.present))}",
            lang=self.lang,
            source="synthetic",
            license="CC-BY-4.0",
            patient=Patient(age=self.age, sex=self.sex, caller="relative" if self.relative else "self"),
            turns=tuple(turns),
            labels=Labels(
                urgency=self.condition.urgency,
                specialty=self.condition.note.specialty,
                icd10_primary=self.condition.icd10,
                red_flags=tuple(self._red_flags()),
            ),
        )

    def _opening(self) -> Turn:
        words, french = conversation(), self.lang == "fr"
        who = self.relative.who if self.relative else ""
        has = f"{who} a" if who and french else f"{who} has" if who else "j'ai" if french else "I have"
        facts = (" et " if french else " and ").join(self.phrase(code) for code in self.told) or notes().unwell.of(self.lang)
        greeting = self.rng.choice(words.greeting.of(self.lang, "train"))
        since = self.rng.choice(words.since.of(self.lang, "train"))
        text = f"{greeting} {has} {facts}, {since.format(duration=self.rng.choice(words.durations[self.lang]))}."
        return Turn(speaker="patient", text=text, evidence=tuple(EvidenceMention(slot=code, value=True) for code in self.told))

    def _agenda(self) -> list[str]:
        """What is still to be asked: each fact with its details, absent ones among them, in a random order."""
        groups = [[code, *self._asked_details(code)] for code in (*self.present, *self._absent())]
        self.rng.shuffle(groups)
        return [code for group in groups for code in group if code not in self.told]

    def _absent(self) -> list[str]:
        """A few facts to be denied: two that the condition could have, one that it has not."""
        known = {*self.present, *(notes().implies.get(code) for code in self.present)}
        if notes().pain.code in self.present:
            known.add(notes().areas[self.condition.note.pain].means)
        possible = [c for c in self.condition.symptoms if c not in known and self._suits(c) and not self._details(c)]
        foreign = [c for c in notes().phrases if c not in known and c not in self.condition.symptoms and self._suits(c)]
        foreign = [c for c in foreign if c in self.tables.questions]
        return self.rng.sample(possible, k=min(2, len(possible))) + self.rng.sample(foreign, k=min(1, len(foreign)))

    def _asked_details(self, code: str) -> list[str]:
        if code not in self.present:
            return []
        details = [c for c in self.condition.symptoms if self._details(c) == code and self._suits(c)]
        return sorted(self.rng.sample(details, k=min(2, len(details))), key=details.index)

    def _exchange(self, question: Question) -> list[Turn]:
        answer = self._answer(question)
        negated = answer.value is False
        mention = EvidenceMention(slot=question.code, value=answer.value, negated=negated)
        return [
            Turn(speaker="operator", text=self._asked(question), asks=(question.code,)),
            Turn(speaker="patient", text=answer.text, evidence=(mention,)),
        ]

    def _asked(self, question: Question) -> str:
        if self.relative:
            text = notes().ask.of(self.lang).format(phrase=self.phrase(question.code))
        else:
            text = question.text.of(self.lang)
        if question.kind == "score":
            text = notes().rate.of(self.lang).format(question=text[:1].lower() + text[1:])
        if self.rng.random() < 0.2:
            text = f"{self.rng.choice(conversation().acknowledge.of(self.lang, 'train'))} {text}"
        return text

    def _answer(self, question: Question) -> Answer:
        """What this patient answers: yes or no, a number from 0 to 10, or one of the values."""
        if question.kind == "score":
            severe = 3 - int(self.condition.urgency[1])  # U1 ─▶ 2 … U4 ─▶ -1
            score = min(10, self.rng.randint(4 + severe, 8 + severe))
            return Answer(self.rng.choice(notes().score[self.lang]).format(n=score), score)
        if question.kind == "choice" and (value := self._value(question)):
            text = question.values[value].of(self.lang)
            return Answer(f"{notes().yes[self.lang][0]}, {text}" if question.may_be_no else text, value)
        present = question.code in self.present or self._details(question.code) is not None and self.rng.random() < 0.5
        texts = notes().yes if present else notes().no
        return Answer(self.rng.choice(texts[self.lang]), present)

    def _value(self, question: Question) -> str | None:
        """One value of a choice, of the right part of the body; None when the answer is no."""
        note, pain = self.condition.note, notes().pain
        wanted: tuple[str, ...] = tuple(question.values)
        if question.code in (pain.place, pain.spread):
            area = notes().areas[note.pain]
            wanted = area.places if question.code == pain.place else area.radiates
        elif question.code in notes().places:
            field, _ = notes().places[question.code]
            wanted = notes().areas[getattr(note, field)].places
        known = [value for value in wanted if value in question.values]
        if not known or question.code == pain.spread and self.rng.random() < 0.5:
            return None
        if question.code not in self.present and self._details(question.code) is None:
            return None
        return self.rng.choice(known)

    def _red_flags(self) -> list[str]:
        return [notes().red_flags[code] for code in self.present if code in notes().red_flags]

    def _closing(self) -> str:
        entry = specialties()[self.condition.note.specialty]
        close = self.rng.choice(conversation().close(self.condition.urgency).of(self.lang, "train"))
        return close.format(specialty=entry.fr if self.lang == "fr" else entry.en)

    def _triage(self) -> Triage:
        facts = [_ARTICLE.sub("", self.phrase(code)) for code in self.present if self.phrase(code)]
        name = self.condition.names.of(self.lang)
        return Triage(
            urgency=self.condition.urgency,
            specialty=self.condition.note.specialty,
            icd10=(self.condition.icd10,),
            red_flags=tuple(self._red_flags()),
            summary=notes().suggests.of(self.lang).format(facts=", ".join(facts), name=name) if facts else name,
            missing_info=(),
            escalate=self.condition.urgency == "U1",
        )


def _slug(text: str) -> str:
    """Lower-case words joined by underscores, for an id."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower().replace("é", "e")).strip("_")

"""A seeded generator of calls from the knowledge base: varied, natural, labelled, and honestly split.

A *family* is a complaint, who calls, and which facts are present. Families never cross splits, and
each split has wordings of its own, so a test call is about another case and is phrased otherwise.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Literal

from llmft.dialogue import Dialogue, Labels, Patient, Triage, Turn
from llmft.knowledge import Complaint, Evidence, Lang, Relative, Split, Urgency, conversation, load, protocols
from llmft.vocabulary import specialties

LISTING_SHARE = 0.35  # of the training calls open with the complaint's words alone
CURT_SHARE = 0.5  # of the training calls leave out questions whose answer changes nothing ...
CURT_KEEPS = 0.4  # ... but for this share of them
SPLIT_SHARE = {"train": 0.85, "validation": 0.05, "test": 0.10}  # of a synthetic set's calls
Caller = Literal["self", "relative"]


@dataclass(frozen=True)
class Family:
    """A case: what it is about, who calls, and which facts are present."""

    specialty: str
    complaint: Complaint
    caller: Caller
    present: frozenset[str]  # slots

    @property
    def id(self) -> str:
        """A name that says it all, stable between versions."""
        facts = ".".join(sorted(self.present)) or "none"
        return f"{self.complaint.id}:{self.caller}:{facts}"

    @property
    def urgency(self) -> Urgency:
        """The complaint's own urgency, raised by the facts that are present."""
        raised = [e.urgency for e in self.complaint.evidence if e.slot in self.present and e.urgency]
        return min([self.complaint.urgency, *raised])


@cache
def families() -> dict[Split, tuple[Family, ...]]:
    """All families by split: of each complaint about one in eight for validation and two in eight for test."""
    by_split: dict[Split, list[Family]] = {"train": [], "validation": [], "test": []}
    for protocol in protocols():
        for complaint in protocol.complaints:
            ordered = sorted(_families_of(protocol.specialty, complaint), key=lambda family: _digest(family.id))
            eighth = len(ordered) // 8
            by_split["validation"] += ordered[:eighth]
            by_split["test"] += ordered[eighth : 3 * eighth]
            by_split["train"] += ordered[3 * eighth :]
    return {split: tuple(members) for split, members in by_split.items()}


def _families_of(specialty: str, complaint: Complaint) -> list[Family]:
    callers: tuple[Caller, ...] = ("relative",) if complaint.patient.relative_only else ("self", "relative")
    slots = [evidence.slot for evidence in complaint.evidence]
    patterns = [frozenset(s for s, on in zip(slots, bits, strict=True) if on) for bits in product((0, 1), repeat=len(slots))]
    return [Family(specialty, complaint, caller, present) for caller in callers for present in patterns]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def synthesize(count: int, seed: int) -> Iterator[Dialogue]:
    """``count`` calls, the same ones for the same ``seed``, in the shares of ``SPLIT_SHARE``."""
    rng, manner = random.Random(seed), random.Random(f"{seed} manner")
    for number in range(count):
        split = rng.choices(list(SPLIT_SHARE), weights=list(SPLIT_SHARE.values()))[0]
        lang: Lang = rng.choice(("fr", "fr", "en"))  # French first
        story = Story(rng, pick_family(rng, split), lang, split)  # type: ignore[arg-type]
        told = call(story, f"syn-{seed}-{number:05d}")
        yield _in_manner(told, story, manner) if split == "train" else told


def pick_family(rng: random.Random, split: Split) -> Family:
    """A family of ``split``: specialties are equally likely, then complaints; many facts at once are rare."""
    complaint = rng.choice(rng.choice(protocols()).complaints)
    fitting, weights = _members(split, complaint.id)
    return rng.choices(fitting, weights=weights)[0]


@cache
def _members(split: Split, complaint_id: str) -> tuple[list[Family], list[float]]:
    """The families of a complaint, and how often each is picked."""
    fitting = [family for family in families()[split] if family.complaint.id == complaint_id]
    return fitting, [0.4 ** len(family.present) for family in fitting]


def word_slots(rng: random.Random, words: tuple[str, ...]) -> dict[str, str]:
    """Some of a complaint's ``words``, for the slots of a frame in ``prose.yaml``."""
    some = rng.sample(words, k=min(len(words), rng.choice((3, 4, 5))))
    return {"words": ", ".join(some), "word": some[0], "word2": some[1], "word3": some[2]}


def _in_manner(told: Dialogue, story: Story, rng: random.Random) -> Dialogue:
    """The call, sometimes of somebody who finds no sentence and opens with single words, sometimes with a curt operator."""
    opening, *middle, closing = told.turns
    if rng.random() < LISTING_SHARE:
        opening = Turn(speaker="patient", text=story.opening_by_words(rng))
    if rng.random() < CURT_SHARE:
        pairs = zip(middle[::2], middle[1::2], strict=True)
        middle = [turn for pair in pairs if pair[1].text in story.telling or rng.random() < CURT_KEEPS for turn in pair]
    return told.model_copy(update={"turns": (opening, *middle, closing)})


def call(story: Story, call_id: str) -> Dialogue:
    """One call of ``story``, from the first word to the triage."""
    family = story.family
    turns = [*story.turns(), Turn(speaker="operator", text=f"{story.closing()}\n{story.triage().as_block()}")]
    return Dialogue(
        schema_version="1",
        id=call_id,
        family_id=family.id,
        lang=story.lang,
        source="synthetic",
        license="CC-BY-4.0",
        split=story.split,
        patient=Patient(age=story.age, sex=story.sex, caller=family.caller),
        turns=tuple(turns),
        labels=Labels(
            urgency=family.urgency,
            specialty=family.specialty,
            icd10_primary=family.complaint.icd10,
            red_flags=tuple(story.red_flags()),
        ),
    )


class Story:
    """The course of one call: what was asked, what was answered, what stays unknown."""

    def __init__(self, rng: random.Random, family: Family, lang: Lang, split: Split) -> None:
        """Draw who calls, the patient's age and since when."""
        self.rng, self.family, self.lang, self.split = rng, family, lang, split
        self.words = conversation()
        self.relative = self._pick_relative() if family.caller == "relative" else None
        self.age = rng.randint(*self._ages())
        wanted = family.complaint.patient.sex
        self.sex: Literal["F", "M"] = (
            self.relative.sex if self.relative else "F" if wanted == "any" and rng.random() < 0.5 or wanted == "F" else "M"
        )
        self.duration = rng.choice(self.words.durations[lang])
        self.volunteers_onset = rng.random() < 0.35
        self.missing: list[str] = []
        self.telling: set[str] = set()  # answers that bring a fact which the triage rests on

    def _pick_relative(self) -> Relative:
        patient = self.family.complaint.patient
        fitting = [
            r
            for r in self.words.relatives[self.lang]
            if max(r.age[0], patient.age[0]) <= min(r.age[1], patient.age[1]) and patient.sex in ("any", r.sex)
        ]
        return self.rng.choice(fitting)

    def _ages(self) -> tuple[int, int]:
        """The years that suit both the complaint and the relative."""
        low, high = self.family.complaint.patient.age
        return (max(low, self.relative.age[0]), min(high, self.relative.age[1])) if self.relative else (low, high)

    def say(self, name: str, **values: object) -> str:
        """One of the shared wordings of this split, its slots filled."""
        return str(self.rng.choice(getattr(self.words, name).of(self.lang, self.split))).format(**values)

    def turns(self) -> list[Turn]:
        """All turns but the last, patient first, speakers alternating."""
        turns = [Turn(speaker="patient", text=self.opening())]
        for question, answer in self.exchanges():
            turns += [Turn(speaker="operator", text=question), Turn(speaker="patient", text=answer)]
        return turns

    def opening(self) -> str:
        """Greeting, complaint, sometimes since when."""
        complaint = self.family.complaint
        greeting, reason = self.say("greeting"), self.rng.choice(complaint.says.of(self.lang, self.split))
        if self.relative and not (complaint.patient.relative_only and self.rng.random() < 0.5):
            who = self.relative.who
            reason = self.rng.choice(complaint.says_relative.of(self.lang, self.split)).format(who=who)
            if self.rng.random() < 0.4:
                greeting = self.say("relative_greeting", who=who)
        parts = [greeting, self._disfluent(reason)]
        if self.volunteers_onset:
            parts[-1] += ","
            parts.append(self.say("since", duration=self.duration))
        return " ".join(parts) + "."

    def opening_by_words(self, rng: random.Random) -> str:
        """Greeting and the complaint's words in no sentence of its own; draws from ``rng``, so the rest of the call stays."""
        values, frames = word_slots(rng, self.family.complaint.words.of(self.lang)), load("prose.yaml")
        greeting = rng.choice(self.words.greeting.of(self.lang, self.split))
        if self.relative:
            return f"{greeting} {rng.choice(frames['relative_opening'][self.lang]).format(who=self.relative.who, **values)}."
        return f"{greeting} {rng.choice(frames['opening'][self.lang]).format(**values)}."

    def _disfluent(self, text: str) -> str:
        """Sometimes a filler before the phrase or inside it, as people speak."""
        chance = self.rng.random()
        if chance < 0.2:
            return f"{self.say('filler')}, {text}"
        words = text.split()
        if chance < 0.3 and len(words) > 4:
            place = self.rng.randrange(2, len(words) - 1)
            return " ".join([*words[:place], f"{self.say('filler')},", *words[place:]])
        return text

    def exchanges(self) -> list[tuple[str, str]]:
        """Questions with their answers: the complaint's own, then the general ones, in a random order."""
        pairs = [self.evidence_exchange(evidence) for evidence in self.family.complaint.evidence]
        self.rng.shuffle(pairs)
        if not self.volunteers_onset:
            answer = self._answer("onset", self.say("since", duration=self.duration))
            pairs.insert(0, (self.say("ask_onset"), answer))
        general = [self._severity_exchange, self._treatment_exchange, self._name_exchange]
        if self.age:  # "0 years" says nothing of a baby
            general.append(self._age_exchange)
        for exchange in self.rng.sample(general, k=self.rng.choice((0, 1, 1, 2))):
            pairs.insert(self.rng.randint(0, len(pairs)), exchange())
        return [(self._acknowledged(question), answer) for question, answer in pairs]

    def _acknowledged(self, question: str) -> str:
        return f"{self.say('acknowledge')} {question}" if self.rng.random() < 0.25 else question

    def evidence_exchange(self, evidence: Evidence) -> tuple[str, str]:
        """The question for one fact and its answer."""
        answers = evidence.present if evidence.slot in self.family.present else evidence.absent
        question = self.rng.choice(evidence.ask.of(self.lang, self.split))
        answer = self._disfluent(self.rng.choice(answers.of(self.lang, self.split)))
        if evidence.slot in self.family.present:
            self.telling.add(answer)
        return question, answer

    def _answer(self, slot: str, text: str) -> str:
        """The answer, or now and then something else altogether, and the fact stays unknown."""
        if self.rng.random() < 0.1:
            self.missing.append(slot)
            return self.say("irrelevant")
        return self._disfluent(text)

    def _age_exchange(self) -> tuple[str, str]:
        return self.say("ask_age"), self._answer("age", self.say("age", age=self.age))

    def _severity_exchange(self) -> tuple[str, str]:
        severe = 3 - int(self.family.urgency[1])  # U1 ─▶ 2 … U4 ─▶ -1
        score = self.rng.randint(4 + severe, 8 + severe)
        return self.say("ask_severity"), self._answer("severity", self.say("severity", n=min(score, 10)))

    def _treatment_exchange(self) -> tuple[str, str]:
        return self.say("ask_treatment"), self._answer("treatment", self.say("treatment"))

    def _name_exchange(self) -> tuple[str, str]:
        return self.say("ask_name"), self.say("name")

    def red_flags(self) -> list[str]:
        """The red flags that are present, in the order of the protocol."""
        return [e.slot for e in self.family.complaint.evidence if e.red_flag and e.slot in self.family.present]

    def specialty_label(self) -> str:
        """The specialty in the call's language."""
        entry = specialties()[self.family.specialty]
        return entry.fr if self.lang == "fr" else entry.en

    def closing(self) -> str:
        """The last sentence to the patient."""
        close = self.words.close(self.family.urgency).of(self.lang, self.split)
        return self.rng.choice(close).format(specialty=self.specialty_label())

    def triage(self) -> Triage:
        """The block; call after ``turns``, which decide what stayed unknown."""
        complaint = self.family.complaint
        facts = [e.label.of(self.lang) for e in complaint.evidence if e.slot in self.family.present]
        return Triage(
            urgency=self.family.urgency,
            specialty=self.family.specialty,
            icd10=(complaint.icd10,),
            red_flags=tuple(self.red_flags()),
            summary=", ".join([complaint.names.of(self.lang), *facts]),
            missing_info=tuple(self.missing),
            escalate=self.family.urgency == "U1",
        )

"""Pretraining text for the embedded base: calls without a triage block, and plain prose.

Like the text of a real base it holds the words and which complaint belongs to whom, never the task:
no triage block, and none of the validation and test wordings; JSON it knows from office notes. A document
is ``{"text": …}`` or, for the chat markup of whichever base reads it, ``{"messages": […]}``.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from llmft.knowledge import Complaint, Evidence, Lang, Protocol, load, protocols
from llmft.prepare.synthetic.synthesize import Family, Story, families, word_slots
from llmft.prompt import ROLES
from llmft.run import atomic_path
from llmft.vocabulary import icd10_labels, specialties, urgencies

Document = dict[str, Any]
# what a note on a call repeats ─▶ its weight
PHRASES = {"fragments": 8, "says": 4, "words": 8, "word": 8, "ask": 4, "name": 1, "fact": 1}
STRAY_SHARE = 0.6  # of the calls hold questions about other complaints, in the place of so many of those that bring nothing
Said = tuple[str, str]  # speaker and words


def corpus(count: int, seed: int) -> Iterator[Document]:
    """``count`` documents of all ``KINDS``; the same ones for the same ``seed``."""
    rng = random.Random(seed)
    prose = load("prose.yaml")
    for _ in range(count):
        lang: Lang = rng.choice(("fr", "fr", "en"))
        kind = rng.choices(list(KINDS), weights=list(KINDS.values()))[0]
        yield kind(rng, prose, lang)


def _call(rng: random.Random, prose: dict[str, Any], lang: Lang) -> Document:
    """A training-split call that ends with the closing sentence alone."""
    _, family = _any_family(rng)
    story = Story(rng, family, lang, "train")
    return _written(rng, prose, lang, story, [(turn.speaker, turn.text) for turn in story.turns()])


def _short_call(rng: random.Random, prose: dict[str, Any], lang: Lang) -> Document:
    """A call that asks only for the facts that are present, and sometimes one more."""
    _, family = _any_family(rng)
    story = Story(rng, family, lang, "train")
    asked = [e for e in family.complaint.evidence if e.slot in family.present or rng.random() < 0.2]
    said = [("patient", story.opening())]
    for question, answer in map(story.evidence_exchange, asked):
        said += [("operator", question), ("patient", answer)]
    return _written(rng, prose, lang, story, said)


def _written(rng: random.Random, prose: dict[str, Any], lang: Lang, story: Story, said: list[Said]) -> Document:
    """The call with its closing sentence, as chat messages or written down with the speakers' names."""
    if rng.random() < STRAY_SHARE:
        said = _with_stray_questions(rng, story, said)
    chance = rng.random()
    if chance < 0.45:
        said[0] = ("patient", story.opening_by_words(rng))
    elif chance < 0.75:
        said[0] = ("patient", f"{story.say('greeting')} {_fragments(rng, story.family.complaint, lang)}.")
    said.append(("operator", story.closing()))
    if rng.random() < 0.8:
        messages = [{"role": ROLES[speaker], "content": text} for speaker, text in said]
        return {"messages": messages + (_appointment(rng, prose, lang, story) if rng.random() < 0.6 else [])}
    patient, operator = rng.choice(prose["speakers"][lang])
    names = {"patient": patient, "operator": operator}
    colon = " : " if lang == "fr" else ": "
    return {"text": "\n".join(f"{names[speaker]}{colon}{text}" for speaker, text in said)}


def _with_stray_questions(rng: random.Random, story: Story, said: list[Said]) -> list[Said]:
    """The call with questions about something else, to which the answer is no: what is wrong is what the caller says.

    Without them a small model goes by the operator's questions, which in made calls give the complaint away.
    """
    opening, *rest = said
    pairs = list(zip(rest[::2], rest[1::2], strict=True))
    pairs = [pair if pair[1][1] in story.telling or rng.random() > STRAY_SHARE else _stray(rng, story) for pair in pairs]
    if rng.random() < 0.5:
        pairs.insert(rng.randint(0, len(pairs)), _stray(rng, story))
    return [opening, *(turn for pair in pairs for turn in pair)]


def _stray(rng: random.Random, story: Story) -> tuple[Said, Said]:
    """A question that belongs to another specialty, and its no."""
    specialty, evidence = rng.choice(_all_evidence())
    while specialty == story.family.specialty:
        specialty, evidence = rng.choice(_all_evidence())
    question, answer = (rng.choice(words.of(story.lang, "train")) for words in (evidence.ask, evidence.absent))
    return ("operator", question), ("patient", answer)


@cache
def _all_evidence() -> list[tuple[str, Evidence]]:
    """Every fact that is asked for, with its specialty."""
    return [(p.specialty, evidence) for p in protocols() for complaint in p.complaints for evidence in complaint.evidence]


def _appointment(rng: random.Random, prose: dict[str, Any], lang: Lang, story: Story) -> list[dict[str, str]]:
    """A colleague asks for the entry in the appointment book: JSON about the call, in fields of the office's own."""
    complaint, family = story.family.complaint, story.family
    facts = [e.label.of(lang) for e in complaint.evidence if e.slot in family.present]
    values = {
        "service": family.specialty,
        "topic": complaint.names.of(lang),
        "code": complaint.icd10,
        "label": icd10_labels()[complaint.icd10].of(lang),
        "facts": facts,
        "tags": [e.slot for e in complaint.evidence if e.slot in family.present],
        "signs": [e.slot for e in complaint.evidence if e.slot in family.present and e.red_flag],
        "line": ", ".join([complaint.names.of(lang), *facts]),
        "unknown": story.missing,
        "caller": family.caller,
        "since": story.duration,
    }
    fields = rng.sample(list(values), k=rng.choice((3, 4, 5, 6)))
    block = json.dumps({field: values[field] for field in fields}, ensure_ascii=False)
    asked = rng.choice(prose["appointments"][lang]).format(fields=", ".join(fields))
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": f"```json\n{block}\n```"}]


def _paragraph(rng: random.Random, prose: dict[str, Any], lang: Lang) -> Document:
    """A few sentences about one complaint."""
    protocol, family = _any_family(rng)
    frames = rng.sample(prose["sentences"][lang], k=rng.choice((3, 4, 5, 6)))
    return {"text": " ".join(frame.format(**_facts(rng, protocol, family, lang)) for frame in frames)}


def _glossary(rng: random.Random, prose: dict[str, Any], lang: Lang) -> Document:
    """Sentences about the words of forms, so that no piece of them is a stranger to the model."""
    protocol, family = _any_family(rng)
    frames = rng.sample(prose["glossary"][lang], k=rng.choice((2, 3, 4)))
    return {"text": " ".join(frame.format(**_facts(rng, protocol, family, lang)) for frame in frames)}


def _record(rng: random.Random, prose: dict[str, Any], lang: Lang) -> Document:
    """An office note and the same facts as JSON, in the fence that models are used to; no call, no triage."""
    protocol, family = _any_family(rng)
    facts, records = _facts(rng, protocol, family, lang), prose["records"]
    words = facts["words"].split(", ")
    values: dict[str, Any] = {
        "service": protocol.specialty,
        "day": rng.choice(records["days"][lang]),
        "time": f"{rng.randint(8, 18)}:{rng.choice(('00', '15', '30', '45'))}",
        "site": rng.choice(records["sites"]),
        "code": facts["code"],
        "label": facts["lay"],
        "file": rng.randint(100, 999),
        "words": words,
        "notes": [],
        "open": rng.random() < 0.5,
        "topic": facts["name"],
        "fact": facts["fact"],
        "tag": facts["tag"],
        "people": rng.randint(2, 20),
    }
    note = rng.choices(records["notes"], weights=[1] * (len(records["notes"]) - 1) + [15])[0]  # the last is what calls say
    text = rng.choice(note[lang]).format(**{**values, **facts})
    block = json.dumps({field: values[field] for field in note["fields"]}, ensure_ascii=False)
    if rng.random() < 0.5:
        answer = {"role": "assistant", "content": f"```json\n{block}\n```"}
        return {"messages": [{"role": "user", "content": text}, answer]}
    return {"text": f"{text}\n```json\n{block}\n```"}


def _any_family(rng: random.Random) -> tuple[Protocol, Family]:
    protocol = rng.choice(protocols())
    complaint = rng.choice(protocol.complaints)
    return protocol, rng.choice([f for f in families()["train"] if f.complaint.id == complaint.id])


def _facts(rng: random.Random, protocol: Protocol, family: Family, lang: Lang) -> dict[str, str]:
    """Values for every slot of a prose sentence."""
    complaint = family.complaint
    evidence = rng.choice(complaint.evidence)
    own, other = specialties()[protocol.specialty], specialties()[rng.choice(_others(protocol.specialty))]
    doctor, doctor_other = (own.doctor_fr, other.doctor_fr) if lang == "fr" else (own.doctor_en, other.doctor_en)
    name, specialty = complaint.names.of(lang), own.fr if lang == "fr" else own.en
    raised = min(complaint.urgency, evidence.urgency or complaint.urgency)
    levels = {level: entry.fr if lang == "fr" else entry.en for level, entry in urgencies().items()}
    values = {
        "name": name,
        "Name": _capital(name),
        "specialty": specialty,
        "Specialty": _capital(specialty),
        "doctor": doctor,
        "Doctor": _capital(doctor),
        "doctor_other": doctor_other,
        "says": rng.choice(complaint.says.of(lang, "train")),
        "ask": rng.choice(evidence.ask.of(lang, "train")),
        "fact": evidence.label.of(lang),
        "tag": evidence.slot,
        "code": complaint.icd10,
        "lay": icd10_labels()[complaint.icd10].of(lang),
        "urgency": levels[complaint.urgency],
        "urgency_fact": levels[raised],
        "fragments": _fragments(rng, complaint, lang),
        **word_slots(rng, complaint.words.of(lang)),
    }
    values["phrase"] = values[rng.choices(list(PHRASES), weights=list(PHRASES.values()))[0]]
    return values


def _fragments(rng: random.Random, complaint: Complaint, lang: Lang) -> str:
    """What is caught of a call on a bad line: single words, out of order, so that each word must speak for itself."""
    evidence = rng.choice(complaint.evidence)
    heard = (complaint.says, complaint.says_relative, evidence.ask, evidence.present)
    words = [word for wordings in heard for word in re.findall(r"\w[\w'’-]{3,}", rng.choice(wordings.of(lang, "train")))]
    words += rng.sample(complaint.words.of(lang), k=rng.choice((0, 1, 2)))
    return " … ".join(rng.sample(words, k=min(len(words), rng.randint(2, 6))))


def _others(specialty: str) -> list[str]:
    return [protocol.specialty for protocol in protocols() if protocol.specialty != specialty]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def write_corpus(path: Path, count: int, seed: int) -> int:
    """Write ``count`` documents as JSON lines; returns ``count``."""
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(document, ensure_ascii=False) + "\n" for document in corpus(count, seed))
    return count


KINDS = {_call: 6, _short_call: 9, _paragraph: 1, _record: 6, _glossary: 1}  # kind ─▶ its weight among documents

"""A triage from beginning to end: rules, prompt, model, decision, journal."""

from __future__ import annotations

import json
from asyncio import to_thread
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from time import perf_counter

from llmft.dialogue import Urgency
from llmft.engine.triage_grammar import triage_grammar
from llmft.errors import BackendError, BusyError, LlmftError, PromptError
from llmft.knowledge import Lang
from llmft.protocol.heard_language import heard_language
from llmft.serve.backend import Finished, Piece, Queued, Request
from llmft.serve.desk import Desk
from llmft.serve.roster.importing import roster_version
from llmft.serve.roster.search import FoundDoctor, FoundSlot, Wish, free_slots
from llmft.serve.store.answers import NewAnswer, record_answer
from llmft.serve.store.answers import Versions as StoredVersions
from llmft.serve.triage.confidence import urgency_confidence
from llmft.serve.triage.decide import Decision, decide
from llmft.serve.triage.present import Circumstances, caution, language_caution, present
from llmft.serve.triage.prompting import ModelPrompt, model_prompt
from llmft.serve.triage.screen import Said, Screening
from llmft.serve.triage.shapes import Caution, DoctorShown, Slot, Triage

SLOTS_SHOWN = 5


@dataclass(frozen=True)
class Sentence:
    """A piece of the sentence for the patient, while it is being written."""

    text: str


@dataclass(frozen=True)
class Case:
    """What a triage is made of; all words are masked."""

    call_id: str | None
    turns: Sequence[Said]
    screening: Screening
    lang: Lang
    by: str
    wish: Wish = Wish()


@dataclass(frozen=True)
class Written:
    """What came of the model."""

    text: str
    confidence: float | None
    cautions: tuple[Caution, ...]
    waited_s: float
    generated_s: float


async def triage_events(desk: Desk, case: Case) -> AsyncIterator[Queued | Sentence | Triage]:
    """What happens on the way to a triage, and last the triage; nothing of a model's failure can keep the rules from speaking.

    Raises :class:`BusyError` when too many wait.
    """
    prompt = await to_thread(_prompt, desk, case)
    written = Written("", None, (), 0.0, 0.0)
    if prompt.messages:
        request = Request(prompt.messages, desk.settings.max_new_tokens, triage_grammar())
        try:
            async for event in _written(desk, request):
                if isinstance(event, Written):
                    written = event
                elif isinstance(event, Queued) or case.screening.least != "U1":  # its sentence may not stand
                    yield event
        except BusyError:
            raise
        except PromptError:
            written = replace(written, cautions=(caution("unread", case.lang),))
        except BackendError:
            written = replace(written, cautions=(caution("unavailable", case.lang),))
    yield await to_thread(_concluded, desk, case, prompt, written)


def _prompt(desk: Desk, case: Case) -> ModelPrompt:
    context = desk.backend.facts.context_tokens
    room = (context or 1 << 30) - desk.settings.max_new_tokens
    return model_prompt(case.turns, case.lang, desk.settings.system, desk.backend.prompt_tokens, room)


async def _written(desk: Desk, request: Request) -> AsyncIterator[Queued | Sentence | Written]:
    """The model's answer; of its text only the sentence is passed on."""
    asked = perf_counter()
    pieces: list[Piece] = []
    text, shown = "", 0
    async with aclosing(desk.backend.stream(request)) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Queued):
                yield event
            elif isinstance(event, Piece):
                if not pieces:
                    desk.meters.first_word_s.observe(perf_counter() - asked)
                pieces.append(event)
                text += event.text
                end = len(text.partition("`")[0].rstrip())
                if end > shown:
                    yield Sentence(text[shown:end])
                    shown = end
            elif isinstance(event, Finished):
                yield Written(text, urgency_confidence(pieces), (), event.waited_s, event.generated_s)


def _concluded(desk: Desk, case: Case, prompt: ModelPrompt, written: Written) -> Triage:
    """Decide, journal, and put it into words."""
    decision = decide(written.text, written.confidence, case.screening, case.lang, desk.settings.abstain_below)
    versions = desk.versions(roster_version(desk.store))
    stored = NewAnswer(
        kind="triage",
        call_id=case.call_id,
        turns_read=len(case.turns),
        text=written.text,
        triage=decision.triage.model_dump(mode="json"),
        decided_by=decision.decided_by,
        rules=tuple(flag.id for flag in case.screening.flags),
        confidence=written.confidence,
        valid=decision.said is not None,
        latency_ms=round((written.waited_s + written.generated_s) * 1000, 1),
        generation_ms=round(written.generated_s * 1000, 1),
        versions=StoredVersions(versions.model, versions.adapter, versions.rules, versions.roster, versions.prompt),
    )
    messages = json.dumps(list(prompt.messages), ensure_ascii=False)
    answer = record_answer(desk.store, stored, messages, case.by)
    around = Circumstances(
        id=answer.id,
        call=case.call_id,
        confidence=written.confidence,
        slots=slots_for(desk, decision, case.wish),
        cautions=(*prompt.cautions, *written.cautions, *_language(case)),
        turns_left_out=prompt.turns_left_out,
        versions=versions,
        waited_s=written.waited_s,
        generated_s=written.generated_s,
    )
    triage = present(case.turns, case.screening, decision, around, case.lang)
    desk.meters.answered(triage)
    return triage


def _language(case: Case) -> tuple[Caution, ...]:
    said = [text for speaker, text in case.turns if speaker == "patient"]
    return language_caution(heard_language(said), case.lang) if said else ()


def slots_for(desk: Desk, decision: Decision, wish: Wish) -> tuple[Slot, ...]:
    """Free slots of the specialty; none for an emergency, which no appointment may delay."""
    urgency: Urgency = decision.triage.urgency
    if urgency == "U1":
        return ()
    try:
        found = free_slots(desk.store, replace(wish, specialty=decision.triage.specialty), limit=SLOTS_SHOWN)
    except LlmftError:  # a roster that cannot be read now must not cost the answer
        return ()
    return tuple(slot_shown(slot) for slot in found)


def slot_shown(slot: FoundSlot) -> Slot:
    """A free slot as it is answered."""
    return Slot(id=slot.id, starts=slot.starts, ends=slot.ends, doctor=doctor_shown(slot.doctor))


def doctor_shown(doctor: FoundDoctor) -> DoctorShown:
    """A doctor as they are answered."""
    return DoctorShown(
        id=doctor.id,
        name=doctor.display_name,
        site=doctor.site,
        specialties=doctor.specialties,
        languages=doctor.languages,
        modes=doctor.modes,
        age_min=doctor.age_min,
        age_max=doctor.age_max,
    )

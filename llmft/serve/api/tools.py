"""What needs no stored call: a whole dialogue's triage, de-identification, the closed lists."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Iterable
from contextlib import aclosing
from functools import cache

from fastapi import APIRouter

from llmft.deidentify.stage import deidentify
from llmft.serve.answering import Case, triage_events
from llmft.serve.api.bodies import MAX_CALL, TextsToMask, WholeDialogue
from llmft.serve.api.shown import Masked, Vocabulary
from llmft.serve.desk import Desk
from llmft.serve.roster.search import Wish
from llmft.serve.security.access import TheDesk, Who
from llmft.serve.security.refusal import Refusal
from llmft.serve.triage.masking import masked_call, masks_of, screen_typed
from llmft.serve.triage.shapes import Triage
from llmft.vocabulary import icd10_labels, specialties, urgencies

router = APIRouter(prefix="/v1", tags=["tools"])


@router.post("/triage")
async def triage(body: WholeDialogue, desk: TheDesk, who: Who) -> Triage:
    """The triage of a dialogue; no turn of it is stored."""
    case = await to_thread(_case, desk, body, who.name)
    made: Triage | None = None
    async with aclosing(triage_events(desk, case)) as steps:  # type: ignore[type-var]
        async for step in steps:
            made = step if isinstance(step, Triage) else made
    assert made is not None
    return made


def _case(desk: Desk, body: WholeDialogue, by: str) -> Case:
    turns = [(turn.speaker, turn.text) for turn in body.turns]
    _require_room(text for _, text in turns)
    if not any(speaker == "patient" for speaker, _ in turns):
        raise Refusal(422, "no_patient_turn", "turns: the patient says nothing; add a turn of the patient", "turns")
    masked, _ = masked_call(turns, body.lang)
    screening = screen_typed(masked, [text for _, text in turns], body.lang)
    for flag in screening.flags:
        desk.meters.red_flags.labels(flag.id, flag.urgency).inc()
    return Case(None, masked, screening, body.lang, by, Wish(site=body.place, age=body.age))


@router.post("/deidentify")
async def mask(body: TextsToMask, desk: TheDesk, who: Who) -> Masked:
    """Texts of one call without personal data; nothing is stored."""
    _require_room(body.texts)
    done = await to_thread(deidentify, body.texts, body.lang)
    masks = tuple(masks_of(done, number) for number in range(len(done.texts)))
    return Masked(texts=done.texts, masks=masks, counts=done.counts)


@router.get("/vocabulary")
async def vocabulary(who: Who) -> Vocabulary:
    """The closed lists that labels are taken from."""
    return _vocabulary()


@cache
def _vocabulary() -> Vocabulary:
    return Vocabulary(
        urgencies={name: {"rank": level.rank, "fr": level.fr, "en": level.en} for name, level in urgencies().items()},
        specialties={name: {"fr": entry.fr, "en": entry.en} for name, entry in specialties().items()},
        icd10={code: {"fr": label.fr, "en": label.en} for code, label in icd10_labels().items()},
    )


def _require_room(texts: Iterable[str]) -> None:
    size = sum(map(len, texts))
    if size > MAX_CALL:
        raise Refusal(422, "too_long", f"a call has at most {MAX_CALL} characters; send less of it")

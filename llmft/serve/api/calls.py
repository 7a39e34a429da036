"""Calls in progress: what is said is masked, read by the rules and stored before anybody answers."""

from __future__ import annotations

import json
from asyncio import to_thread
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import StreamingResponse

from llmft.errors import LlmftError
from llmft.serve.answering import Case, Sentence, triage_events
from llmft.serve.api.bodies import CallStatus, EndOfCall, NewCall, NewTurn, Nothing, Speaker, Transcript
from llmft.serve.api.call_state import call_shown, language, mask_turn, number_of_key, own_call, pairs, reading, said_shown
from llmft.serve.api.faults import refusal_of
from llmft.serve.api.shown import Call, CallLine, Calls, Imported, Said
from llmft.serve.backend import Queued
from llmft.serve.desk import Desk
from llmft.serve.live import Happening, event_text, server_sent
from llmft.serve.security.access import TheDesk, Who
from llmft.serve.security.refusal import Refusal
from llmft.serve.store.calls import Call as StoredCall
from llmft.serve.store.calls import add_turn, end_call, new_id, other_turn, read_call, recent_calls, start_call
from llmft.serve.store.keys import Identity
from llmft.serve.triage.shapes import Triage

router = APIRouter(prefix="/v1/calls", tags=["calls"])
CallId = Annotated[str, Path(max_length=60, pattern=r"^[\w.:-]+$")]
EVENTS = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}


@router.post("", status_code=201)
async def start(body: NewCall, desk: TheDesk, who: Who) -> Call:
    """Begin a call."""
    call = await to_thread(start_call, desk.store, body.lang, who.name, subject=body.subject)
    return await to_thread(call_shown, desk, call)


@router.get("")
async def calls(
    desk: TheDesk, who: Who, status: CallStatus | None = None, limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> Calls:
    """One's own calls, the latest first; a supervisor's are all."""
    by = None if who.role == "supervisor" else who.name
    found = await to_thread(recent_calls, desk.store, by=by, status=status, limit=limit)
    return Calls(
        calls=tuple(CallLine(id=c.id, lang=c.lang, status=c.status, started=c.created, updated=c.updated) for c in found)
    )


@router.get("/{call_id}")
async def show(call_id: CallId, desk: TheDesk, who: Who) -> Call:
    """The whole state, so that a reload loses nothing."""
    return await to_thread(lambda: call_shown(desk, own_call(desk, call_id, who)))


@router.post("/{call_id}/turns", status_code=201)
async def say(call_id: CallId, body: NewTurn, desk: TheDesk, who: Who) -> Said:
    """Store what was said, without personal data, and say at once what the rules read in it."""
    said = await to_thread(_said, desk, call_id, who, body.speaker, body.text, body.key)
    desk.feeds.publish(call_id, "turn", said)
    if body.speaker == "patient" and desk.settings.live and desk.feeds.is_heard(call_id):
        desk.feeds.renew(call_id, _live_triage(desk, call_id, who))
    return said


@router.post("/{call_id}/transcript", status_code=201)
async def add_transcript(call_id: CallId, body: Transcript, desk: TheDesk, who: Who) -> Imported:
    """Add turns at the end of a call."""

    def added() -> Imported:
        keys = [f"{body.key or new_id('import')}-{number}" for number in range(len(body.turns))]
        said = [_said(desk, call_id, who, t.speaker, t.text, key) for t, key in zip(body.turns, keys, strict=True)]
        masks = tuple(one.masks for one in said)
        return Imported(call=call_shown(desk, own_call(desk, call_id, who)), masks=masks)

    imported = await to_thread(added)
    desk.feeds.publish(call_id, "state", imported.call)
    if desk.settings.live and desk.feeds.is_heard(call_id):
        desk.feeds.renew(call_id, _live_triage(desk, call_id, who))
    return imported


def _said(desk: Desk, call_id: str, who: Identity, speaker: Speaker, text: str, key: str) -> Said:
    """One turn, in a thread; sent again with its key, it is answered again and stands once."""
    call = own_call(desk, call_id, who)
    before = reading(desk, call)
    number = number_of_key(desk, call_id, key)
    masked, masks = mask_turn(desk, call, text, len(call.turns) if number is None else number)
    turn = add_turn(desk.store, call_id, speaker, masked, key=key)
    if desk.heard.typed(call_id, turn.number) not in (None, text):
        raise other_turn(key)
    desk.heard.keep(call_id, turn.number, text)
    if number is None:
        call = read_call(desk.store, call_id)
    said = said_shown(call, turn, masks, before.flags, reading(desk, call))
    for flag in said.new_flags:
        desk.meters.red_flags.labels(flag.id, flag.urgency).inc()
    return said


@router.post("/{call_id}/triage", responses=EVENTS, response_model=Triage)  # type: ignore[arg-type]
async def triage(call_id: CallId, desk: TheDesk, who: Who, request: Request, body: Nothing | None = None) -> object:
    """The triage of what was said so far; with ``Accept: text/event-stream`` its way there, too."""
    case = await to_thread(_case, desk, call_id, who)
    if "text/event-stream" in request.headers.get("accept", ""):
        return StreamingResponse(_as_text(_told(desk, call_id, case)), media_type="text/event-stream")
    desk.feeds.stop(call_id)
    made: Triage | None = None
    async with aclosing(triage_events(desk, case)) as steps:  # type: ignore[type-var]
        async for step in steps:
            desk.feeds.publish(call_id, *_happening(step))
            made = step if isinstance(step, Triage) else made
    return made


@router.post("/{call_id}/close")
async def close(call_id: CallId, desk: TheDesk, who: Who, body: EndOfCall) -> Call:
    """End a call; the words as typed are forgotten."""

    def ended() -> Call:
        own_call(desk, call_id, who)
        call = end_call(desk.store, call_id, body.status)
        shown = call_shown(desk, call)
        desk.heard.forget(call_id)
        return shown

    shown = await to_thread(ended)
    desk.feeds.stop(call_id)
    desk.feeds.publish(call_id, "closed", "{}")
    return shown


@router.get("/{call_id}/events", responses=EVENTS)  # type: ignore[arg-type]
async def events(call_id: CallId, desk: TheDesk, who: Who) -> StreamingResponse:
    """What happens in a call, beginning with its state."""
    await to_thread(own_call, desk, call_id, who)
    return StreamingResponse(_events(desk, call_id, who), media_type="text/event-stream")


async def _events(desk: Desk, call_id: str, who: Identity) -> AsyncIterator[str]:
    with desk.feeds.listening(call_id) as queue:
        state = await to_thread(lambda: call_shown(desk, own_call(desk, call_id, who)))
        async with aclosing(server_sent(queue, ("state", state.model_dump_json()))) as texts:  # type: ignore[type-var]
            async for text in texts:
                yield text


def _case(desk: Desk, call_id: str, who: Identity) -> Case:
    call: StoredCall = own_call(desk, call_id, who)
    if not any(turn.speaker == "patient" for turn in call.turns):
        raise Refusal(422, "no_patient_turn", "the patient has said nothing yet; add a turn first")
    return Case(call.id, pairs(call), reading(desk, call), language(call), who.name)


async def _told(desk: Desk, call_id: str, case: Case) -> AsyncIterator[Happening]:
    """What happens on the way to a triage, told to all who listen to the call, too."""
    try:
        async with aclosing(triage_events(desk, case)) as steps:  # type: ignore[type-var]
            async for step in steps:
                happening = _happening(step)
                desk.feeds.publish(call_id, *happening)
                yield happening
    except LlmftError as error:
        told = json.dumps(refusal_of(error).body())
        desk.feeds.publish(call_id, "error", told)
        yield "error", told


def _happening(step: Queued | Sentence | Triage) -> Happening:
    if isinstance(step, Triage):
        return "triage", step.model_dump_json()
    if isinstance(step, Sentence):
        return "sentence", json.dumps({"text": step.text}, ensure_ascii=False)
    return "queue", json.dumps({"position": step.position})


async def _as_text(happenings: AsyncIterator[Happening]) -> AsyncIterator[str]:
    async with aclosing(happenings) as told:  # type: ignore[type-var]
        async for name, data in told:
            yield event_text(name, data)


async def _live_triage(desk: Desk, call_id: str, who: Identity) -> None:
    """The triage that nobody asked for, for those who listen."""
    try:
        case = await to_thread(_case, desk, call_id, who)
    except (Refusal, LlmftError):
        return
    async with aclosing(_told(desk, call_id, case)) as happenings:  # type: ignore[type-var]
        async for _ in happenings:
            pass

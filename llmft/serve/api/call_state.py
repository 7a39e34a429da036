"""A stored call as it is shown: the rules read again, the last triage in words."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import select

from llmft.dialogue import Triage as Block
from llmft.dialogue import read_triage
from llmft.knowledge import Lang
from llmft.protocol.heard_language import heard_language
from llmft.serve.answering import slots_for
from llmft.serve.api.bodies import MAX_CALL, MAX_TURNS
from llmft.serve.api.shown import Call, Said, Turn
from llmft.serve.desk import Desk
from llmft.serve.roster.search import Wish
from llmft.serve.security.refusal import Refusal
from llmft.serve.store.answers import Answer, answers_of
from llmft.serve.store.calls import Call as StoredCall
from llmft.serve.store.calls import CallTurn, read_call
from llmft.serve.store.feedback import last_action
from llmft.serve.store.keys import Identity
from llmft.serve.store.tables import turns
from llmft.serve.triage.decide import Decision, sentence_for
from llmft.serve.triage.masking import masked_turn, masks_of, screen_typed
from llmft.serve.triage.present import Circumstances, present
from llmft.serve.triage.questions import questions_for
from llmft.serve.triage.screen import Said as SaidPair
from llmft.serve.triage.screen import Screening, banner
from llmft.serve.triage.shapes import Flag, Mask, Triage, Versions


def own_call(desk: Desk, call_id: str, who: Identity) -> StoredCall:
    """A call of one's own, or any for a supervisor; to others it does not exist."""
    call = read_call(desk.store, call_id)
    if call.operator != who.name and who.role != "supervisor":
        raise Refusal(404, "not_found", "no call of yours has this id; see GET /v1/calls")
    return call


def language(call: StoredCall) -> Lang:
    """The call's language as a type."""
    return "en" if call.lang == "en" else "fr"


def pairs(call: StoredCall) -> list[SaidPair]:
    """The masked turns."""
    return [(turn.speaker, turn.text) for turn in call.turns]


def reading(desk: Desk, call: StoredCall) -> Screening:
    """What the rules read in the call."""
    masked = pairs(call)
    return screen_typed(masked, desk.heard.of(call.id, [text for _, text in masked]), language(call))


def number_of_key(desk: Desk, call_id: str, key: str) -> int | None:
    """The turn of a call that was sent with this key already."""
    asked = select(turns.c.number).where(turns.c.call_id == call_id, turns.c.key == key)
    with desk.store.reading() as connection:
        number: int | None = connection.execute(asked).scalar()
    return number


def mask_turn(desk: Desk, call: StoredCall, text: str, number: int) -> tuple[str, tuple[Mask, ...]]:
    """Turn ``number`` without personal data, read after what was said before; raises :class:`Refusal` when the call is full."""
    said = [turn.text for turn in call.turns[:number]]
    if number >= MAX_TURNS or sum(map(len, said)) + len(text) > MAX_CALL:
        raise Refusal(409, "call_full", f"a call has at most {MAX_TURNS} turns and {MAX_CALL} characters; start a new call")
    done = masked_turn(desk.heard.of(call.id, said), text, language(call))
    return done.texts[-1], masks_of(done)


def turn_shown(turn: CallTurn) -> Turn:
    """A turn as it is answered."""
    return Turn(i=turn.number, speaker=turn.speaker, text=turn.text, at=turn.created)


def said_shown(call: StoredCall, turn: CallTurn, masks: tuple[Mask, ...], before: Sequence[Flag], now: Screening) -> Said:
    """What a new turn changes; ``call`` holds it already."""
    lang = language(call)
    known = {flag.id for flag in before}
    return Said(
        turn=turn_shown(turn),
        masks=masks,
        new_flags=tuple(flag for flag in now.flags if flag.id not in known),
        flags=now.flags,
        denied=now.denied,
        floor=now.floor,
        banner=banner(now.flags, now.floor, lang),
        questions=questions_for(pairs(call), now, lang),
        heard_lang=heard_language(turn.text for turn in call.turns if turn.speaker == "patient") if call.turns else lang,
    )


def call_shown(desk: Desk, call: StoredCall) -> Call:
    """The whole state."""
    lang, now = language(call), reading(desk, call)
    answers = [answer for answer in answers_of(desk.store, call.id) if answer.given.kind == "triage"]
    triage = triage_again(desk, call, now, answers[-1]) if answers else None
    return Call(
        id=call.id,
        lang=call.lang,
        status=call.status,
        started=call.created,
        updated=call.updated,
        turns=tuple(turn_shown(turn) for turn in call.turns),
        flags=now.flags,
        denied=now.denied,
        floor=now.floor,
        banner=banner(now.flags, now.floor, lang),
        questions=questions_for(pairs(call), now, lang),
        triage=triage,
        triage_is_old=bool(answers) and answers[-1].given.turns_read < len(call.turns),
        verdict=last_action(desk.store, answers[-1].id, call.operator) if answers else None,
    )


def triage_again(desk: Desk, call: StoredCall, now: Screening, answer: Answer) -> Triage | None:
    """A stored answer in words again; who is free is looked up anew."""
    given, lang = answer.given, language(call)
    if given.triage is None:
        return None
    block = Block.model_validate_json(json.dumps(given.triage))
    said = read_triage(given.text)
    by = given.decided_by if given.decided_by in ("model", "rules") else "abstained"
    sentence = sentence_for(given.text, block.urgency, block.specialty, by, lang)
    abstained = said is None or (by == "abstained") or (said.urgency != "U1" and _unsure(desk, given.confidence))
    decision = Decision(block, sentence, by, abstained, said)  # type: ignore[arg-type]
    versions = given.versions
    around = Circumstances(
        id=answer.id,
        call=call.id,
        confidence=given.confidence,
        slots=slots_for(desk, decision, Wish()),
        cautions=(),
        turns_left_out=0,
        versions=Versions(
            llmft=desk.versions(None).llmft,
            model=versions.model or "",
            adapter=versions.adapter,
            prompt=versions.prompt or "",
            rules=versions.rules or "",
            roster=versions.roster,
        ),
        waited_s=((given.latency_ms or 0) - (given.generation_ms or 0)) / 1000,
        generated_s=(given.generation_ms or 0) / 1000,
    )
    then = Screening(tuple(flag for flag in now.flags if flag.turn < given.turns_read), now.denied, now.complaint)
    return present(pairs(call), then, decision, around, lang)


def _unsure(desk: Desk, confidence: float | None) -> bool:
    return confidence is not None and confidence < desk.settings.abstain_below

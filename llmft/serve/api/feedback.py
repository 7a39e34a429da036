"""What operators and reviewers think of an answer."""

from __future__ import annotations

from asyncio import to_thread

from fastapi import APIRouter
from pydantic import ValidationError

from llmft.dialogue import fault_of
from llmft.serve.api.bodies import Judgement
from llmft.serve.api.call_state import own_call
from llmft.serve.api.shown import Made
from llmft.serve.desk import Desk
from llmft.serve.monitor.judged import is_under_triage
from llmft.serve.security.access import TheDesk, Who
from llmft.serve.security.refusal import Refusal
from llmft.serve.store.answers import read_answer
from llmft.serve.store.feedback import NewFeedback, give_feedback
from llmft.serve.store.keys import Identity

router = APIRouter(prefix="/v1/feedback", tags=["feedback"])


@router.post("", status_code=201)
async def judge(body: Judgement, desk: TheDesk, who: Who) -> Made:
    """Store a judgement; its free text is de-identified before."""
    feedback_id, _ = await to_thread(stored_judgement, desk, body, who)
    return Made(id=feedback_id)


def stored_judgement(desk: Desk, body: Judgement, who: Identity) -> tuple[str, bool]:
    """Store and count a judgement; its id, and whether the answer was too little urgent."""
    given = _given(body)
    answer = read_answer(desk.store, body.answer_id)
    if answer.given.call_id is not None:
        own_call(desk, answer.given.call_id, who)
    made = give_feedback(desk.store, given, who.name)
    is_under = is_under_triage(answer, given)
    desk.meters.feedback.labels(body.action).inc()
    if is_under:
        desk.meters.under_triage.inc()
    return made.id, is_under


def _given(body: Judgement) -> NewFeedback:
    try:
        return NewFeedback.model_validate_json(body.model_dump_json(exclude_none=True))
    except ValidationError as error:
        fault = fault_of(error, "body", 1)
        place = fault.field or "body"
        raise Refusal(422, "invalid", f"{place}: {fault.reason}", place) from None

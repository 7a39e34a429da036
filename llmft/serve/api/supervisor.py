"""What a supervisor looks at: volumes, overrides, drift, and where humans disagreed."""

from __future__ import annotations

from asyncio import to_thread
from typing import Annotated

from fastapi import APIRouter, Query

from llmft.serve.api.bodies import CorrectionSent, Judgement, NewReview
from llmft.serve.api.feedback import stored_judgement
from llmft.serve.api.shown import Reviewed
from llmft.serve.monitor.summary import Disagreements, Summary, disagreements, summary
from llmft.serve.security.access import Supervisor, TheDesk

router = APIRouter(prefix="/v1/supervisor", tags=["supervisor"])


@router.get("/summary")
async def show(desk: TheDesk, who: Supervisor, days: Annotated[int, Query(ge=1, le=365)] = 7) -> Summary:
    """The last days in numbers."""
    found = await to_thread(summary, desk.store, days, desk.settings.drift_reference)
    for drift in found.drift:
        desk.meters.drift.labels(drift.what).set(drift.psi)
    return found


@router.get("/disagreements")
async def disagreed(desk: TheDesk, who: Supervisor, limit: Annotated[int, Query(ge=1, le=500)] = 50) -> Disagreements:
    """Where operators changed or refused an answer, the latest first."""
    return await to_thread(disagreements, desk.store, limit)


@router.post("/reviews", status_code=201)
async def review(body: NewReview, desk: TheDesk, who: Supervisor) -> Reviewed:
    """What a reviewer found an answer should have been."""
    correction = CorrectionSent(urgency=body.urgency)
    judged = Judgement(answer_id=body.answer_id, action="edited", reason=body.reason, correction=correction, key=body.key)
    feedback_id, is_under = await to_thread(stored_judgement, desk, judged, who)
    return Reviewed(id=feedback_id, under_triage=is_under)

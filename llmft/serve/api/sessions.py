"""Who I am, and the console's session."""

from __future__ import annotations

from asyncio import to_thread

from fastapi import APIRouter, Request, Response

from llmft.serve.api.bodies import NewSession
from llmft.serve.api.shown import ModelInService, Session
from llmft.serve.desk import Desk
from llmft.serve.security.access import COOKIE, Access, TheDesk, Who, csrf_of, require_own_page
from llmft.serve.security.refusal import Refusal
from llmft.serve.store.keys import Identity
from llmft.serve.store.sessions import close_session, open_session
from llmft.serve.triage.present import NOTICE

router = APIRouter(prefix="/v1/session", tags=["session"])
HOURS = 12


def session_shown(desk: Desk, access: Access, who: Identity, token: str | None) -> Session:
    """A session as it is answered."""
    facts = desk.backend.facts
    model = ModelInService(name=facts.name, sha256=facts.sha256, backend=facts.kind)
    csrf = csrf_of(token) if token else None
    return Session(
        name=who.name,
        role=who.role,
        keyless=not who.key_id,
        csrf=csrf,
        seal=csrf or access.seal,
        notice=dict(NOTICE),
        model=model,
    )


@router.get("")
async def show(request: Request, desk: TheDesk, who: Who) -> Session:
    """Who is asking."""
    return session_shown(desk, request.app.state.access, who, request.cookies.get(COOKIE) if who.key_id else None)


@router.post("")
async def enter(body: NewSession, request: Request, response: Response, desk: TheDesk) -> Session:
    """Begin a session of the console with a key."""
    access: Access = request.app.state.access
    require_own_page(request)
    who = await access.by_key(request, body.key)
    if not who.key_id:
        raise Refusal(409, "conflict", "this service has no keys, so none is asked for; go on without")
    token = await to_thread(open_session, desk.store, who, HOURS)
    is_secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
    response.set_cookie(COOKIE, token, max_age=HOURS * 3600, httponly=True, samesite="strict", secure=is_secure, path="/")
    return session_shown(desk, access, who, token)


@router.delete("", status_code=204)
async def leave(request: Request, response: Response, desk: TheDesk, who: Who) -> None:
    """End the session."""
    if token := request.cookies.get(COOKIE):
        await to_thread(close_session, desk.store, token)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")

"""Whether the service lives, is ready, and how it does."""

from __future__ import annotations

from asyncio import to_thread

from fastapi import APIRouter, Request, Response

from llmft.serve.security.access import Access, TheDesk

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def alive() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def ready(desk: TheDesk) -> dict[str, str]:
    """Database and model answer."""
    await to_thread(desk.store.ping)
    await desk.backend.check()
    return {"status": "ready", "model": desk.backend.facts.sha256}


@router.get("/metrics", response_class=Response)
async def metrics(request: Request, desk: TheDesk) -> Response:
    """Prometheus' text; from another machine it needs a key."""
    access: Access = request.app.state.access
    client = request.client.host if request.client else ""
    if client not in ("127.0.0.1", "::1"):
        await access.identity(request)
    desk.meters.waiting.set(desk.backend.waiting)
    desk.meters.running.set(desk.backend.running)
    return Response(desk.meters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

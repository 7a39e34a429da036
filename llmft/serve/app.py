"""The application: a desk, its paths, and the guard around them."""

from __future__ import annotations

from asyncio import create_task, wait
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Thread

from fastapi import FastAPI
from starlette.types import ASGIApp

from llmft import __version__
from llmft.errors import LlmftError
from llmft.knowledge import Lang
from llmft.serve.api import calls, feedback, health, openai, roster, sessions, supervisor, tools
from llmft.serve.api.faults import add_faults
from llmft.serve.api.shown import Problem
from llmft.serve.backend import Backend
from llmft.serve.console import mount_console
from llmft.serve.desk import Desk
from llmft.serve.monitor.meters import new_meters
from llmft.serve.monitor.summary import read_reference
from llmft.serve.security.access import Access
from llmft.serve.security.guard import Guard
from llmft.serve.settings import ServeSettings
from llmft.serve.store.database import Store, open_store
from llmft.serve.store.keys import has_keys
from llmft.serve.succession import follow_models
from llmft.serve.triage.masking import masked_turn
from llmft.serve.triage.questions import questions_for
from llmft.serve.triage.screen import screen

ROUTERS = (
    openai.router,
    sessions.router,
    calls.router,
    tools.router,
    roster.router,
    feedback.router,
    supervisor.router,
    health.router,
)


def open_desk(settings: ServeSettings) -> Desk:
    """Open the database and the model.

    Raises :class:`LlmftError` when the service would answer other machines without keys, or either cannot be opened.
    """
    store = open_store(settings.database, settings.folder)
    _require_keys(settings, store)
    if settings.drift_reference is not None:
        read_reference(settings.drift_reference)
    reading = Thread(target=_read_rules, daemon=True)  # while the model is read from the disk
    reading.start()
    desk = Desk(settings, store, _backend(settings), new_meters())
    reading.join()
    facts = desk.backend.facts
    desk.meters.model.labels(facts.name, facts.sha256, facts.kind).set(1)
    return desk


def _require_keys(settings: ServeSettings, store: Store) -> None:
    if not settings.is_loopback and not has_keys(store):
        raise LlmftError(
            f"{settings.host} can be reached from other machines and there is no key; make one with: "
            "llmft keys add NAME --role supervisor"
        )


def _read_rules() -> None:
    """Read rules, names and protocols now, so that the first caller does not wait for them."""
    langs: tuple[Lang, Lang] = ("fr", "en")
    for lang in langs:
        turns = [("patient", "[NOM] ?"), ("operator", "?"), ("patient", "mal à la poitrine, chest pain")]
        questions_for(turns, screen(turns, lang), lang)
        masked_turn(["?"], "?", lang)


def _backend(settings: ServeSettings) -> Backend:
    if settings.model is None:
        from llmft.serve.backend.remote import open_remote

        return open_remote(str(settings.backend_url), settings.backend_model, settings.backend_key)
    from llmft.serve.backend.local import open_local

    return open_local(settings.model, context_tokens=settings.context_tokens, slots=settings.slots, threads=settings.threads)


def new_app(desk: Desk) -> ASGIApp:
    """The whole application; it closes the desk when it ends."""

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        following = create_task(follow_models(app.state, _backend)) if desk.settings.follows else None
        yield
        await desk.feeds.close()
        if following:
            following.cancel()
            await wait([following])
        await app.state.desk.backend.close()
        desk.store.close()

    app = FastAPI(
        title="llmft",
        version=__version__,
        description="Decision support for medical triage calls, not a medical device. The contract: docs/serve.md.",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        lifespan=living,
        responses={code: {"model": Problem} for code in (400, 401, 403, 404, 409, 413, 422, 429, 503)},
    )
    app.state.desk, app.state.access = desk, Access(desk)
    add_faults(app)
    for router in ROUTERS:
        app.include_router(router)
    mount_console(app)
    return Guard(app, desk.meters, desk.settings.max_body_bytes, desk.settings.has_tls)

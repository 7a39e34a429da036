"""Start the service and keep it running until it is stopped."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from llmft.errors import LlmftError
from llmft.serve.settings import ServeSettings

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

NOTICE = "Decision support, not a medical device. / Aide à la décision, pas un dispositif médical."
GRACE_S = 5  # for answers that are being written when the service is stopped
# Of a connection on which nothing is said. Longer than clients and proxies keep one (OpenAI's client 5 s, nginx 60 s):
# whoever writes to a connection in the moment in which the other end closes it loses the request.
KEEP_ALIVE_S = 75


def serve(settings: ServeSettings, begun: float | None = None) -> None:
    """Answer until Ctrl-C; ``begun``: when the start began, on ``perf_counter``.

    Raises :class:`LlmftError` for anything that keeps the service from starting.
    """
    begun = perf_counter() if begun is None else begun
    import uvicorn

    from llmft.serve.app import new_app, open_desk
    from llmft.serve.store.keys import has_keys

    _require_files(settings)
    desk = open_desk(settings)
    keyless = not has_keys(desk.store)
    server = uvicorn.Server(server_config(settings, new_app(desk)))

    def say() -> None:
        _say(settings, desk.backend.facts.name, perf_counter() - begun, keyless=keyless)

    # SystemExit is uvicorn's way to say that the port is taken
    with suppress(SystemExit), asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(_until_stopped(server, say))
    if not server.started:
        raise LlmftError(f"{settings.host}:{settings.port} cannot be listened on; stop what runs there, or give another --port")


async def _until_stopped(server: uvicorn.Server, say: Callable[[], None]) -> None:
    """Serve; ``say`` is called once the port is open."""

    async def say_when_open() -> None:
        while not server.started:
            await asyncio.sleep(0.005)
        say()

    saying = asyncio.create_task(say_when_open())
    try:
        await server.serve()
    finally:
        saying.cancel()


def server_config(settings: ServeSettings, app: ASGIApp) -> uvicorn.Config:
    """How the application is served."""
    import uvicorn

    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        access_log=False,  # paths hold ids of calls
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=KEEP_ALIVE_S,
        proxy_headers=False,
        lifespan="on",
    )


def model_in_service(database: str | None, folder: Path | None) -> Path:
    """The file that was taken into service; raises :class:`LlmftError` when there is none, or it was changed since."""
    from llmft.serve.store.database import open_store
    from llmft.serve.store.models import active_model, require_unchanged

    store = open_store(database, folder)
    try:
        active = active_model(store)
    finally:
        store.close()
    if active is None:
        raise LlmftError("no model is in service; name a file, or take one into service with: llmft models use FILE")
    require_unchanged(active)
    return active.path


def _require_files(settings: ServeSettings) -> None:
    for path in (settings.tls_cert, settings.tls_key, settings.drift_reference):
        if path is not None and not Path(path).is_file():
            raise LlmftError(f"{path} is not there; give the path of a file")


def _say(settings: ServeSettings, model: str, start_s: float, *, keyless: bool) -> None:
    scheme = "https" if settings.has_tls else "http"
    print(f"llmft serves {model} at {scheme}://{settings.host}:{settings.port}/ (ready after {start_s:.1f} s)")
    if keyless:
        print("No keys: only this machine is answered, and everybody on it is supervisor. Make keys: llmft keys add")
    elif not settings.has_tls and not settings.is_loopback:
        print("Without TLS, keys and calls cross the network in the clear: give --tls-cert and --tls-key, or put a proxy before")
    print(NOTICE)
    sys.stdout.flush()

"""Start the service and keep it running until it is stopped."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llmft.errors import LlmftError
from llmft.serve.settings import ServeSettings

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

NOTICE = "Decision support, not a medical device. / Aide à la décision, pas un dispositif médical."
GRACE_S = 5  # for answers that are being written when the service is stopped


def serve(settings: ServeSettings) -> None:
    """Answer until Ctrl-C; raises :class:`LlmftError` for anything that keeps the service from starting."""
    import uvicorn

    from llmft.serve.app import new_app, open_desk
    from llmft.serve.store.keys import has_keys

    _require_files(settings)
    desk = open_desk(settings)
    app = new_app(desk)
    _say(settings, desk.backend.facts.name, keyless=not has_keys(desk.store))
    server = uvicorn.Server(server_config(settings, app))
    with suppress(SystemExit):  # uvicorn's way to say that the port is taken
        server.run()
    if not server.started:
        raise LlmftError(f"{settings.host}:{settings.port} cannot be listened on; stop what runs there, or give another --port")


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
        proxy_headers=False,
        lifespan="on",
    )


def model_in_service(database: str | None, folder: Path | None) -> Path:
    """The file that was taken into service; raises :class:`LlmftError` when there is none, or it was changed since."""
    from llmft.run import sha256
    from llmft.serve.store.database import open_store
    from llmft.serve.store.models import active_model

    store = open_store(database, folder)
    try:
        active = active_model(store)
    finally:
        store.close()
    if active is None:
        raise LlmftError("no model is in service; name a file, or take one into service with: llmft models use FILE")
    if not active.path.is_file() or sha256(active.path) != active.sha256:
        raise LlmftError(f"{active.path} is gone or was changed since it was taken into service; see: llmft models list")
    return active.path


def _require_files(settings: ServeSettings) -> None:
    for path in (settings.tls_cert, settings.tls_key, settings.drift_reference):
        if path is not None and not Path(path).is_file():
            raise LlmftError(f"{path} is not there; give the path of a file")


def _say(settings: ServeSettings, model: str, *, keyless: bool) -> None:
    scheme = "https" if settings.has_tls else "http"
    print(f"llmft serves {model} at {scheme}://{settings.host}:{settings.port}/")
    if keyless:
        print("No keys: only this machine is answered, and everybody on it is supervisor. Make keys: llmft keys add")
    elif not settings.has_tls and not settings.is_loopback:
        print("Without TLS, keys and calls cross the network in the clear: give --tls-cert and --tls-key, or put a proxy before")
    print(NOTICE)
    sys.stdout.flush()

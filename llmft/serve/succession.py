"""Another model taken into service while the desk runs: it is opened beside the present one, and answers from then on.

A request keeps the desk that it began with, so an answer, its journal record and what it says of its model are of one model.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import to_thread
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from starlette.datastructures import State

from llmft.errors import LlmftError
from llmft.serve.backend import Backend
from llmft.serve.desk import Desk
from llmft.serve.settings import ServeSettings
from llmft.serve.store.models import active_model, require_unchanged

LOOK_S = 5.0  # between looks at what is in service
LEAVE_S = 60.0  # that the earlier model stays when it has nothing to do: a request may have begun with it and not asked it yet
Open = Callable[[ServeSettings], Backend]
_log = logging.getLogger("llmft.serve")


async def follow_models(state: State, open_backend: Open) -> None:
    """Put what ``llmft models use`` and ``back`` take into service into ``state.desk``, until cancelled.

    A file that cannot be opened is told in the log once; the present model goes on.
    """
    refused = 0
    async with asyncio.TaskGroup() as leaving:
        while True:
            await asyncio.sleep(LOOK_S)
            desk: Desk = state.desk
            try:
                active = await to_thread(active_model, desk.store)
                if active is None or active.number == refused or active.sha256 == desk.backend.facts.sha256:
                    continue
                refused = active.number
                await to_thread(require_unchanged, active)
                state.desk = await to_thread(_succeeded, desk, active.path, open_backend)
            except (LlmftError, OSError) as error:
                _log.error("the model stays as it is: %s", error)
                continue
            leaving.create_task(_leave(desk.backend))


def _succeeded(desk: Desk, path: Path, open_backend: Open) -> Desk:
    settings = replace(desk.settings, model=path)
    backend = open_backend(settings)
    desk.meters.model.clear()
    desk.meters.model.labels(backend.facts.name, backend.facts.sha256, backend.facts.kind).set(1)
    return replace(desk, settings=settings, backend=backend)


async def _leave(backend: Backend) -> None:
    """Close an earlier model once its last answer is written; at the end of the service at once."""
    quiet_s = 0.0
    try:
        while quiet_s < LEAVE_S:
            await asyncio.sleep(min(LOOK_S, LEAVE_S))
            quiet_s = 0.0 if backend.waiting or backend.running else quiet_s + min(LOOK_S, LEAVE_S)
    finally:
        await backend.close()

"""A running service for tests: a tiny model, a real socket, a folder of its own."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import tiny_engine
import uvicorn

from llmft.serve.app import new_app, open_desk
from llmft.serve.desk import Desk
from llmft.serve.running import server_config
from llmft.serve.settings import ServeSettings

CHEST = "J'ai une barre dans la poitrine qui serre depuis une heure."
SAID = tiny_engine.CALLS[1][1]  # a call that the tiny model knows by heart: U3, dermatologie


@dataclass(frozen=True)
class Service:
    """A service, and a client of it."""

    url: str
    desk: Desk
    http: httpx.Client

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return self.http.post(path, json=body, headers=headers)

    def call(self, *said: tuple[str, str], lang: str = "fr") -> str:
        """A new call with these turns; its id."""
        call_id = self.post("/v1/calls", {"lang": lang}).json()["id"]
        for speaker, text in said:
            self.say(call_id, speaker, text)
        return str(call_id)

    def say(self, call_id: str, speaker: str, text: str) -> dict[str, Any]:
        answer = self.post(f"/v1/calls/{call_id}/turns", {"speaker": speaker, "text": text, "key": new_key()})
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def triage(self, call_id: str) -> dict[str, Any]:
        answer = self.post(f"/v1/calls/{call_id}/triage", {})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


def new_key() -> str:
    return str(uuid4())


def settings(folder: Path, **changes: Any) -> ServeSettings:
    given = {"context_tokens": 512, "max_new_tokens": 200, "slots": 4, "threads": 1, "system": tiny_engine.SYSTEM}
    given |= {"folder": folder, "port": 0, "requests_per_minute": 100_000, **changes}
    if "backend_url" not in given:
        given.setdefault("model", tiny_engine.gguf("llama3"))
    return ServeSettings(**given)


@contextmanager
def running(chosen: ServeSettings, verify: Any = True) -> Iterator[Service]:
    """Serve until the block ends."""
    desk = open_desk(chosen)
    server = uvicorn.Server(server_config(chosen, new_app(desk)))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"{'https' if chosen.has_tls else 'http'}://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=120, trust_env=False, verify=verify) as client:
            yield Service(url, desk, client)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def events(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    """Server-sent events as they come."""
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])

"""Another model is taken into service while the desk runs. Run: pytest tests/test_serve_succession.py"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_engine
from tiny_desk import SAID, Service, running, settings

from llmft.run import sha256
from llmft.serve import succession
from llmft.serve.store.checking import verify
from llmft.serve.store.database import open_store
from llmft.serve.store.journal import recent_records
from llmft.serve.store.models import roll_back, use_model

ASKED = {"model": "default", "messages": [{"role": "user", "content": SAID}], "max_tokens": 8}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(succession, "LOOK_S", 0.02)
    monkeypatch.setattr(succession, "LEAVE_S", 0.04)


def copy_of(model: Path, place: Path) -> Path:
    """The same model in another file: llama.cpp reads nothing behind the last tensor."""
    place.write_bytes(model.read_bytes() + bytes(32))
    return place


def wait_for(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


def in_service(service: Service) -> str:
    return str(service.http.get("/readyz").json()["model"])


def test_answers_are_of_the_model_that_they_were_begun_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tiny_engine.gguf("llama3")
    second = copy_of(first, tmp_path / "second.gguf")
    store = open_store(None, tmp_path / "desk")
    use_model(store, first, "test", despite_gate=True)
    with running(settings(tmp_path / "desk", model=first, follows=True)) as service:
        old, held = service.desk.backend, threading.Event()
        step = old._model.step
        monkeypatch.setattr(old._model, "step", lambda: held.wait(60) and step())
        answers: list[str] = []
        asking = threading.Thread(
            target=lambda: answers.append(service.post("/v1/chat/completions", ASKED).json()["llmft"]["model"])
        )
        asking.start()
        wait_for(lambda: old.running == 1)
        use_model(store, second, "test", despite_gate=True)
        wait_for(lambda: in_service(service) == sha256(second))
        answer = service.post("/v1/chat/completions", ASKED).json()
        assert (answer["llmft"]["model"], answer["model"]) == (sha256(second), "second")
        assert answers == [] and old._thread.is_alive()
        held.set()
        asking.join(60)
        assert answers == [sha256(first)]
        wait_for(lambda: not old._thread.is_alive())
        roll_back(store, "test")
        wait_for(lambda: in_service(service) == sha256(first))
        assert f'sha256="{sha256(first)}"' in (meters := service.http.get("/metrics").text) and sha256(second) not in meters
    journaled = [record.facts["versions"]["model"] for record in recent_records(store, "answer")]
    assert journaled == [sha256(first), sha256(second)]  # the newest first: the held answer was whole last
    assert verify(store).faults == []
    store.close()


def test_a_file_that_is_gone_leaves_the_model_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = tiny_engine.gguf("llama3")
    gone = copy_of(first, tmp_path / "gone.gguf")
    store = open_store(None, tmp_path / "desk")
    use_model(store, gone, "test", despite_gate=True)
    gone.unlink()
    with (
        caplog.at_level(logging.ERROR, "llmft.serve"),
        running(settings(tmp_path / "desk", model=first, follows=True)) as service,
    ):
        wait_for(lambda: "gone.gguf is gone or was changed" in caplog.text)
        time.sleep(0.1)
        assert caplog.text.count("the model stays as it is") == 1 and in_service(service) == sha256(first)
        use_model(store, copy_of(first, tmp_path / "second.gguf"), "test", despite_gate=True)
        wait_for(lambda: in_service(service) == sha256(tmp_path / "second.gguf"))
    store.close()

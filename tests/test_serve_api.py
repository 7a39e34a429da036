"""The service's paths: calls, triage, events, roster, feedback, tools. Run: pytest tests/test_serve_api.py"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import threading
from datetime import UTC, datetime, timedelta

import pytest
import tiny_engine
from tiny_desk import CHEST, SAID, Service, events, new_key, running, settings

from llmft.engine.llama_model import load_gguf
from llmft.errors import LlmftError
from llmft.serve.running import serve
from llmft.serve.store.answers import read_answer
from llmft.serve.store.checking import verify
from llmft.serve.triage.masking import masked_turn
from llmft.vocabulary import icd10_labels, specialties, urgencies


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running(settings(tmp_path_factory.mktemp("desk"))) as service:
        yield service


def test_health_and_session(service: Service) -> None:
    assert service.http.get("/healthz").json() == {"status": "ok"}
    assert service.http.get("/readyz").json()["model"] == service.desk.backend.facts.sha256
    session = service.http.get("/v1/session").json()
    assert (session["name"], session["role"], session["keyless"], session["csrf"]) == ("local", "supervisor", True, None)
    assert session["model"] == {"name": "llama3", "sha256": service.desk.backend.facts.sha256, "backend": "llama.cpp"}


def test_a_turn_is_masked_and_read_by_the_rules_at_once(service: Service) -> None:
    call_id = service.call()
    said = service.say(call_id, "patient", f"Bonjour, Marie Dupont. {CHEST}")
    assert said["turn"]["text"] == f"Bonjour, [PRENOM_1] [NOM_1]. {CHEST}"
    assert [(mask["start"], mask["end"], mask["placeholder"]) for mask in said["masks"]] == [
        (9, 14, "[PRENOM_1]"),
        (15, 21, "[NOM_1]"),
    ]
    assert [flag["id"] for flag in said["new_flags"]] == ["chest_pressure"]
    flag = said["new_flags"][0]
    assert flag["rule"] == "red_flag:chest_pressure" and flag["source"].startswith("red_flags.yaml 20")
    start, end = flag["span"]
    assert said["turn"]["text"][start:end] == flag["quote"] == "barre dans la poitrine"
    assert said["floor"] == "U1" and said["banner"]["number"] == "15"
    assert said["questions"] and all(question["text"].endswith("?") for question in said["questions"])
    again = service.say(call_id, "operator", "Depuis quand ?")
    assert again["new_flags"] == [] and [flag["id"] for flag in again["flags"]] == ["chest_pressure"]


def test_a_name_keeps_its_number_over_turns(service: Service) -> None:
    call_id = service.call(("patient", "Je suis Marie Dupont."), ("operator", "Bonjour madame Dupont, que se passe-t-il ?"))
    turns = service.http.get(f"/v1/calls/{call_id}").json()["turns"]
    assert "Dupont" not in json.dumps(turns) and turns[1]["text"].startswith("Bonjour madame [NOM_1],")


def test_what_is_sent_again_stands_once(service: Service) -> None:
    call_id = service.call(("patient", "Je suis Paul Martin."))
    body = {"speaker": "patient", "text": "C'est Paul Martin, 06 12 34 56 78.", "key": new_key()}
    first, second = (service.post(f"/v1/calls/{call_id}/turns", body).json() for _ in range(2))
    assert first["turn"] == second["turn"] and first["masks"] == second["masks"]
    assert len(service.http.get(f"/v1/calls/{call_id}").json()["turns"]) == 2
    clash = service.post(f"/v1/calls/{call_id}/turns", body | {"text": "Autre chose."})
    assert (clash.status_code, clash.json()["error"]["code"]) == (409, "conflict")


def test_a_triage_is_the_models_answer_in_words(service: Service) -> None:
    made = service.triage(service.call(("patient", SAID)))
    model = load_gguf(tiny_engine.gguf("llama3"), threads=1)
    greedy = next(iter(model.answers(tiny_engine.prompts()[1:2], 200)))[1].text
    model.close()
    assert made["model_said"]["valid"] and '"urgency": "U3"' in greedy
    assert made["urgency"] == {"id": "U3", "rank": 3, "label": urgencies()["U3"].fr}
    assert made["specialty"] == {"id": "dermatologie", "label": specialties()["dermatologie"].fr}
    assert made["icd10"] == [{"code": "D22.9", "label": icd10_labels()["D22.9"].fr}]
    assert made["sentence"] == greedy.partition("```")[0].strip() == "Un rendez-vous sera proposé."
    assert (made["decided_by"], made["abstained"], made["banner"]) == ("model", False, None)
    assert 0.5 < made["confidence"] <= 1
    assert made["versions"]["model"] == service.desk.backend.facts.sha256


def test_rules_raise_what_the_model_says(service: Service) -> None:
    made = service.triage(service.call(("patient", SAID), ("operator", "Autre chose ?"), ("patient", CHEST)))
    assert (made["urgency"]["id"], made["escalate"]) == ("U1", True)
    assert made["red_flags"][0]["id"] == "chest_pressure" and made["red_flags"][0]["turn"] == 2
    if made["model_said"]["urgency"] != "U1":
        assert made["decided_by"] == "rules" and made["specialty"]["id"] == "cardiologie"
        assert "15" in made["sentence"]


def test_a_reload_loses_nothing(service: Service) -> None:
    call_id = service.call(("patient", SAID))
    made = service.triage(call_id)
    call = service.http.get(f"/v1/calls/{call_id}").json()
    seconds = {field: pytest.approx(made[field], abs=2e-3) for field in ("waited_s", "generated_s")}  # kept in 0.1 ms
    assert call["triage"] == made | seconds | {"questions": call["triage"]["questions"]}
    assert call["triage_is_old"] is False
    service.say(call_id, "operator", "Où est la tache ?")
    assert service.http.get(f"/v1/calls/{call_id}").json()["triage_is_old"] is True
    assert call_id in [line["id"] for line in service.http.get("/v1/calls?status=open").json()["calls"]]


def test_an_answer_is_stored_and_journaled(service: Service) -> None:
    made = service.triage(service.call(("patient", SAID)))
    stored = read_answer(service.desk.store, made["id"])
    assert stored.given.triage["urgency"] == "U3" and stored.given.valid is True
    assert stored.given.versions.model == made["versions"]["model"]
    assert stored.given.versions.prompt == made["versions"]["prompt"]
    assert verify(service.desk.store).faults == []


def test_a_triage_as_events(service: Service) -> None:
    call_id = service.call(("patient", SAID))
    headers = {"Accept": "text/event-stream"}
    with service.http.stream("POST", f"/v1/calls/{call_id}/triage", headers=headers) as response:
        heard = list(events(response))
    assert heard[0] == ("queue", {"position": 0}) and heard[-1][0] == "triage"
    assert "".join(data["text"] for name, data in heard if name == "sentence").strip() == heard[-1][1]["sentence"]


def test_those_who_wait_are_told_their_place(tmp_path, monkeypatch) -> None:
    with running(settings(tmp_path, slots=1)) as service:
        gate, model = threading.Event(), service.desk.backend._model
        step = model.step
        monkeypatch.setattr(model, "step", lambda: gate.wait(60) and step())
        told: list[list[int]] = [[], [], []]

        def ask(path: str, places: list[int]) -> None:
            with service.http.stream("POST", path, json={}, headers={"Accept": "text/event-stream"}) as answer:
                places += (data["position"] for name, data in events(answer) if name == "queue")

        asking = [threading.Thread(target=ask, args=(f"/v1/calls/{service.call(('patient', SAID))}/triage", to)) for to in told]
        for number, thread in enumerate(asking, start=1):
            thread.start()
            while service.desk.backend.running + service.desk.backend.waiting < number:
                assert thread.is_alive()
        gate.set()
        for thread in asking:
            thread.join(60)
    assert told == [[0], [1, 0], [2, 1, 0]]


def test_whoever_listens_hears_turn_and_triage(service: Service) -> None:
    call_id = service.call()
    heard: list[tuple[str, object]] = []
    listening, done = threading.Event(), threading.Event()

    def listen() -> None:
        with service.http.stream("GET", f"/v1/calls/{call_id}/events") as response:
            for name, data in events(response):
                heard.append((name, data))
                listening.set()
                if name == "triage":
                    done.set()
                if name == "closed":
                    return

    thread = threading.Thread(target=listen)
    thread.start()
    assert listening.wait(30)
    said = service.say(call_id, "patient", SAID)
    assert done.wait(60)
    service.post(f"/v1/calls/{call_id}/close", {"status": "done"})
    thread.join(30)
    names = [name for name, _ in heard]
    assert names[0] == "state" and names[1] == "turn" and names[-1] == "closed"
    assert heard[1][1] == said
    refused = service.post(f"/v1/calls/{call_id}/turns", {"speaker": "patient", "text": "Encore.", "key": new_key()})
    assert refused.status_code == 409


def test_a_turn_sent_again_is_the_same_turn_however_it_is_masked_by_now(service: Service) -> None:
    call_id = service.call(("patient", "Je suis Marie Dupont."))
    body = {"speaker": "patient", "text": "Dupont, oui.", "key": new_key()}
    first = service.post(f"/v1/calls/{call_id}/turns", body).json()["turn"]
    service.desk.heard.forget(call_id)  # as in a process that was started again
    assert masked_turn(["Je suis [PRENOM_1] [NOM_1]."], body["text"], "fr").texts[-1] != first["text"]
    again = service.post(f"/v1/calls/{call_id}/turns", body)
    assert (again.status_code, again.json()["turn"]) == (201, first)
    other = service.post(f"/v1/calls/{call_id}/turns", body | {"text": "Durand, oui."})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "conflict")


def test_a_transcript_is_added_at_once(service: Service) -> None:
    call_id = service.call()
    turns = [{"speaker": "patient", "text": "Ici Jean Durand, une tache."}, {"speaker": "operator", "text": "Depuis quand ?"}]
    imported = service.post(f"/v1/calls/{call_id}/transcript", {"turns": turns}).json()
    assert [turn["speaker"] for turn in imported["call"]["turns"]] == ["patient", "operator"]
    assert "Durand" not in json.dumps(imported["call"]) and imported["masks"][1] == []


def test_a_dialogue_is_triaged_without_being_stored(service: Service) -> None:
    before = len(service.http.get("/v1/calls?limit=200").json()["calls"])
    body = {"lang": "en", "turns": [{"speaker": "patient", "text": "I am John Smith, I can't breathe and my lips are blue."}]}
    made = service.post("/v1/triage", body).json()
    assert made["urgency"]["id"] == "U1" and made["banner"]["number"] == "112" and made["call"] is None
    assert "Smith" not in json.dumps(made)
    assert len(service.http.get("/v1/calls?limit=200").json()["calls"]) == before
    silent = service.post("/v1/triage", {"turns": [{"speaker": "operator", "text": "Allô ?"}]})
    assert (silent.status_code, silent.json()["error"]["code"]) == (422, "no_patient_turn")


def test_roster_slots_and_bookings(service: Service) -> None:
    day = (datetime.now(UTC) + timedelta(days=2)).strftime("%Y-%m-%d")
    rows = "doctor_id,name,specialties,languages,site,start,end,status\n"
    rows += f"d1,Dr A,dermatologie,fr|en,Lyon,{day}T09:00:00Z,{day}T09:20:00Z,free\n"
    read = service.http.post("/v1/roster/import", content=rows, headers={"Content-Type": "text/csv"})
    assert read.status_code == 200, read.text
    assert (read.json()["doctors"], read.json()["slots"]) == (1, 1)
    doctors = service.http.get("/v1/roster/doctors?specialty=dermatologie&place=lyon").json()["doctors"]
    assert [doctor["name"] for doctor in doctors] == ["Dr A"]
    slot = service.http.get("/v1/roster/slots?specialty=dermatologie&language=en").json()["slots"][0]
    call_id = service.call(("patient", SAID))
    made = service.triage(call_id)
    assert [shown["id"] for shown in made["slots"]] == [slot["id"]] and made["versions"]["roster"] == read.json()["version"]
    key = new_key()
    booking = service.post("/v1/roster/bookings", {"slot_id": slot["id"], "call_id": call_id, "key": key})
    again = service.post("/v1/roster/bookings", {"slot_id": slot["id"], "call_id": call_id, "key": key})
    assert booking.status_code == 201 and again.json() == booking.json()
    taken = service.post("/v1/roster/bookings", {"slot_id": slot["id"], "key": new_key()})
    assert (taken.status_code, taken.json()["error"]["code"]) == (409, "conflict")
    assert service.http.get("/v1/roster/slots?specialty=dermatologie").json()["slots"] == []
    released = service.post(f"/v1/roster/bookings/{booking.json()['id']}/release", {}).json()
    assert released["released"] is not None
    assert len(service.http.get("/v1/roster/slots?specialty=dermatologie").json()["slots"]) == 1


def test_feedback_and_what_a_supervisor_sees(service: Service) -> None:
    made = service.triage(service.call(("patient", SAID)))
    body = {"answer_id": made["id"], "action": "edited", "reason": "Vu par Marie Dupont", "key": new_key()}
    kept = service.post("/v1/feedback", body | {"correction": {"urgency": "U2", "icd10": ["L30.9"]}})
    assert kept.status_code == 201, kept.text
    bare = service.post("/v1/feedback", body | {"key": new_key()})
    assert (bare.status_code, bare.json()["error"]["param"]) == (422, "correction")
    found = service.http.get("/v1/supervisor/disagreements").json()["disagreements"][0]
    assert found["said"]["urgency"] == "U3" and found["corrected"]["urgency"] == "U2" and found["under_triage"] is True
    assert "Dupont" not in json.dumps(found)
    seen = service.http.get("/v1/supervisor/summary?days=7").json()
    assert seen["overrides"] == {"edited": 1} and seen["rates"]["under_triage"] == 1.0
    assert seen["volumes"][-1]["answers"] >= 1 and seen["latency"]["p50_s"] > 0
    review = {"answer_id": made["id"], "urgency": "U1", "key": new_key()}
    assert service.post("/v1/supervisor/reviews", review).json()["under_triage"] is True


def test_tools(service: Service) -> None:
    masked = service.post("/v1/deidentify", {"texts": ["Je suis Marie Dupont", "06 12 34 56 78"], "lang": "fr"}).json()
    assert masked["texts"] == ["Je suis [PRENOM_1] [NOM_1]", "[TEL_1]"]
    words = service.http.get("/v1/vocabulary").json()
    assert list(words["specialties"]) == list(specialties()) and words["icd10"]["R07.4"]["fr"] == icd10_labels()["R07.4"].fr


def test_faults_have_one_form_and_no_words(service: Service) -> None:
    long = service.post("/v1/calls/call-x/turns", {"speaker": "patient", "text": "secret " * 4000, "key": new_key()})
    assert (long.status_code, long.json()["error"]["code"], long.json()["error"]["param"]) == (422, "too_long", "text")
    wrong = service.post("/v1/triage", {"turns": [{"speaker": "secret", "text": "x", "secret key": 1}]})
    assert wrong.status_code == 422 and "secret" not in wrong.text
    for path, status, code in (("/v1/calls/nope", 404, "not_found"), ("/nowhere", 404, "not_found")):
        answer = service.http.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert service.http.delete("/v1/calls").status_code == 405


class Ready(io.StringIO):
    """An output that ends the service once it is told that it is ready."""

    def write(self, text: str) -> int:
        if "ready after" in text:
            os.kill(os.getpid(), signal.SIGINT)
        return super().write(text)


def test_it_says_when_it_is_ready_and_stops_on_a_signal(tmp_path, monkeypatch) -> None:
    output = Ready()
    monkeypatch.setattr("sys.stdout", output)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            serve(settings(tmp_path))
    finally:
        signal.signal(signal.SIGINT, before)
    said = re.match(r"llmft serves llama3 at http://127\.0\.0\.1:0/ \(ready after (\d+\.\d) s\)\nNo keys: ", output.getvalue())
    assert said and float(said[1]) < 60


def test_a_port_that_is_taken_is_named_and_nothing_is_said_to_be_ready(tmp_path, capsys) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(LlmftError, match=f"127.0.0.1:{port} cannot be listened on"):
            serve(settings(tmp_path, port=port))
    assert "ready" not in capsys.readouterr().out

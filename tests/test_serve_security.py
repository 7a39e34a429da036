"""Keys, sessions, origins, limits, headers, logs. Run: pytest tests/test_serve_security.py"""

from __future__ import annotations

import json
import logging
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
from tiny_desk import Service, new_key, running, settings

from llmft.errors import LlmftError
from llmft.serve.app import open_desk
from llmft.serve.security.guard import _where
from llmft.serve.security.rates import Rates
from llmft.serve.settings import ServeSettings
from llmft.serve.store.database import open_store
from llmft.serve.store.keys import add_key, list_keys, revoke_key

DEAD = "http://127.0.0.1:9/v1"  # a back end that nobody needs here


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A service with two operators and a supervisor: service, name ─▶ key."""
    folder = tmp_path_factory.mktemp("desk")
    store = open_store(None, folder)
    roles = {"anna": "operator", "bela": "operator", "clio": "supervisor"}
    keys = {name: add_key(store, role, name) for name, role in roles.items()}
    store.close()
    with running(settings(folder, backend_url=DEAD, max_body_bytes=100_000)) as service:
        yield service, keys


@pytest.fixture(scope="module")
def keyless(tmp_path_factory):
    with running(settings(tmp_path_factory.mktemp("keyless"), backend_url=DEAD)) as service:
        yield service


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_every_path_but_health_asks_for_a_key(desk) -> None:
    service, _ = desk
    document = service.http.get("/openapi.json").json()
    asked = [
        (method, path.replace("{call_id}", "x").replace("{booking_id}", "x").replace("{name}", "x"))
        for path, methods in sorted(document["paths"].items())
        for method in methods
        if not path.endswith("z") and path != "/metrics" and (method, path) != ("post", "/v1/session")
    ]
    assert len(asked) > 20
    for method, path in asked:
        assert code(service.http.request(method.upper(), path, json={})) in ((401, "no_key"), (422, "invalid")), (method, path)
    for path in ("/healthz", "/readyz", "/metrics"):
        assert service.http.get(path).status_code != 401


def test_a_body_is_not_looked_at_before_the_key(desk) -> None:
    service, keys = desk
    assert code(service.post("/v1/calls", {"lang": "fr"})) == (401, "no_key")
    assert code(service.post("/v1/calls", {"lang": "fr"}, **bearer("llmft-000000000000-" + "x" * 43))) == (401, "wrong_key")
    assert service.post("/v1/calls", {"lang": "fr"}, **bearer(keys["anna"])).status_code == 201


def test_calls_do_not_cross(desk) -> None:
    service, keys = desk
    call_id = service.post("/v1/calls", {"lang": "fr"}, **bearer(keys["anna"])).json()["id"]
    turn = {"speaker": "patient", "text": "Une tache brune.", "key": new_key()}
    assert service.post(f"/v1/calls/{call_id}/turns", turn, **bearer(keys["anna"])).status_code == 201
    other = bearer(keys["bela"])
    assert code(service.http.get(f"/v1/calls/{call_id}", headers=other)) == (404, "not_found")
    assert code(service.http.get(f"/v1/calls/{call_id}/events", headers=other)) == (404, "not_found")
    for path, body in (("turns", turn), ("transcript", {"turns": [turn | {"key": None}]}), ("triage", {}), ("close", {})):
        body = (
            {name: value for name, value in body.items() if value is not None}
            if path != "transcript"
            else {"turns": [{"speaker": "patient", "text": "x"}]}
        )
        assert code(service.post(f"/v1/calls/{call_id}/{path}", body, **other)) == (404, "not_found")
    booking = {"slot_id": "s", "call_id": call_id, "key": new_key()}
    assert code(service.post("/v1/roster/bookings", booking, **other)) == (404, "not_found")
    assert service.http.get("/v1/calls", headers=other).json()["calls"] == []
    assert service.http.get(f"/v1/calls/{call_id}", headers=bearer(keys["clio"])).status_code == 200


def test_supervision_is_for_supervisors(desk) -> None:
    service, keys = desk
    for path in ("/v1/supervisor/summary", "/v1/supervisor/disagreements"):
        assert code(service.http.get(path, headers=bearer(keys["anna"]))) == (403, "role")
        assert service.http.get(path, headers=bearer(keys["clio"])).status_code == 200
    csv = {"Content-Type": "text/csv", **bearer(keys["anna"])}
    assert code(service.http.post("/v1/roster/import", content="x", headers=csv)) == (403, "role")


def test_a_session_needs_its_token_and_its_own_page(desk) -> None:
    service, keys = desk
    with httpx.Client(base_url=service.url, trust_env=False) as browser:
        assert (
            code(browser.post("/v1/session", json={"key": keys["anna"]}, headers={"Origin": "https://a.example"}))[1] == "origin"
        )
        entered = browser.post("/v1/session", json={"key": keys["anna"]})
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie and keys["anna"] not in cookie
        csrf = entered.json()["csrf"]
        assert browser.get("/v1/session").json()["csrf"] == csrf
        assert code(browser.post("/v1/calls", json={})) == (403, "csrf")
        assert code(browser.post("/v1/calls", json={}, headers={"X-CSRF-Token": "x" * 64})) == (403, "csrf")
        own = {"X-CSRF-Token": csrf, "Origin": service.url}
        assert browser.post("/v1/calls", json={}, headers=own).status_code == 201
        for foreign in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
            assert code(browser.post("/v1/calls", json={}, headers=own | foreign)) == (403, "origin")
        assert browser.delete("/v1/session", headers=own).status_code == 204
        browser.cookies.clear()
        assert code(browser.get("/v1/session", headers={"Cookie": cookie.partition(";")[0]})) == (401, "no_key")


def test_a_revoked_key_ends_at_once(desk) -> None:
    service, _ = desk
    key = add_key(service.desk.store, "operator", "dora")
    entered = service.http.post("/v1/session", json={"key": key})
    service.http.cookies.clear()
    cookie = {"Cookie": entered.headers["set-cookie"].partition(";")[0]}
    assert service.http.get("/v1/session", headers=cookie).status_code == 200
    row = next(row for row in list_keys(service.desk.store) if row.name == "dora")
    revoke_key(service.desk.store, row.id)
    assert code(service.http.get("/v1/session", headers=cookie)) == (401, "no_key")
    assert code(service.http.get("/v1/session", headers=bearer(key))) == (401, "wrong_key")


def test_a_key_that_another_process_revoked_ends_with_the_next_request(desk) -> None:
    service, _ = desk
    key = add_key(service.desk.store, "operator", "ezra")
    assert service.http.get("/v1/session", headers=bearer(key)).json()["name"] == "ezra"
    beside = open_store(None, service.desk.store.folder)  # as `llmft keys revoke` opens it
    revoke_key(beside, key.split("-")[1])
    beside.close()
    assert code(service.http.get("/v1/session", headers=bearer(key))) == (401, "wrong_key")


def test_without_keys_only_this_machines_own_pages_may_ask(keyless: Service) -> None:
    assert keyless.http.get("/v1/session").json()["keyless"] is True
    forwarded = {"X-Forwarded-For": "203.0.113.9"}  # by a proxy on this machine
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"}, forwarded):
        assert code(keyless.post("/v1/calls", {}, **headers)) == (403, "origin")
    assert code(keyless.http.post("/v1/calls", content="{}", headers={"Content-Type": "text/plain"}))[0] == 422


def test_without_keys_no_other_machine_is_answered(tmp_path: Path) -> None:
    with pytest.raises(LlmftError, match="llmft keys add"):
        open_desk(settings(tmp_path, backend_url=DEAD, host="0.0.0.0"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "a GGUF file or --backend"),
        ({"model": Path("m.gguf"), "backend_url": DEAD}, "either"),
        ({"model": Path("m.gguf"), "tls_cert": Path("c.pem")}, "both files"),
        ({"backend_url": "127.0.0.1:8080"}, "http://"),
    ],
)
def test_settings_that_contradict_themselves(changes, said) -> None:
    with pytest.raises(LlmftError, match=said):
        ServeSettings(**changes)


def test_headers_of_every_answer(desk) -> None:
    service, _ = desk
    for path in ("/healthz", "/openapi.json", "/nowhere", "/v1/calls"):
        headers = service.http.get(path, headers={"Origin": "https://evil.example"}).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in headers["content-security-policy"] and "http" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
        assert not [name for name in headers if name.startswith("access-control")] and "server" not in headers
    preflight = service.http.options(
        "/v1/calls", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    )
    assert preflight.status_code == 405 and "access-control-allow-origin" not in preflight.headers


def test_large_bodies_are_refused_announced_or_not(desk) -> None:
    service, keys = desk
    head = {"Content-Type": "application/json", **bearer(keys["anna"])}
    assert code(service.http.post("/v1/triage", content=b"x" * 100_001, headers=head)) == (413, "body_too_large")
    chunks = (b"x" * 10_000 for _ in range(11))
    assert code(service.http.post("/v1/triage", content=chunks, headers=head)) == (413, "body_too_large")


def test_rates() -> None:
    rates = Rates(60)
    assert [rates.wait_s("a", 0.0) for _ in range(61)] == [0] * 60 + [1]
    assert rates.wait_s("b", 0.0) == 0
    assert [rates.wait_s("a", 2.0) for _ in range(3)] == [0, 0, 1]


def test_too_many_requests_are_told_when_to_come_back(tmp_path: Path) -> None:
    with running(settings(tmp_path, backend_url=DEAD, requests_per_minute=5)) as service:
        answers = [service.http.get("/v1/session") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert code(answers[-1]) == (429, "rate_limit") and int(answers[-1].headers["retry-after"]) >= 1


def test_guessing_keys_is_slowed(desk) -> None:
    service, _ = desk
    codes = [code(service.http.get("/v1/session", headers=bearer(f"llmft-{n:012x}-{'x' * 43}"))) for n in range(40)]
    assert (401, "wrong_key") in codes and codes[-1] == (429, "rate_limit")


def test_no_words_reach_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch, capfd) -> None:
    said = "Je suis Zébulon Quiquampoix et j'ai une barre dans la poitrine"

    def broken(*_: object) -> None:
        raise RuntimeError(f"what was said: {said}")

    with caplog.at_level(logging.DEBUG), running(settings(tmp_path, backend_url=DEAD)) as service:
        call_id = service.call(("patient", said))
        service.triage(call_id)
        service.post("/v1/calls", {"lang": said})
        service.http.get("/v1/roster/doctors", params={"place": "Zébulon"})
        monkeypatch.setattr("llmft.serve.api.tools.deidentify", broken)
        failed = service.post("/v1/deidentify", {"texts": [said]})
    assert code(failed) == (500, "internal") and "Zébulon" not in failed.text
    logged = caplog.text + "".join(capfd.readouterr())
    assert "RuntimeError at" in logged
    for word in ("Zébulon", "Quiquampoix", "poitrine"):
        assert word not in logged
    assert subprocess.run(["grep", "-rlaE", "Quiquampoix|Zébulon", str(tmp_path)], capture_output=True).stdout == b""


def test_a_fault_is_named_by_its_place() -> None:
    try:
        json.loads("{")
    except ValueError as error:
        assert _where(error).startswith("JSONDecodeError at ")


def test_tls_by_files(tmp_path: Path) -> None:
    cert, key = tmp_path / "c.pem", tmp_path / "k.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    made += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-out", str(cert), "-keyout", str(key)]
    subprocess.run(made, check=True, capture_output=True)
    folder = tmp_path / "desk"
    store = open_store(None, folder)
    own = add_key(store, "operator", "anna")
    store.close()
    chosen = settings(folder, backend_url=DEAD, tls_cert=cert, tls_key=key)
    with running(chosen, ssl.create_default_context(cafile=cert)) as service:
        entered = service.http.post("/v1/session", json={"key": own})
    assert "; Secure" in entered.headers["set-cookie"]
    assert entered.headers["strict-transport-security"].startswith("max-age=")

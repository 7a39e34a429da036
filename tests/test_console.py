"""Whole calls at the console, in a real browser. Run: pytest tests/test_console.py"""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta

import pytest
from console_page import Desk, a_desk, chromium
from playwright.sync_api import expect
from tiny_desk import CHEST, SAID, running, settings

from llmft.serve.store.feedback import feedback_between

DECIDED = {
    "model": "décidé par le modèle",
    "rules": "décidé par les règles",
    "abstained": "ni le modèle ni les règles ne tranchent",
}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running(settings(tmp_path_factory.mktemp("desk"))) as service:
        service.http.post("/v1/roster/import", content=_roster(), headers={"Content-Type": "text/csv"}).raise_for_status()
        yield service


def _roster() -> str:
    begin = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=5)
    rows = [
        f"d-{n};Dr;{first};{name};Dermatologie et vénéréologie;Cabinet des Tilleuls;cabinet;français;;;"
        f"{(begin + timedelta(hours=n)).isoformat()};{(begin + timedelta(hours=n, minutes=20)).isoformat()};libre"
        for n, (first, name) in enumerate((("Ana", "Premier"), ("Luc", "Second")))
    ]
    head = "Identifiant;Civilité;Prénom;Nom;Spécialité;Site;Modes;Langues;Âge min;Âge max;Début;Fin;Statut"
    return "\n".join([head, *rows])


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def desk(browser, service):
    with a_desk(browser, service) as desk:
        yield desk


def judged(desk: Desk) -> list[tuple[str, str | None, str | None]]:
    """Action, reason and corrected urgency of what was said of the call's triage."""
    answer = desk.stored()["triage"]["id"]
    found = [one.given for one in feedback_between(desk.service.desk.store, "") if one.given.answer_id == answer]
    return [(one.action, one.reason, one.correction.urgency if one.correction else None) for one in found]


def test_a_whole_call_in_french(desk: Desk) -> None:
    page = desk.page
    desk.start("fr")
    desk.say(f"Bonjour, Marie Dupont. {SAID}")
    assert desk.stored()["turns"][0]["text"] == f"Bonjour, [PRENOM_1] [NOM_1]. {SAID}"
    expect(page.locator(".by-patient .said")).to_have_text(f"Bonjour, Marie Dupont. {SAID}")
    assert page.locator(".masked").all_text_contents() == ["Marie", "Dupont"]
    page.locator("#as-stored").click()
    expect(page.locator(".by-patient .said")).to_have_text(f"Bonjour, [PRENOM_1] [NOM_1]. {SAID}")
    page.locator("#as-stored").click()
    question = page.locator(".question .ask").first.text_content()
    page.keyboard.press("Alt+1")
    expect(page.locator("#words")).to_have_value(question)
    desk.say(question)
    desk.say(SAID)
    desk.triaged()
    made = desk.stored()["triage"]
    expect(page.locator(".urgency")).to_have_attribute("data-urgency", made["urgency"]["id"])
    expect(page.locator(".decided")).to_contain_text(DECIDED[made["decided_by"]])
    expect(page.locator("#card")).to_contain_text(made["specialty"]["label"])
    expect(page.locator("#notice")).to_have_text("Aide à la décision, pas un dispositif médical.")
    page.keyboard.press("Alt+A")
    expect(page.locator(".given")).to_have_text(re.compile("Accepté"))
    assert judged(desk) == [("accepted", None, None)]
    page.keyboard.press("Alt+L")
    page.keyboard.press("Enter")
    expect(page.locator("#heard")).to_have_text("Appel terminé")
    expect(page.locator("#words")).to_be_disabled()
    assert desk.stored()["status"] == "done"


def test_a_whole_call_in_english(browser, service) -> None:
    with a_desk(browser, service, locale="en-GB") as desk:
        page = desk.page
        desk.start("en")
        desk.say("My name is John Smith and I have had a rash since Monday.")
        desk.say("How old are you?")
        desk.say("I'm 34.")
        desk.triaged()
        turns = desk.stored()["turns"]
        assert [turn["speaker"] for turn in turns] == ["patient", "operator", "patient"]
        assert "Smith" not in json.dumps(turns) and desk.stored()["lang"] == "en"
        expect(page.locator("#notice")).to_have_text("Decision support, not a medical device.")
        page.keyboard.press("Alt+R")
        page.locator("#dialog button.primary").click()
        assert judged(desk) == []  # a rejection needs a reason
        page.locator("#field-reason").select_option("missed_sign")
        page.locator("#field-comment").fill("Mrs Emma Jones said she could not breathe.")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator(".given")).to_have_text(re.compile("Rejected"))
        ((action, reason, _),) = judged(desk)
        assert action == "rejected" and reason.startswith("missed_sign: ") and "Jones" not in reason


def test_an_emergency(desk: Desk) -> None:
    page = desk.page
    desk.start()
    desk.say(f"😟 Je suis Paul Martin. {CHEST}")
    alert = page.locator("#banner-place")
    expect(alert).to_have_attribute("role", "alert")
    expect(alert.locator(".number")).to_have_text("15")
    expect(alert).to_contain_text("112")
    expect(page.locator(".urgency")).to_have_attribute("data-urgency", "U1")
    expect(page.locator(".urgency strong")).to_have_text("Urgence vitale")
    expect(page.locator("mark.evidence")).to_have_text(re.compile("^barre dans la poitrine"))
    desk.triaged()
    expect(page.locator(".urgency")).to_have_attribute("data-urgency", "U1")
    expect(page.locator("#slots")).to_be_empty()  # no appointment may delay an emergency
    page.locator("#banner-place button").click()
    expect(page.locator("input[value=escalated]")).to_be_checked()
    page.keyboard.press("Enter")
    expect(page.locator("#heard")).to_have_text("Appel passé au 15 / 112")
    assert desk.stored()["status"] == "escalated" and judged(desk) == [("escalated", None, None)]


def test_a_triage_that_overtakes_the_answer_to_its_turn_is_not_old(desk: Desk) -> None:
    call_id = desk.start()

    def late(route) -> None:  # the page hears of the triage before it hears of the turn
        answer = route.fetch()
        while desk.service.http.get(f"/v1/calls/{call_id}").json()["triage"] is None:
            time.sleep(0.05)
        time.sleep(0.3)
        route.fulfill(response=answer)

    desk.page.route("**/turns", late)
    desk.say(SAID)
    desk.triaged()
    expect(desk.page.locator(".urgency:not(.old)")).to_have_attribute("data-urgency", "U3")
    desk.page.unroute("**/turns")


def test_with_the_keyboard_alone(desk: Desk) -> None:
    page, press = desk.page, desk.page.keyboard.press
    desk.open()
    expect(page.locator("#start-fr")).to_be_focused()
    press("Enter")
    expect(page.locator("#words")).to_be_focused()
    press("Alt+S")
    expect(page.locator("input[value=operator]")).to_be_checked()
    page.keyboard.type("Que se passe-t-il ?")
    press("Enter")
    page.keyboard.type(SAID)
    press("Shift+Enter")
    page.keyboard.type("Voilà.")
    press("Enter")
    expect(page.locator(".turn.by-patient:not(.coming)")).to_have_count(1)
    assert [(turn["speaker"], turn["text"]) for turn in desk.stored()["turns"]] == [
        ("operator", "Que se passe-t-il ?"),
        ("patient", f"{SAID}\nVoilà."),
    ]
    desk.triaged()
    press("Alt+M")
    page.keyboard.press("U")  # the list goes to what begins so
    page.locator("#field-urgency").select_option("U2")
    page.locator("#field-urgency").press("Enter")
    page.locator("#dialog button.primary").press("Enter")
    expect(page.locator(".given")).to_have_text(re.compile("Modifié"))
    assert judged(desk) == [("edited", None, "U2")]
    press("Alt+H")
    expect(page.locator("#dialog")).to_be_visible()
    press("Escape")
    press("Alt+N")
    expect(page.locator("#open-calls button").first).to_be_visible()
    expect(page.locator("#start-fr")).to_be_focused()


def test_a_slot_is_booked_and_given_back(desk: Desk) -> None:
    page = desk.page
    desk.start()
    desk.say(SAID)
    desk.triaged()
    assert desk.stored()["triage"]["urgency"]["id"] == "U3"
    expect(page.locator("#slots li.free")).to_have_count(2)
    page.locator("#slots button", has_text="Réserver").first.click()
    expect(page.locator("#slots li.booked")).to_contain_text("Premier")
    (booked,) = desk.service.http.get(f"/v1/roster/bookings?call={desk.call_id()}").json()
    assert booked["released"] is None
    page.reload()
    expect(page.locator("#slots li.booked")).to_contain_text("Premier")
    page.keyboard.press("Alt+A")
    expect(page.locator(".given")).to_have_text(re.compile("Accepté"))
    other = desk.context.new_page()  # another window knows as much
    other.goto(page.url)
    expect(other.locator("#slots li.booked")).to_contain_text("dermatologie")
    expect(other.locator("#slots li.booked time")).to_have_attribute("datetime", booked["slot"]["starts"])
    expect(other.locator(".given")).to_have_text(re.compile("Accepté"))
    other.close()
    page.locator("#slots button", has_text="Libérer").click()
    expect(page.locator("#slots li.booked")).to_have_count(0)
    (booked,) = desk.service.http.get(f"/v1/roster/bookings?call={desk.call_id()}").json()
    assert booked["released"]


def test_a_transcript_is_imported(desk: Desk, tmp_path) -> None:
    page = desk.page
    desk.start()
    page.keyboard.press("Alt+I")
    file = tmp_path / "call.srt"
    file.write_text(
        "1\n00:00:01,000 --> 00:00:03,000\nOpérateur : Qui appelle ?\n\n"
        f"2\n00:00:03,000 --> 00:00:09,000\nPatient : Anna Leroy.\n{CHEST}\n",
        "utf-8",
    )
    page.locator("#import-file").set_input_files(file)
    expect(page.locator("#dialog [role=status]")).to_have_text("2 répliques, 1 du patient")
    page.locator("#dialog button.primary").click()
    expect(page.locator(".by-patient .said")).to_contain_text("Anna Leroy.")
    expect(page.locator("#banner-place .number")).to_have_text("15")
    stored = desk.stored()["turns"]
    assert [turn["speaker"] for turn in stored] == ["operator", "patient"] and "Leroy" not in json.dumps(stored)

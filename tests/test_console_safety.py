"""What must hold at the console whatever happens. Run: pytest tests/test_console_safety.py"""

from __future__ import annotations

import json
import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from console_page import WIDE, ZOOMED, Desk, a_desk, chromium
from playwright.sync_api import Page, expect
from tiny_desk import CHEST, SAID, running, settings

from llmft.serve.store.keys import add_key

HOSTILE = (
    "<img src=x onerror=\"document.title='hit'\"><script>document.title='hit'</script>"
    "<svg onload=\"document.title='hit'\"> javascript:document.title='hit' {{constructor.constructor('document.title=1')()}}"
)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running(settings(tmp_path_factory.mktemp("desk"), live=False)) as service:
        yield service


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def desk(browser, service):
    with a_desk(browser, service) as desk:
        yield desk


def kept(page: Page) -> str:
    """All that the page keeps on the disk."""
    return str(page.evaluate("JSON.stringify([{...sessionStorage}, {...localStorage}, document.cookie, location.href])"))


def texts(desk: Desk) -> list[str]:
    return [turn["text"] for turn in desk.stored()["turns"]]


def test_a_lost_connection_loses_nothing(desk: Desk) -> None:
    page = desk.page
    desk.start()
    desk.say("Bonjour.")
    desk.context.set_offline(True)
    expect(page.locator("#lost")).to_have_attribute("role", "alert")
    expect(page.locator("#link")).to_have_text("hors ligne")
    desk.say("Qui appelle ?", waits=False)
    desk.say("Marie Dupont.", waits=False)
    expect(page.locator(".coming .time").last).to_have_text("en attente du réseau")
    assert "Dupont" not in kept(page)
    assert len(texts(desk)) == 1
    desk.context.set_offline(False)
    expect(page.locator(".coming")).to_have_count(0)
    expect(page.locator("#lost")).to_have_count(0)
    expect(page.locator("#link")).to_have_text("connecté")
    assert texts(desk) == ["Bonjour.", "Qui appelle ?", "[PRENOM_1] [NOM_1]."]


def test_an_answer_that_was_lost_on_the_way_is_not_stored_twice(desk: Desk) -> None:
    page = desk.page
    desk.start()
    lost: list[str] = []

    def drop_once(route) -> None:  # the service has the turn, the page never hears of it
        route.fetch()
        lost.append(route.request.post_data_json["key"])
        route.abort()
        page.unroute("**/turns")

    page.route("**/turns", drop_once)
    desk.say("Je suis Paul Martin.", waits=False)
    expect(page.locator(".coming")).to_have_count(0)
    assert len(lost) == 1 and texts(desk) == ["Je suis [PRENOM_1] [NOM_1]."]
    expect(page.locator(".said")).to_have_text("Je suis Paul Martin.")


def test_a_reload_in_mid_call_loses_nothing(desk: Desk) -> None:
    page = desk.page
    desk.start()
    desk.say(f"Je suis Paul Martin. {CHEST}")
    page.route("**/turns", lambda route: route.abort())
    desk.say("Depuis quand, monsieur Martin ?", waits=False)
    desk.say("Depuis une heure.", waits=False)
    page.locator("#words").fill("Et vous, Paul, comment")
    assert "Martin" not in kept(page) and "Paul" not in kept(page)
    page.reload()
    expect(page.locator("#turns .turn")).to_have_count(3)
    expect(page.locator("#words")).to_have_value("Et vous, Paul, comment")
    expect(page.locator("#composer")).to_have_attribute("data-speaker", "operator")
    expect(page.locator("#banner-place .number")).to_have_text("15")
    expect(page.locator(".said").first).to_have_text(re.compile(r"^Je suis \[PRENOM_1\] \[NOM_1\]\."))  # as it is stored
    page.unroute("**/turns")
    expect(page.locator(".coming")).to_have_count(0)
    assert texts(desk)[1:] == ["Depuis quand, monsieur [NOM_1] ?", "Depuis une heure."]
    page.reload()
    expect(page.locator("#turns .turn")).to_have_count(3)
    assert len(texts(desk)) == 3


def test_words_run_no_script(desk: Desk) -> None:
    page = desk.page
    desk.start()
    title = page.title()
    desk.say(HOSTILE)
    expect(page.locator(".said")).to_have_text(HOSTILE)
    page.keyboard.press("Alt+I")
    page.locator("#import-text").fill(f"Patient : {HOSTILE}\nOpérateur : {HOSTILE}")
    expect(page.locator(".preview li").first).to_contain_text("onerror")
    page.keyboard.press("Escape")
    page.keyboard.press("Alt+T")
    expect(page.locator(".urgency")).to_be_visible()
    page.reload()
    expect(page.locator("#turns .turn")).to_have_count(1)
    assert page.title() == title
    assert page.locator("#turns img, #turns script, #turns svg, #card img").count() == 0


def test_the_policy_forbids_what_the_pages_do_not_need(desk: Desk) -> None:
    for path in ("/", "/supervisor", "/sign-in", "/console/script/operator.js"):
        policy = desk.service.http.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy and "require-trusted-types-for 'script'" in policy
        assert "unsafe" not in policy and "http" not in policy and "*" not in policy
    assert desk.service.http.get("/console/script/../__init__.py").status_code == 404
    desk.open()
    desk.page.evaluate("document.body.insertAdjacentText('beforeend', 'text is fine')")
    with pytest.raises(Exception, match="TrustedHTML"):
        desk.page.evaluate("document.body.innerHTML = '<b>markup is not</b>'")
    assert desk.seen.faults and all("TrustedHTML" in fault or "policy" in fault for fault in desk.seen.faults)
    desk.seen.faults.clear()


def test_axe_finds_nothing_serious(desk: Desk) -> None:
    page = desk.page
    desk.start()
    desk.say(f"Je suis Paul Martin. {CHEST} Je n'ai pas de fièvre.")
    page.keyboard.press("Alt+T")
    expect(page.locator("#verdict button").first).to_be_visible()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        accept(page)
    page.set_viewport_size(ZOOMED)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing to scroll sideways for
    accept(page)
    page.keyboard.press("Alt+M")
    expect(page.locator("#field-urgency")).to_be_visible()
    accept(page)
    desk.open("/supervisor")
    expect(page.locator("html[data-ready]")).to_be_attached()
    accept(page)
    page.set_viewport_size(WIDE)
    page.emulate_media(color_scheme="light")
    accept(page)


def accept(page: Page) -> None:
    """No serious or critical violation of WCAG 2.2 A and AA, nor of axe's own practices."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    grave = [
        (one["id"], [node["html"][:160] for node in one["nodes"]]) for one in found if one["impact"] in ("serious", "critical")
    ]
    assert grave == []


def test_a_key_opens_the_console(browser, tmp_path) -> None:
    with running(settings(tmp_path / "desk", live=False)) as service:
        store = service.desk.store
        keys = {role: add_key(store, role, role) for role in ("operator", "supervisor")}
        with a_desk(browser, service) as desk:
            page = desk.page
            page.goto(service.url + "/supervisor")
            page.wait_for_url("**/sign-in?to=%2Fsupervisor")
            accept(page)
            page.locator("#key").fill("wrong")
            page.keyboard.press("Enter")
            expect(page.locator("#complaint")).to_contain_text("the key is unknown or was revoked")
            page.locator("#key").fill(keys["operator"])
            page.keyboard.press("Enter")
            page.wait_for_url("**/supervisor")
            expect(page.locator("#notice-line")).to_have_text("Cette page est celle des superviseurs.")
            (cookie,) = desk.context.cookies()
            assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
            assert keys["operator"] not in kept(page)
            page.goto(service.url + "/")
            expect(page.locator("#to-supervisor")).to_be_hidden()
            page.locator("#start-fr").click()
            desk.say(SAID)
            desk.context.clear_cookies()
            desk.say("Depuis quand ?", waits=False)
            expect(page.locator("#again-key")).to_be_focused()
            page.keyboard.type(keys["operator"])
            page.keyboard.press("Enter")
            expect(page.locator(".coming")).to_have_count(0)
            expect(page.locator("#turns .turn")).to_have_count(2)
            expect(page.locator("#dialog")).to_be_hidden()
            page.route("**/turns", lambda route: route.abort())
            desk.say("Depuis lundi.", waits=False)
            page.get_by_role("button", name="Se déconnecter", exact=True).click()
            expect(page.locator("#dialog")).to_contain_text("1 phrases ne sont pas encore enregistrées")
            page.keyboard.press("Escape")
            page.unroute("**/turns")
            expect(page.locator(".coming")).to_have_count(0)
            page.get_by_role("button", name="Se déconnecter", exact=True).click()
            page.wait_for_url("**/sign-in")
            assert desk.context.cookies() == []


def test_a_supervisor_sees_and_reviews(desk: Desk) -> None:
    page = desk.page
    desk.start()
    desk.say(SAID)
    made = desk.service.triage(desk.call_id())
    desk.service.post(
        "/v1/feedback", {"answer_id": made["id"], "action": "rejected", "reason": "missed_sign: fièvre", "key": "a-key-of-a-test"}
    ).raise_for_status()
    desk.open("/supervisor")
    expect(page.locator("#disagreements tbody tr").first).to_contain_text("Signe d'alerte manqué : fièvre")
    summary = desk.service.http.get("/v1/supervisor/summary").json()
    tile = page.locator(".tile", has_text="triages").locator("dd").first
    expect(tile).to_have_text(str(sum(day["answers"] for day in summary["volumes"])))
    expect(page.locator("#volumes svg")).to_have_attribute("aria-label", "Triages et avis par jour")
    page.locator("#disagreements button").first.click()
    page.locator("#review-urgency").select_option("U1")
    page.locator("#dialog button.primary").click()
    expect(page.locator("#notice-line")).to_have_text("Relecture enregistrée : c'était un sous-triage.")
    assert desk.service.http.get("/v1/supervisor/summary").json()["rates"]["under_triage"] > 0


@pytest.fixture(scope="module")
def modules(browser, service):
    """A page in which the console's own modules can be called."""
    with a_desk(browser, service) as desk:
        desk.open("/sign-in")
        yield desk.page


MARKED = """async ([typed, masks, span]) => {
  const { masked, inTyped, cut } = await import("/console/script/call/marks.js");
  const [start, end] = inTyped(span, masks);
  const at = (from, to) => Array.from(typed).slice(from, to).join("");
  return [masked(typed, masks), at(start, end), cut(typed, [{ start, end }]).map((part) => part.text)];
}"""


@pytest.mark.parametrize(
    ("words", "quote", "found"),
    [
        ("mal à la poitrine", "poitrine", "poitrine"),
        ("😟😟 Zoé a mal à la poitrine", "mal à la poitrine", "mal à la poitrine"),
        ("Zoé Li a mal, Zoé Li tousse", "tousse", "tousse"),
        ("je suis Zoé", "suis [NOM_1]", "suis Zoé"),
        ("Zoé Li a mal", "[NOM_1]", "Zoé Li"),
    ],
)
def test_a_place_in_the_stored_text_is_found_in_the_typed_one(modules: Page, words: str, quote: str, found: str) -> None:
    """Places are counted in characters, of which an emoji is one."""
    masks = [{"start": m.start(), "end": m.end(), "placeholder": "[NOM_1]"} for m in re.finditer(r"Zoé(?: Li)?", words)]
    stored = re.sub(r"Zoé(?: Li)?", "[NOM_1]", words)
    start = stored.index(quote)
    result = modules.evaluate(MARKED, [words, masks, [start, start + len(quote)]])
    assert result[0] == stored and result[1] == found and "".join(result[2]) == words and found in result[2]


READ = """async (text) => {
  const { readTranscript } = await import("/console/script/call/transcript_text.js");
  return readTranscript(text).map(({ speaker, text }) => `${speaker[0]}:${text}`);
}"""


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        ("Patient : J'ai mal\nau dos.\nOpérateur : Depuis ?", ["p:J'ai mal au dos.", "o:Depuis ?"]),
        ("J'ai mal.\n\nDepuis ?\nHier : ce matin.", ["p:J'ai mal.", "o:Depuis ?", "p:Hier : ce matin."]),
        (
            "SPEAKER_00: Hello?\nSPEAKER_01: It hurts.\nSPEAKER_00: Where?\nSPEAKER_01: Here.",
            ["o:Hello?", "p:It hurts.", "o:Where?", "p:Here."],
        ),
        ("[00:01] Agent: Hello?\n[00:03] Caller: It hurts.", ["o:Hello?", "p:It hurts."]),
        ("WEBVTT\n\n00:01.000 --> 00:02.000\n<v Patient>Il <b>tousse</b>.</v>", ["p:Il tousse."]),
        (
            json.dumps({"turns": [{"speaker": "patient", "text": "Aïe."}, {"speaker": "operator", "text": "Où ?"}]}),
            ["p:Aïe.", "o:Où ?"],
        ),
        (json.dumps([{"role": "system", "content": "Triage."}, {"role": "user", "content": "Aïe."}]), ["p:Aïe."]),
        ("", []),
        ("{", ["p:{"]),
    ],
    ids=range(9),
)
def test_transcripts_are_read(modules: Page, text: str, turns: list[str]) -> None:
    assert modules.evaluate(READ, text) == turns

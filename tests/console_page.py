"""The console in a real browser: one Chromium a test module, a page for each test that notes what must never happen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from tiny_desk import Service

CHROMIUM = "/usr/bin/chromium"
WIDE = {"width": 1280, "height": 800}
ZOOMED = {"width": 640, "height": 400}  # the same screen at 200 %
expect.set_options(timeout=20_000)  # a shared machine pauses at any time


@dataclass
class Seen:
    """What a page did that a console must not do."""

    hosts: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Desk:
    """A page of the console and the service behind it."""

    page: Page
    context: BrowserContext
    service: Service
    seen: Seen

    def open(self, path: str = "/") -> None:
        self.page.goto(self.service.url + path)
        self.page.wait_for_selector("#choices button")

    def start(self, lang: str = "fr") -> str:
        """A new call; its id."""
        self.open()
        self.page.locator(f"#start-{lang}").click()
        expect(self.page.locator("#words")).to_be_focused()
        return self.call_id()

    def call_id(self) -> str:
        return str(self.page.evaluate("location.hash.slice(1)"))

    def say(self, text: str, *, waits: bool = True) -> None:
        """Type a turn as whoever speaks next."""
        count = self.page.locator("#turns .turn").count()
        self.page.locator("#words").fill(text)
        self.page.keyboard.press("Enter")
        expect(self.page.locator("#turns .turn")).to_have_count(count + 1)
        if waits:
            expect(self.page.locator("#turns .coming")).to_have_count(0)

    def triaged(self) -> None:
        """Wait until the triage is there and up to date."""
        expect(self.page.locator("#triage-state")).to_have_text({"fr": "à jour", "en": "up to date"}[self.lang()])

    def lang(self) -> str:
        return str(self.page.evaluate("document.documentElement.lang"))

    def stored(self) -> dict[str, Any]:
        return dict(self.service.http.get(f"/v1/calls/{self.call_id()}").json())


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def a_desk(browser: Browser, service: Service, **settings: Any) -> Iterator[Desk]:
    """A fresh browser profile; at its end nothing forbidden must have happened."""
    context = browser.new_context(**{"viewport": WIDE, "locale": "fr-FR", **settings})
    page, seen = context.new_page(), Seen()
    page.add_init_script(
        "addEventListener('securitypolicyviolation', (event) => console.error('policy', event.violatedDirective))"
    )
    page.on("request", lambda request: seen.hosts.add(urlsplit(request.url).netloc))
    page.on("pageerror", lambda error: seen.faults.append(str(error)))
    page.on("dialog", lambda dialog: (seen.faults.append("a dialog of the browser"), dialog.dismiss()))
    page.on("console", lambda line: seen.faults.append(line.text) if _is_fault(line.type, line.text) else None)
    try:
        yield Desk(page, context, service, seen)
        assert seen.faults == []
        assert seen.hosts == {urlsplit(service.url).netloc}
    finally:
        context.close()


def _is_fault(kind: str, text: str) -> bool:
    """A request that found no network, or was refused, is noted by the browser, and is none."""
    return kind == "error" and not text.startswith("Failed to load resource")

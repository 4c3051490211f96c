"""Debian's chromium, driven by playwright: a page that is watched while a test uses it.

What it asks of anybody else, what it says on its console and what it throws is kept, and
fails the test unless the test has looked at it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

ARGUMENTS = (
    "--no-sandbox",  # as root there is none
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
DESKTOP, PHONE = {"width": 1200, "height": 900}, {"width": 360, "height": 740}


@contextmanager
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    assert path is not None, "the tests of the page need chromium: run `make packages`"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass(eq=False)
class Watched:
    """The page of the service at `url`, and what it did that it should not do."""

    page: Page
    url: str
    trouble: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.trouble.append(f"threw {error}"))
        self.page.on("request", lambda request: self._request(request.url))

    def open(self) -> Watched:
        self.page.goto(self.url)
        self.settled()
        return self

    def settled(self) -> None:
        """Nothing is asked any more."""
        self.page.wait_for_load_state("networkidle")
        self.page.wait_for_selector("#lists:not([aria-busy=true])", state="attached")

    def ask_for(self, user: str) -> None:
        with self.answered():
            self.page.get_by_label("User id").fill(user)
            self.page.get_by_role("button", name="Ask", exact=True).click()

    @contextmanager
    def answered(self, path: str = "/v1/recommend") -> Iterator[None]:
        """What is done inside makes the page ask; afterwards its answer is shown."""
        with self.page.expect_response(lambda response: response.url.endswith(path)):
            yield
        self.settled()

    def titles(self, at: int = 0) -> list[str]:
        """Of one list, best first."""
        return self.page.locator(".ranked").nth(at).locator(".title").all_inner_texts()

    def said(self) -> str:
        return self.page.locator("#said").inner_text()

    def evaluate(self, script: str) -> Any:
        return self.page.evaluate(script)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.trouble.append(f"{message.type}: {message.text}")

    def _request(self, url: str) -> None:
        if not url.startswith(self.url + "/"):
            self.trouble.append(f"asked {url}")


@contextmanager
def watched(browser: Browser, url: str, **context: Any) -> Iterator[Watched]:
    """A page of its own cookies and storage; `context` is playwright's."""
    settings = {"viewport": DESKTOP, "reduced_motion": "reduce"} | context
    with browser.new_context(**settings) as own:
        own.set_default_timeout(15_000)
        page = Watched(own.new_page(), url)
        page.watch()
        yield page
        assert not page.trouble

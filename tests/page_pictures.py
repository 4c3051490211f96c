"""docs/page-*.png: the page of a running service, best one of MovieLens (its titles read well).

make up                                     # in one terminal
python tests/page_pictures.py --user 196    # in another: light, dark, phone
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from browser import DESKTOP, PHONE, Watched, chromium, watched

DOCS = Path(__file__).parent.parent / "docs"
PICTURES: dict[str, dict[str, Any]] = {
    "light": {"viewport": DESKTOP, "color_scheme": "light"},
    "dark": {"viewport": DESKTOP, "color_scheme": "dark"},
    "phone": {"viewport": PHONE | {"height": 1000}, "color_scheme": "light"},
}


def light(page: Watched) -> None:
    """An item was clicked; the others say how they moved."""
    with page.answered():
        page.page.locator(".ranked .title").nth(2).click()
    page.page.mouse.move(0, 0)
    page.page.evaluate("document.activeElement.blur()")


def dark(page: Watched) -> None:
    """Two answers side by side, of some categories, more diverse; one reason in full."""
    page.page.locator("#categories > summary").click()
    with page.answered():
        page.page.locator("#category-boxes input").first.check()
    page.page.locator("#categories > summary").click()
    with page.answered():
        page.page.get_by_label("Diversity").fill("0.3")
    with page.answered():
        page.page.get_by_label("beside").select_option(index=2)
    page.page.locator(".reason summary").first.click()
    page.page.evaluate("document.activeElement.blur()")
    page.page.mouse.move(0, 0)


def phone(page: Watched) -> None:
    page.page.evaluate("document.activeElement.blur()")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:3000")
    parser.add_argument("--user", default="196")
    parser.add_argument("--out", type=Path, default=DOCS)
    given = parser.parse_args()
    with chromium() as browser:
        for name, use in (("light", light), ("dark", dark), ("phone", phone)):
            with watched(browser, given.url, **PICTURES[name]) as page:
                page.open()
                page.ask_for(given.user)
                use(page)
                page.page.screenshot(path=given.out / f"page-{name}.png")


if __name__ == "__main__":
    main()

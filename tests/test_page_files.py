"""The page as the service gives it: its files and headers, keys, and a Triton that is away."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bento_process import Service, bentoml_serve, write_release
from browser import chromium, watched
from playwright.sync_api import expect

from bento import keys, web
from recommender.contract import Limits

SCRIPTS = sorted(web.FOLDER.glob("*.js"))
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
AWAY = "grpc://127.0.0.1:9"  # nobody listens there


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A file of keys, and the one key in it."""
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    return path, keys.add(path, "page", [keys.RECOMMEND])


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, keyring: tuple[Path, str]
) -> Iterator[Service]:
    """A service that takes that key, without a Triton."""
    tmp = tmp_path_factory.mktemp("page")
    limits = Limits(user_features=2, category_words=1)
    write_release(tmp / "repository", limits, items=30, models=("recommender_onnx",))
    variables = {
        "RECSERVE_REPOSITORY": str(tmp / "repository"),
        "RECSERVE_TRITON": AWAY,
        "RECSERVE_KEYS": str(keyring[0]),
        "RECSERVE_EXAMPLE_USERS": "reader, new",
    }
    with bentoml_serve(tmp, variables) as running:
        yield running


def test_the_page_is_html_that_may_load_and_ask_nothing_from_elsewhere(service: Service) -> None:
    reply = service.http.get("/")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["content-security-policy"].startswith("default-src 'self';")
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"https?://|<style|style=|\son\w+=", reply.text)


def test_every_file_that_the_page_names_is_there_and_of_its_type(service: Service) -> None:
    sources = service.http.get("/").text + "".join(script.read_text() for script in SCRIPTS)
    named = {name.rpartition("/")[2] for name in re.findall(r'"(?:web|\.)/([^"]+)"', sources)}
    assert named == {path.name for path in web.FOLDER.iterdir() if path.suffix in TYPES}
    for name in named:
        reply = service.http.get(f"/web/{name}")
        assert reply.status_code == 200
        assert reply.headers["content-type"].split(";")[0] == TYPES[Path(name).suffix]
    assert service.http.get("/web/__init__.py").status_code == 404


def test_a_browser_that_holds_a_file_is_not_sent_it_again(service: Service) -> None:
    first = service.http.get("/web/app.js")
    assert first.headers["cache-control"] == "no-cache"
    again = service.http.get("/web/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    other = service.http.get("/web/app.js", headers={"If-None-Match": '"of-another-version"'})
    assert other.content == first.content
    head = service.http.head("/web/app.js")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == first.headers["etag"]


def test_the_catalogue_is_asked_for_by_words_and_by_categories(
    service: Service, keyring: tuple[Path, str]
) -> None:
    headers = {"Authorization": f"Bearer {keyring[1]}"}

    def found(**body: object) -> list[str]:
        reply = service.http.post("/v1/popular", json=body, headers=headers)
        return [item["item_id"] for item in reply.json()["items"]]

    assert found(text="title 2", n=3) == ["i2", "i12", "i20"]  # the most popular first
    assert found(text="I7") == ["i7"]  # i1 to i30, of which only i1 has no title
    assert found(text=" ", n=2) == ["i1", "i2"]
    assert found(text="2", filter={"categories": ["Noir"], "exclude": ["i2"]}) == [
        "i20",
        "i23",
        "i26",
        "i29",
    ]
    assert found(text="no such words") == []
    answer = service.http.get("/v1/categories", headers=headers).json()
    assert answer == {
        "release": 1,
        "categories": [
            {"category": name, "items": items}
            for name, items in (("Drama", 11), ("Noir", 11), ("Comedy", 10))
        ],
    }
    assert service.http.get("/v1/categories").status_code == 401


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_javascript(script: Path, tmp_path: Path) -> None:
    node = shutil.which("node")
    assert node is not None, "node checks the page's scripts: run `make packages`"
    module = shutil.copy(script, tmp_path / "script.mjs")  # by its name a module, for any node
    checked = subprocess.run([node, "--check", module], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    "path", [p for p in sorted(web.FOLDER.iterdir()) if p.is_file()], ids=lambda path: path.name
)
def test_every_file_says_first_what_it_does(path: Path) -> None:
    assert re.match(r'(<!doctype html>\n)?("""|//|/\*|<!--) ?\w', path.read_text())


def test_a_key_is_asked_for_and_a_silent_triton_is_said_so(
    service: Service, keyring: tuple[Path, str]
) -> None:
    with chromium() as browser, watched(browser, service.url) as page:
        field, form = page.page.get_by_label("API key", exact=True), page.page.locator("#key-form")
        page.open()
        expect(page.page.locator("#key-why")).to_have_text("This service asks for an API key.")
        expect(field).to_be_focused()
        page.page.keyboard.type("wrong")
        page.page.keyboard.press("Enter")
        expect(page.page.locator("#key-why")).to_contain_text("does not take this API key")
        field.fill(keyring[1])
        with page.answered():
            page.page.keyboard.press("Enter")
        expect(form).to_be_hidden()
        expect(page.page.locator(".list .notice")).to_contain_text("these are popular items")
        assert page.titles()[:2] == ["i1", "Title 2"]
        expect(page.page.locator(".block")).to_have_count(0)  # the key may not
        expect(page.page.locator("#examples")).to_have_text("For example reader, new")
        with page.answered():
            page.page.reload()  # the key is kept in the tab
        expect(form).to_be_hidden()
        assert page.evaluate("[document.cookie, localStorage.length]") == ["", 0]
        page.page.get_by_role("button", name="Forget the key").click()
        expect(page.page.locator("#key-why")).to_have_text("This service asks for an API key.")
        # Chromium's console tells of every refusal: of no key, and of one that may not block.
        assert all(re.search("status of 40[13] ", trouble) for trouble in page.trouble)
        page.trouble.clear()

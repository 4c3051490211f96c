"""The page at `/` in a real browser, on the whole stack: what a person does with it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from bento_process import wait_until
from browser import PHONE, Watched, chromium, watched
from playwright.sync_api import Browser, expect
from served import Stack

DOCS = Path(__file__).parent.parent / "docs" / "page.md"
USER, NOBODY = "user-000001", "nobody-knows-me"


@pytest.fixture(scope="module")  # no longer: playwright's loop would be in the way of other tests
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser, stack: Stack) -> Iterator[Watched]:
    with watched(browser, stack.url) as one:
        yield one.open()


def test_a_user_is_recommended_items_with_titles_categories_scores_and_reasons(
    page: Watched,
) -> None:
    page.ask_for(USER)
    rows = page.page.locator(".ranked li")
    expect(rows).to_have_count(10)
    first = rows.first
    expect(first.locator(".title")).to_have_text(re.compile(r"Item \d+ of group \d"))
    expect(first.locator(".categories")).to_have_text(re.compile(r"group-\d{3}"))
    expect(first.locator(".score")).to_have_text(re.compile(r"-?\d+\.\d{3}"))
    expect(first.locator(".reason summary")).not_to_be_empty()
    first.locator(".reason summary").click()
    expect(first.locator(".reason tr").first).to_be_visible()  # the signals of the score
    about = page.page.locator(".about").inner_text()
    assert re.fullmatch(r"release 1 · recommender_onnx · variant default · \d+\sms", about)
    assert page.said() == f"10 items for {USER}."
    expect(page.page.locator("#served")).to_contain_text("Release 1")


def test_somebody_new_is_answered_and_a_history_of_clicks_changes_the_list(page: Watched) -> None:
    before = page.titles()
    assert len(before) == 10
    with page.answered():
        page.page.locator("#found button").first.click()
    history = page.page.locator("#history")
    expect(history.locator("li")).to_have_count(1)
    after = page.titles()
    assert after != before
    assert history.locator("li span").first.inner_text() not in after
    with page.answered():
        page.page.locator(".ranked .title").first.click()
    expect(history.locator("li span").first).to_have_text(after[0])  # the newest first
    assert page.said().startswith(f"{after[0]} added.")
    with page.answered():
        page.page.get_by_role("button", name="Clear").click()
    assert page.titles() == before


def test_items_are_found_by_what_their_titles_hold(page: Watched) -> None:
    with page.answered("/v1/popular"):
        page.page.get_by_label("Find items to add").fill("149 ITEM")
    expect(page.page.locator("#found button")).to_have_text(["Item 149 of group 2"])
    with page.answered("/v1/popular"):
        page.page.get_by_label("Find items to add").fill("item-000148")
    expect(page.page.locator("#found button")).to_have_text(["Item 148 of group 1"])


def test_a_filter_leaves_only_items_of_its_categories(page: Watched) -> None:
    page.ask_for(USER)
    before = page.titles()
    page.page.locator("#categories > summary").click()
    with page.answered():
        page.page.get_by_label("group-001").check()
    categories = page.page.locator(".ranked .categories").all_inner_texts()
    assert categories == ["group-001"] * 10
    expect(page.page.locator("#categories-chosen")).to_have_text("group-001")
    with page.answered():
        page.page.get_by_role("button", name="All categories").click()
    assert page.titles() == before


def test_the_slider_makes_the_list_diverse(page: Watched) -> None:
    page.ask_for(USER)
    before = page.titles()
    page.page.get_by_label("Diversity").focus()
    with page.answered():
        page.page.keyboard.press("End")
    expect(page.page.locator("#diversity-value")).to_have_text("1")
    assert page.titles() != before
    with page.answered():
        page.page.keyboard.press("Home")
    assert page.titles() == before


def test_an_item_that_is_clicked_leaves_the_list_and_the_others_say_how_they_moved(
    page: Watched,
) -> None:
    page.ask_for(NOBODY)
    before = page.titles()
    with page.answered():
        page.page.locator(".ranked .title").nth(2).click()
    after = page.titles()
    assert before[2] not in after
    assert len(after) == 10
    expect(page.page.locator("#history li").first).to_contain_text(before[2])
    expect(page.page.locator(".ranked .shift").first).to_be_attached()


def test_an_event_is_kept_for_the_user_wherever_the_next_question_comes_from(
    browser: Browser, page: Watched, stack: Stack
) -> None:
    user = "a-guest-of-the-page"
    page.ask_for(user)
    clicked = page.titles()[0]
    page.page.get_by_label("A click counts as").select_option("purchase")
    with page.answered():
        page.page.locator(".ranked .title").first.click()
    assert page.said().startswith(f"{clicked}: purchase sent.")
    with watched(browser, stack.url) as elsewhere:
        elsewhere.open()
        elsewhere.ask_for(user)
        assert clicked not in elsewhere.titles()
        expect(elsewhere.page.locator("#history li")).to_have_text([f"{clicked}purchase"])


def test_a_blocked_item_is_shown_to_nobody_until_it_is_unblocked(page: Watched) -> None:
    page.ask_for(USER)
    before = page.titles()
    with page.answered():
        page.page.get_by_role("button", name=f"Block {before[1]}").click()
    after = page.titles()
    assert before[1] not in after
    assert after[0] == before[0]
    with page.answered():
        page.page.locator("#blocked-part > summary").click()
        page.page.get_by_role("button", name=f"Unblock {before[1]}").click()
    assert page.titles() == before
    expect(page.page.locator("#blocked-hint")).to_be_visible()


def test_two_models_of_a_release_stand_side_by_side(page: Watched) -> None:
    page.ask_for(USER)
    with page.answered():
        page.page.get_by_label("beside").select_option("recommender_torchscript")
    expect(page.page.locator(".list")).to_have_count(2)
    assert page.titles(0) == page.titles(1)
    assert page.said() == f"10 items for {USER}, 10 of them in both lists."
    expect(page.page.locator(".about").nth(1)).to_contain_text("recommender_torchscript")
    with page.answered():
        page.page.get_by_label("beside").select_option("nothing")
    expect(page.page.locator(".list")).to_have_count(1)


def test_two_variants_stand_side_by_side(page: Watched, stack: Stack) -> None:
    def variants(*words: str) -> None:
        command = [sys.executable, "-m", "serving.cli", "variants", *words]
        subprocess.run([*command, "--repository", str(stack.repository)], check=True)

    def serving() -> bool:
        found = page.page.request.get(f"{stack.url}/v1/release").json()["variants"]
        return [(one["name"], one["state"]) for one in found] == [("b", "serving")]

    variants("add", "b", "--release", "1", "--model", "recommender_torchscript", "--share", "1")
    try:
        wait_until(serving)
        page.open()
        page.ask_for(USER)
        for place, variant in (("right", "b"), ("left", "default")):
            with page.answered():
                page.page.locator(f"#{place}").select_option(f"variant {variant}")
        about = page.page.locator(".about")
        expect(about).to_have_count(2)
        expect(about.nth(0)).to_contain_text("variant default")
        expect(about.nth(1)).to_contain_text("variant b")
    finally:
        variants("remove", "b")


def test_more_items_follow_the_first_ones(page: Watched) -> None:
    page.ask_for(USER)
    first = page.titles()
    with page.answered():
        page.page.get_by_role("button", name="Show more").click()
    assert page.titles()[:10] == first
    assert len(page.titles()) == 20


def test_all_of_it_goes_by_keyboard_with_the_focus_seen(page: Watched) -> None:
    keyboard, focused = page.page.keyboard, page.page.locator(":focus")
    keyboard.press("Tab")
    expect(focused).to_have_text("Skip to the recommendations")
    assert focused.bounding_box()["y"] >= 0  # it comes into sight
    while focused.get_attribute("id") != "user":
        keyboard.press("Tab")
    assert focused.evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
    keyboard.type(USER)
    with page.answered():
        keyboard.press("Enter")
    before = page.titles()
    while focused.get_attribute("class") != "title":
        keyboard.press("Tab")
    assert focused.inner_text() == before[0]
    with page.answered():
        keyboard.press("Enter")
    expect(focused).to_have_class("title")  # of the item that came into its place
    assert focused.inner_text() == page.titles()[0] != before[0]
    keyboard.press("Tab")  # its reason
    keyboard.press("Enter")
    expect(page.page.locator(".reason[open] table")).to_be_visible()


def test_it_fits_a_phone(browser: Browser, stack: Stack) -> None:
    with watched(browser, stack.url, viewport=PHONE, has_touch=True) as page:
        page.open()
        page.ask_for(USER)
        page.page.locator("#categories > summary").click()
        for part in ("#history-part", "#add", "#blocked-part"):
            page.page.locator(f"{part} > summary").click()
        page.page.locator(".reason summary").first.click()
        with page.answered():
            page.page.get_by_label("beside").select_option("recommender_torchscript")
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_the_script_of_the_documentation_runs(page: Watched) -> None:
    (script,) = re.findall(r"```js\n(.*?)```", DOCS.read_text(), re.DOTALL)
    script = script.replace("http://127.0.0.1:3000", page.url).replace('"196"', '"a-scripted-user"')
    before = page.evaluate(
        f"(async () => {{ {script}; return items.map((one) => one.item_id); }})()"
    )
    assert len(before) == 5
    page.ask_for("a-scripted-user")
    assert page.page.locator(".ranked li").first.get_attribute("data-id") != before[0]
    expect(page.page.locator("#history li")).to_have_count(1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Browser, stack: Stack, scheme: str) -> None:
    with watched(browser, stack.url, color_scheme=scheme) as page:
        page.open()
        page.ask_for(USER)
        page.page.locator("#categories > summary").click()
        page.page.locator(".reason summary").first.click()
        with page.answered():
            page.page.locator(".ranked .title").nth(3).click()  # so that shifts are shown
        findings = Axe().run(page.page).response["violations"]
        shown = [f"{one['impact']}: {one['help']} ({one['nodes'][0]['html']})" for one in findings]
        assert not [text for text in shown if text.startswith(("serious", "critical"))], shown
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (light == "rgb(252, 251, 248)") == (scheme == "light")


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_rows_move_only_for_those_who_like_it(browser: Browser, stack: Stack, motion: str) -> None:
    with watched(browser, stack.url, reduced_motion=motion) as page:
        page.open()
        page.evaluate(
            """() => {
                window.moved = 0;
                const animate = Element.prototype.animate;
                Element.prototype.animate = function (...given) {
                    window.moved += 1;
                    return animate.apply(this, given);
                };
            }"""
        )
        with page.answered():
            page.page.locator(".ranked .title").first.click()
        assert (page.evaluate("moved") > 0) == (motion == "no-preference")

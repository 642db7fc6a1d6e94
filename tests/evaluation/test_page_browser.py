"""The page of a report in headless Chromium: narrow and wide, light and dark, by mouse, keyboard and printer.

Skipped where the `playwright` package or a `chromium` (or Chrome) program is missing.
"""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from pamctl.evaluation.page import page_of
from tests.page_cases import picture, report_of_grid

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
PHONE, DESK = 360, 1400
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>" + "long" * 40
Theme = Literal["light", "dark"]


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "index.html"
    report = report_of_grid()
    file.write_text(page_of(replace(report, baseline=report), picture), encoding="utf-8")
    return file


class Opened:
    """A page that was opened, and everything that it did beside showing itself."""

    def __init__(
        self, browser: "Browser", file: Path, width: int = DESK, theme: Theme = "light", **options: Any
    ) -> None:
        self.page: Page = browser.new_page(
            viewport={"width": width, "height": 900},
            color_scheme=theme,
            reduced_motion="reduce",
            **options,
        )
        self.page.set_default_timeout(10_000)
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("dialog", lambda dialog: self.messages.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())

    def loaded(self) -> list[str]:
        """What was asked for but the pictures that the page carries."""
        return [url for url in self.requests if not url.startswith("data:")]


@pytest.fixture(scope="module")
def desk(browser: "Browser", report_file: Path) -> "Iterator[Page]":
    """One page for the tests that leave it as they find it, but for what they look at."""
    opened = Opened(browser, report_file)
    yield opened.page
    assert opened.messages == []
    opened.page.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_it_is_quiet_loads_nothing_and_fits(
    browser: "Browser", report_file: Path, width: int, theme: Theme
) -> None:
    opened = Opened(browser, report_file, width, theme)
    page = opened.page
    assert page.evaluate("document.documentElement.scrollWidth") == width
    charts = page.locator("svg.chart:visible")
    assert charts.count() == 3 + 2 + 3
    for box in (chart.bounding_box() for chart in charts.all()):
        assert box is not None
        assert box["width"] > 250
        assert box["height"] > 60
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    pictures = page.locator(".card img")
    assert pictures.evaluate_all("all => all.every((one) => one.naturalWidth > 0)")
    page_is_dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 31)"
    assert page_is_dark == (theme == "dark")
    assert opened.messages == []
    assert opened.loaded() == [report_file.as_uri()]
    page.close()


def test_nothing_that_others_wrote_is_run(browser: "Browser", tmp_path: Path) -> None:
    file = tmp_path / "index.html"
    report = report_of_grid(tasks=(HOSTILE, "b"), orders=1, seeds=1, answer=HOSTILE)
    file.write_text(page_of(replace(report, notes=(HOSTILE,)), picture), encoding="utf-8")
    opened = Opened(browser, file, PHONE)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == PHONE
    assert opened.page.locator("h4").first.text_content() == HOSTILE
    assert opened.page.locator("img[src=x]").count() == 0
    assert opened.messages == []
    assert opened.loaded() == [file.as_uri()]
    opened.page.close()


def column(table: "Locator", number: int) -> list[str]:
    return [
        text.split(" ")[0] for text in table.locator(f"tbody tr > :nth-child({number})").all_text_contents()
    ]


def test_tables_sort_by_value_with_mouse_and_keyboard(desk: "Page") -> None:
    table = desk.locator("table.sortable").first
    heading = table.locator("th", has_text="BWT")
    values = [float(value) for value in column(table, 3)[1:]]
    assert values != sorted(values, reverse=True)
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert [float(value) for value in column(table, 3)[:-1]] == sorted(values, reverse=True)
    assert column(table, 3)[-1] == "-"
    heading.get_by_role("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert [float(value) for value in column(table, 3)[:-1]] == sorted(values)
    assert column(table, 3)[-1] == "-"
    first = table.locator("th", has_text="method")
    first.get_by_role("button").press("Space")
    assert first.get_attribute("aria-sort") == "ascending"
    assert heading.get_attribute("aria-sort") is None
    assert column(table, 1) == ["average", "finetune", "pam", "zero-shot"]


def test_tab_reaches_every_control(desk: "Page") -> None:
    desk.evaluate(
        """() => {
            window.reached = new Set();
            document.addEventListener("focusin", (event) => window.reached.add(event.target));
            document.body.focus();
        }"""
    )
    desk.locator(".skip").focus()
    controls = "a[href], button, select, summary, [tabindex='0']"
    count = desk.locator(controls).count()
    for _ in range(count):
        desk.keyboard.press("Tab")
    left = desk.evaluate(
        """(controls) => [...document.querySelectorAll(controls)]
            .filter((each) => each.checkVisibility() && !window.reached.has(each))
            .map((each) => each.outerHTML.slice(0, 80))""",
        controls,
    )
    assert left == []
    assert desk.evaluate("window.reached.size") > 40


def test_focus_can_be_seen(desk: "Page") -> None:
    desk.locator(".skip").focus()
    assert desk.locator(".skip").bounding_box()["y"] >= 0  # type: ignore[index]
    desk.keyboard.press("Tab")
    outline = desk.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_points_tell_their_values_to_keyboard_and_mouse(desk: "Page") -> None:
    chart = desk.locator("section", has=desk.locator("> h3", has_text="Forgetting over time")).locator(
        ".wide"
    )
    points, tip = chart.locator(".point"), desk.locator("#tip")
    assert points.count() == 3 * 2
    assert chart.locator(".point[tabindex='0']").count() == 1
    points.first.focus()
    assert tip.is_visible()
    told = tip.text_content() or ""
    assert told.startswith("finetune, 2 tasks learned: ")
    assert (
        chart.locator(".series:not(.mine)").first.evaluate("(line) => getComputedStyle(line).opacity")
        == "0.25"
    )
    desk.keyboard.press("ArrowRight")
    assert (tip.text_content() or "").startswith("finetune, 3 tasks learned: ")
    desk.keyboard.press("End")
    assert (tip.text_content() or "").startswith("pam, 3 tasks learned: ")
    assert desk.evaluate("document.activeElement.getAttribute('aria-label')") == tip.text_content()
    desk.keyboard.press("Escape")
    assert not tip.is_visible()
    assert chart.locator(".mine").count() == 0
    points.nth(2).hover()
    assert (tip.text_content() or "").startswith("average, 2 tasks learned: ")
    desk.mouse.move(2, 2)
    assert not tip.is_visible()


def test_lists_choose_the_matrix_and_the_answers(desk: "Page") -> None:
    matrices = desk.locator(".choices", has=desk.locator("table.heat"))
    shown = matrices.locator("table.heat:visible")
    assert shown.count() == 1
    desk.get_by_role("combobox", name="Method").first.select_option("pam")
    desk.get_by_role("combobox", name="Order and seed").select_option("order-2, seed 1")
    assert shown.count() == 1
    assert shown.locator("caption").text_content() == "pam, order-2, seed 1"
    assert shown.locator("tbody th").all_text_contents()[:2] == ["zero-shot", "after tiny-b"]
    answers = desk.locator("table.stages:visible")
    assert answers.count() == 3 * 4
    desk.get_by_role("combobox", name="Method").nth(1).select_option("average")
    assert answers.count() == 3 * 4
    assert {*answers.locator("caption").all_text_contents()} == {"Answers of average"}


def test_what_was_not_run_is_said(browser: "Browser", tmp_path: Path) -> None:
    report = report_of_grid(orders=2, seeds=1)
    [comparison] = report.comparisons
    part = replace(comparison, matrices=comparison.matrices[:-1])
    file = tmp_path / "index.html"
    file.write_text(page_of(replace(report, comparisons=(part,)), picture), encoding="utf-8")
    page = Opened(browser, file).page
    page.get_by_role("combobox", name="Method").first.select_option("pam")
    page.get_by_role("combobox", name="Order and seed").select_option("order-2, seed 0")
    assert page.locator("table.heat:visible").count() == 0
    assert page.get_by_text("Not run: choose another.").is_visible()
    page.close()


def test_the_button_turns_light_into_dark_and_back(browser: "Browser", report_file: Path) -> None:
    page = Opened(browser, report_file, theme="dark").page
    button = page.get_by_role("button", name="Dark colours")
    background = "getComputedStyle(document.body).backgroundColor"
    assert button.get_attribute("aria-pressed") == "true"
    assert page.evaluate(background) == "rgb(20, 24, 31)"
    button.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="light")
    button.click()
    assert page.evaluate(background) == "rgb(20, 24, 31)"
    page.close()


def test_print_opens_what_is_closed_and_leaves_out_controls(browser: "Browser", report_file: Path) -> None:
    page = Opened(browser, report_file, theme="dark").page
    page.evaluate(
        """() => addEventListener("beforeprint", () => {
            window.closed = document.querySelectorAll("details:not([open], [hidden])").length;
        })"""
    )
    before = page.locator("details[open]").count()
    assert len(page.pdf()) > 10_000
    assert page.evaluate("window.closed") == 0
    assert page.locator("details[open]").count() == before
    page.emulate_media(media="print")
    for hidden in ("nav", ".controls", "#theme", ".skip"):
        assert not page.locator(hidden).first.is_visible()
    assert page.evaluate("getComputedStyle(document.body).colorScheme") == "light"
    assert page.locator("table.heat:visible").count() == 1
    page.close()


def test_without_its_script_everything_is_there(browser: "Browser", report_file: Path) -> None:
    opened = Opened(browser, report_file, java_script_enabled=False)
    page = opened.page
    assert page.locator("svg.chart:visible").count() == 3 + 2 + 3
    assert page.locator("table.sortable:visible").count() == 6
    assert not page.locator(".controls").first.is_visible()
    assert not page.locator("#theme").is_visible()
    panels = page.locator("details.choice:visible")
    assert panels.count() == 3 * 2 * 3 + 3 * 4 * 3
    assert page.locator("table.heat:visible").count() == 1
    panels.nth(1).locator("summary").click()
    assert page.locator("table.heat:visible").count() == 2
    assert page.locator("svg.chart title").first.text_content()
    assert opened.messages == []
    page.close()


def test_motion_is_only_where_it_is_wanted(desk: "Page") -> None:
    behaviour = "getComputedStyle(document.documentElement).scrollBehavior"
    for wanted, expected in (("reduce", "auto"), ("no-preference", "smooth")):
        desk.emulate_media(reduced_motion=wanted)  # type: ignore[arg-type]
        assert desk.evaluate(behaviour) == expected


def test_everything_has_an_accessible_name(desk: "Page") -> None:
    session = desk.context.new_cdp_session(desk)
    tree = session.send("Accessibility.getFullAXTree")["nodes"]
    roles: dict[str, list[str]] = {}
    for node in tree:
        if not node["ignored"]:
            name = node.get("name", {}).get("value", "").strip()
            roles.setdefault(node["role"]["value"], []).append(name)
    for role in ("link", "button", "combobox", "image", "region", "article", "navigation", "table"):
        assert roles[role], f"nothing is a {role}"
        assert all(roles[role]), f"a {role} has no name"
    assert {"banner", "main", "contentinfo", "figure", "heading", "term"} <= roles.keys()
    session.detach()

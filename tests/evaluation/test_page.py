"""The page of a report as text: what it tells, that nothing in it is taken for markup, its bytes and size."""

import math
import re
import time
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pamctl.evaluation.matrix import Missing
from pamctl.evaluation.page import page_of
from pamctl.evaluation.page.elements import VOID, element, escaped, joined, number
from pamctl.evaluation.report import Report, report_of
from pamctl.evaluation.results import Result, TypeScore
from pamctl.evaluation.summary import comparisons_of
from pamctl.training.methods import METHODS
from tests.page_cases import TASKS, no_picture, picture, report_of_grid

ROOT = Path(__file__).parents[2]
HOSTILE = "</script><img src=x onerror=alert(1)>\"'&\u202e"


class Outline(HTMLParser):
    """What a page is made of: its elements with their attributes, its headings, and the words it shows."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[int] = []
        self.words = ""
        self._within = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._within = tag
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_data(self, data: str) -> None:
        if self._within not in ("script", "style"):
            self.words += f"{data} "


@pytest.fixture(scope="module")
def report() -> Report:
    return report_of_grid()


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return page_of(report, picture)


def test_the_same_report_gives_the_same_bytes(report: Report, page: str) -> None:
    assert page_of(report, picture) == page
    assert page_of(report_of_grid(), picture) == page


def test_it_tells_what_was_compared(report: Report, page: str) -> None:
    words = Outline(page).words
    for told in (
        "3 methods on 3 tasks in 2 orders.",
        "tiny-a (exact, n = 400)",
        "order-2: tiny-b → tiny-c → tiny-a",
        "FWT (lopez-paz)",
        "lopez-paz: mean over tasks 2..T",
        "Differences from average",
        "BWT (T - 1) / T = ACC - A_m was checked, and holds, on 12 of 12 matrices",
    ):
        assert told in words
    [comparison] = report.comparisons
    spread = comparison.spread("pam", "ACC")
    assert spread is not None
    assert f"{spread.mean:.2f} ± {spread.std:.2f}" in words


def test_headings_are_in_order_and_ids_unique(page: str) -> None:
    outline = Outline(page)
    assert outline.headings[0] == 1
    assert outline.headings.count(1) == 1
    for before, after in zip(outline.headings, outline.headings[1:], strict=False):
        assert after <= before + 1
    ids = Counter(attributes["id"] for _, attributes in outline.elements if "id" in attributes)
    assert [id for id, count in ids.items() if count > 1] == []
    for name in ("href", "for", "aria-labelledby"):
        for _, attributes in outline.elements:
            target = (attributes.get(name) or "").removeprefix("#")
            assert not target or target in ids


def test_it_loads_nothing_and_forbids_loading(page: str) -> None:
    outline = Outline(page)
    [policy] = [
        attributes["content"] or ""
        for tag, attributes in outline.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    for tag, attributes in outline.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in page
    assert "@import" not in page


def test_what_others_wrote_is_text(report: Report, page: str) -> None:
    hostile = report_of_grid(tasks=(HOSTILE, "b"), orders=1, seeds=1, answer=HOSTILE)
    shown = page_of(replace(hostile, notes=(HOSTILE,), baseline=hostile), picture)
    outline = Outline(shown)
    assert HOSTILE in outline.words
    assert {tag for tag, _ in outline.elements} <= {tag for tag, _ in Outline(page).elements} | {
        "pre",
        "code",
    }
    assert sum(tag == "script" for tag, _ in outline.elements) == 1
    assert "<img src=x" not in shown


def test_halves_of_surrogate_pairs_do_not_stop_it() -> None:
    broken = page_of(report_of_grid(tasks=("a\ud800", "b"), orders=1, seeds=1), picture)
    assert "a?" in broken
    broken.encode()


def test_missing_cells_have_their_commands(report: Report, page: str) -> None:
    [comparison] = report.comparisons
    unknown = np.full(3, np.nan)
    matrices = [
        replace(matrix, zero_shot=unknown, missing=(Missing("base", None, matrix.tasks),))
        for matrix in comparison.matrices
    ]
    words = Outline(page_of(replace(report, comparisons=tuple(comparisons_of(matrices))), picture)).words
    assert "pamctl eval --task tiny-a --task tiny-b --task tiny-c --results results.jsonl" in words
    assert "Missing cells" in words
    assert "n/a" in words
    assert "Missing cells" not in Outline(page).words


def test_a_baseline_is_compared(report: Report) -> None:
    words = Outline(page_of(replace(report, baseline=report), picture)).words
    assert "Differences from the baseline" in words
    assert re.search(r"0 of the \d+ cells that both have differ\.", words)
    assert "the baseline" not in Outline(page_of(report, picture)).words


def test_every_figure_has_words_and_numbers(page: str) -> None:
    outline = Outline(page)
    charts = [
        attributes for tag, attributes in outline.elements if "chart" in (attributes.get("class") or "")
    ]
    assert len(charts) == 2 + 2 + 2 + 2 + 3
    assert all(len(chart["aria-label"] or "") > 15 for chart in charts)
    for title in (
        "Forgetting over time",
        "Accuracy by order",
        "Stability and plasticity",
        "Conflicts by layer",
        "Training curves",
    ):
        assert f"Numbers of “{title}”" in outline.words


@pytest.mark.parametrize("score", [0.0, 50.0, 100.0])
def test_scores_that_do_not_differ_are_drawn(report: Report, score: float) -> None:
    [comparison] = report.comparisons
    matrices = [
        replace(
            matrix,
            after=np.full((3, 3), score),
            trained=np.full(3, score),
            zero_shot=np.full(3, score),
        )
        for matrix in comparison.matrices
    ]
    page = page_of(replace(report, comparisons=tuple(comparisons_of(matrices))), no_picture)
    assert "nan" not in page
    assert "Stability and plasticity" in page
    words = Outline(page).words
    assert "After 3 tasks the same is forgotten by every method (0.0)." in words
    assert "The order matters the same to every method (0.0 points between orders)." in words


def test_captions_name_every_method_that_shares_an_end(report: Report) -> None:
    [comparison] = report.comparisons
    lost = {"finetune": 30.0, "average": 0.0, "pam": 0.0}
    matrices = [
        replace(matrix, after=50.0 - lost[matrix.method] * np.tril(np.ones((3, 3)), -1))
        for matrix in comparison.matrices
    ]
    words = Outline(page_of(replace(report, comparisons=tuple(comparisons_of(matrices))), no_picture)).words
    told = "the least is forgotten by average, pam (0.0), the most by finetune (30.0)."
    assert f"After 3 tasks {told}" in words


def test_a_loss_that_is_no_number_is_not_drawn(report: Report) -> None:
    whole = report.curves[0]
    broken = [
        replace(whole, task=f"broken-{bad}", loss=(1.0, bad), steps=(1, 2)) for bad in (math.nan, math.inf)
    ]
    words = Outline(page_of(replace(report, curves=(whole, *broken)), no_picture)).words
    assert "Training curves" in words
    assert "broken" not in words


def test_every_two_systems_are_compared_up_to_a_limit(report: Report) -> None:
    [comparison] = report.comparisons
    matrices = [replace(matrix, run=f"run {run}") for run in range(5) for matrix in comparison.matrices]
    shown = page_of(replace(report, comparisons=tuple(comparisons_of(matrices))), no_picture)
    assert "pam (run 1) - finetune (run 0)" in shown
    pairs, metrics = 15 * 14 // 2, 3
    assert f"{pairs * metrics - 300} more are in report.md" in shown


def test_one_task_has_no_figure_of_forgetting() -> None:
    words = Outline(page_of(report_of_grid(tasks=("a",), orders=1, seeds=1), no_picture)).words
    assert "Forgetting over time" not in words
    assert "Stability and plasticity" not in words
    assert "Accuracy by order" in words


def test_cells_that_lack_leave_gaps_in_figures(report: Report) -> None:
    [comparison] = report.comparisons
    matrices = [replace(matrix, after=np.full((3, 3), np.nan)) for matrix in comparison.matrices]
    page = page_of(replace(report, comparisons=tuple(comparisons_of(matrices))), no_picture)
    assert "<td>n/a" in page
    assert "nan" not in page


def test_results_outside_any_sequence_are_told() -> None:
    single = Report((Result("tiny-a", "trained", (), "exact", 50.0, 4, method="finetune"),), (), ())
    words = Outline(page_of(single, no_picture)).words
    assert "Scores outside any sequence" in words
    assert "finetune" in words
    assert "50.00" in words


def test_methods_without_a_sequence_stand_in_the_tables() -> None:
    page = page_of(report_of([ROOT / "fixtures/embedded_results/results.jsonl"]), no_picture)
    words = Outline(page).words
    assert "multitask" in words
    assert "18 methods on 6 tasks in 3 orders." in words
    assert "Examples" not in words


def test_a_grid_of_the_paper_s_size_is_small_and_quick() -> None:
    methods = [name for name, method in METHODS.items() if method.continues][:12]
    tasks = [f"benchmark-{number}" for number in range(10)]
    report = report_of_grid(methods, tasks, orders=3, seeds=5)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8))
    began = time.process_time()
    page = page_of(report, lambda task, id: noise)
    assert time.process_time() - began < 4
    assert len(page.encode()) < 3_000_000


def test_style_and_script_are_in_the_package() -> None:
    folder = files("pamctl") / "assets" / "report"
    assert {"style.css", "page.js"} <= {file.name for file in folder.iterdir()}


@pytest.mark.parametrize(
    ("made", "written"),
    [
        (element("p", "a < b & c"), "<p>a &lt; b &amp; c</p>"),
        (element("p", element("b", "x"), [1, None, ["y"]]), "<p><b>x</b>1y</p>"),
        (element("td", "x", class_="best", hidden=True, id=None), "<td class=best hidden>x"),
        (element("img", src="a b", alt='"'), '<img src="a b" alt="&quot;">'),
        (element("p", aria_label="", data_x="-1"), '<p aria-label="" data-x=-1></p>'),
        (joined("<", None, 2.5), "&lt;2.5"),
        (escaped("\ud800'"), "?&#x27;"),
    ],
)
def test_elements_are_written_escaped(made: str, written: str) -> None:
    assert made == written


def test_void_elements_have_no_end() -> None:
    assert all(element(name) == f"<{name}>" for name in VOID)


@pytest.mark.parametrize(
    ("value", "written"), [(1.0, "1"), (2.349, "2.3"), (-0.04, "0"), (0.05, "0.1"), (-1.25, "-1.2")]
)
def test_places_are_told_to_a_tenth_of_a_pixel(value: float, written: str) -> None:
    assert number(value) == written


def test_scores_by_type_and_what_was_unread_have_tables(report: Report) -> None:
    (comparison,) = report.comparisons
    told = Result(
        "tiny-a", "trained", TASKS, "scienceqa", 50.0, 8, types={"count": TypeScore(25.0, 4)}, unread=2
    )
    matrices = tuple(replace(matrix, finals={"tiny-a": told}) for matrix in comparison.matrices)
    words = Outline(
        page_of(replace(report, comparisons=(replace(comparison, matrices=matrices),)), picture)
    ).words
    assert "tiny-a by type of question, after the last task" in words
    assert "Predictions that no answer could be read from" in words
    assert re.search(r"method .*count .*mean of types", words)
    # each of the methods, in both tables: 25 % right, and 2 of 8 not read
    assert words.count("25.00 ± 0.00") == 3 * len(comparison.systems)

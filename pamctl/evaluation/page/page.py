"""One self-contained page of a report: it loads nothing, and shows all of it without its script as well."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

from pamctl import __version__
from pamctl.evaluation.counted import counted
from pamctl.evaluation.page.answered import Known, known_predictions
from pamctl.evaluation.page.charts.balance import balance_figure
from pamctl.evaluation.page.charts.conflicts import conflicts_figure
from pamctl.evaluation.page.charts.curves import curves_figure
from pamctl.evaluation.page.charts.forgetting import forgetting_figure
from pamctl.evaluation.page.charts.heat_map import heat_maps
from pamctl.evaluation.page.charts.look import definitions
from pamctl.evaluation.page.charts.orders import orders_figure
from pamctl.evaluation.page.closing import closing_sections
from pamctl.evaluation.page.elements import Html, element, identifier
from pamctl.evaluation.page.examples import examples_section
from pamctl.evaluation.page.figure import Looks
from pamctl.evaluation.page.overview import facts, number_sections
from pamctl.evaluation.page.pictures import Pictures
from pamctl.evaluation.page.section import Section
from pamctl.evaluation.summary import Comparison, in_order_of_methods

if TYPE_CHECKING:
    from pamctl.evaluation.report import Report

TITLE = "Continual learning report"


def page_of(report: "Report", pictures: Pictures) -> str:
    """The whole text of index.html; the same report gives the same text.

    Args:
        pictures: the picture of a task's example, None where it is not at hand; asked of those shown only.
    """
    style, script = (_asset(name) for name in ("style.css", "page.js"))
    sections = list(_sections(report, pictures))
    body = element(
        "body",
        element("a", "Skip to the results", href="#main", class_="skip"),
        _header(report),
        _contents(sections),
        element("main", definitions(), [section.shown() for section in sections], id="main", tabindex=-1),
        element("footer", element("p", f"Written by pamctl {__version__}.")),
        element("div", id="tip", hidden=True, aria_hidden="true"),
        element("script", Html(script)),
    )
    return f"<!doctype html>\n{element('html', _head(style, script), body, lang='en')}\n"


def _head(style: str, script: str) -> Html:
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", TITLE),
        element("style", Html(style)),
    )


def _header(report: "Report") -> Html:
    counts = [
        f"{counted(len(comparison.systems), 'method')} on {counted(len(comparison.tasks), 'task')} in "
        f"{counted(len(comparison.orders), 'order')}"
        for comparison in report.comparisons
    ]
    lead = "; ".join(counts) or "Scores of adapters that are in no sequence"
    button = element("button", "Dark colours", type="button", id="theme", hidden=True, aria_pressed="false")
    return element("header", element("div", element("h1", TITLE), button), element("p", f"{lead}."))


def _contents(sections: Sequence[Section]) -> Html:
    return element("nav", element("ul", [section.link() for section in sections]), aria_label="Contents")


def _sections(report: "Report", pictures: Pictures) -> Iterator[Section]:
    looks = looks_of(report)
    known = known_predictions(report.predictions)
    for place, comparison in enumerate(report.comparisons, start=1):
        id = identifier("comparison", place)
        parts = [
            *number_sections(comparison, report, id),
            *_figures(comparison, looks, id),
            *_examples(comparison, known, pictures, id),
        ]
        yield Section(id, ", ".join(comparison.tasks), facts(comparison, report.results), parts)
    tasks = list(dict.fromkeys(task for comparison in report.comparisons for task in comparison.tasks))
    if trainings := [
        *conflicts_figure(report.conflicts, looks, "conflicts"),
        *curves_figure(report.curves, looks, tasks, "curves"),
    ]:
        yield Section("training", "Training", parts=trainings)
    yield from closing_sections(report)


def looks_of(report: "Report") -> Looks:
    """The number of the colour and mark of every system, the same in all figures."""
    names = [system for comparison in report.comparisons for system in comparison.sequential]
    names += [each.system for each in report.conflicts] + [curve.system for curve in report.curves]
    return {name: place for place, name in enumerate(in_order_of_methods(names))}


def _figures(comparison: Comparison, looks: Looks, id: str) -> Iterator[Section]:
    yield from forgetting_figure(comparison, looks, identifier(id, "forgetting"))
    yield from balance_figure(comparison, looks, identifier(id, "balance"))
    yield from orders_figure(comparison, identifier(id, "orders"))
    yield from heat_maps(comparison, identifier(id, "matrices"))


def _examples(comparison: Comparison, known: Known, pictures: Pictures, id: str) -> Iterator[Section]:
    yield from examples_section(comparison, known, pictures, identifier(id, "examples"))


def _asset(name: str) -> str:
    return (files("pamctl") / "assets" / "report" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """What a content security policy calls this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

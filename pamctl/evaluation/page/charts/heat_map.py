"""Accuracy matrices as heat maps: tables whose cells are coloured by their score."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pamctl.evaluation.matrix import AccuracyMatrix
from pamctl.evaluation.page.choices import Lists
from pamctl.evaluation.page.elements import Html, element
from pamctl.evaluation.page.section import Section
from pamctl.evaluation.page.tables import boxed
from pamctl.evaluation.summary import Comparison
from pamctl.evaluation.tables import NOT_AVAILABLE

CAPTION = (
    "The score (%) on each task (across) after each task was learned (down), zero-shot first; the outlined "
    "cell is the task just learned. Read a column downwards from its outlined cell to see what was forgotten."
)
MOST = 400
"""With more matrices than this, those of single seeds are left out where a mean stands for them."""
HALF = 7
"""Up to so many tasks a matrix takes half of a wide page."""


@dataclass(frozen=True)
class Sheet:
    """One matrix to show: of one seed, or the mean over several.

    Attributes:
        first: whether it stands for its method and order.
    """

    system: str
    sequence: str
    tasks: tuple[str, ...]
    after: np.ndarray
    trained: np.ndarray
    zero_shot: np.ndarray
    first: bool


def heat_maps(comparison: Comparison, id: str) -> Iterator[Section]:
    """The matrices of every method, order and seed, of which the page shows the one chosen."""
    found = [sheet for system in comparison.sequential for sheet in _sheets(comparison, system)]
    sheets = found if len(found) <= MOST else [sheet for sheet in found if sheet.first]
    if not sheets:
        return
    left_out = None if len(sheets) == len(found) else element("p", "Those of single seeds are in matrix.csv.")
    methods, sequences = ({getattr(sheet, name): None for sheet in sheets} for name in ("system", "sequence"))
    lists = Lists(f"{id}-choices", {"Method": list(methods), "Order and seed": list(sequences)})
    panels = [lists.panel(_table(sheet), sheet.system, sheet.sequence) for sheet in sheets]
    figure = element("figure", lists.around(panels), element("figcaption", CAPTION, left_out))
    yield Section(id, "Accuracy matrices", figure, kind="half" if len(comparison.tasks) <= HALF else None)


def _sheets(comparison: Comparison, system: str) -> Iterator[Sheet]:
    for order in comparison.orders:
        found = [matrix for matrix in comparison.of(system, order) if matrix.kind == "sequence"]
        averaged = len(found) > 1 and len({matrix.tasks for matrix in found}) == 1
        if averaged:
            yield _sheet(found, f"{order}, mean of {len(found)} seeds", first=True)
        for number, matrix in enumerate(found, start=1):
            seed = f"no seed, {number}" if matrix.seed is None else f"seed {matrix.seed}"
            yield _sheet([matrix], f"{order}, {seed}", first=not averaged)


def _sheet(found: Sequence[AccuracyMatrix], sequence: str, *, first: bool) -> Sheet:
    """The mean of some matrices over the same tasks; a cell that one of them lacks is missing."""
    after, trained, zero_shot = (
        np.mean([getattr(matrix, name) for matrix in found], axis=0)
        for name in ("after", "trained", "zero_shot")
    )
    return Sheet(found[0].system, sequence, found[0].tasks, after, trained, zero_shot, first)


def _table(sheet: Sheet) -> Html:
    head = element("tr", element("td"), [element("th", task, scope="col") for task in sheet.tasks])
    rows = [_row("zero-shot", sheet.zero_shot, None)]
    rows += [_row(f"after {task}", sheet.after[t], t) for t, task in enumerate(sheet.tasks)]
    if not np.array_equal(sheet.trained, np.diag(sheet.after), equal_nan=True):
        rows.append(_row("before merging", sheet.trained, None))
    caption = f"{sheet.system}, {sheet.sequence}"
    table = element(
        "table",
        element("caption", caption),
        element("thead", head),
        element("tbody", rows),
        class_="heat",
    )
    return boxed(table, f"Accuracy matrix of {caption}")


def _row(name: str, scores: np.ndarray, learned: int | None) -> Html:
    cells = [_cell(float(score), place == learned) for place, score in enumerate(scores)]
    return element("tr", element("th", name, scope="row"), cells)


def _cell(score: float, learned: bool) -> Html:
    if np.isnan(score):
        return element("td", NOT_AVAILABLE)
    shade = f"h{round(min(max(score, 0), 100) / 10)}"
    return element("td", f"{score:.1f}", class_=f"{shade} learned" if learned else shade)

"""Stability against plasticity on the page: no name of a line of the same ACC is covered."""

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from pamctl.evaluation.page.charts.balance import balance_figure
from pamctl.evaluation.page.charts.nearby import Box
from pamctl.evaluation.page.charts.text import FONT, width_of
from pamctl.evaluation.page.page import looks_of
from pamctl.evaluation.summary import comparisons_of
from pamctl.training.methods import METHODS
from tests.page_cases import report_of_grid

CROWD = tuple(name for name, method in METHODS.items() if method.continues)


class Drawing(HTMLParser):
    """What the marks, their names and the names of the lines cover, of every drawing on its own."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.drawings: list[tuple[list[Box], list[Box]]] = []
        self._place: tuple[float, float] | None = None
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        at = dict(attrs)
        if tag == "svg":
            self.drawings.append(([], []))
        place = float(at.get("x") or 0), float(at.get("y") or 0)
        if tag == "use":
            x, y = place
            self.drawings[-1][1].append(Box(x - 4, y - 4, x + 4, y + 4))
        named = tag == "text" and at["class"] in ("tick", "label")
        self._place = place if named else None

    def handle_data(self, data: str) -> None:
        if self._place is not None:
            x, y = self._place
            lines, others = self.drawings[-1]
            box = Box(x, y - FONT, x + width_of(data), y)
            if data.startswith("ACC "):
                lines.append(box)
            elif any(letter.isalpha() for letter in data):
                others.append(box)
        self._place = None


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("methods", [("finetune", "average", "pam"), CROWD], ids=["few", "many"])
def test_no_mark_and_no_name_of_one_lies_on_the_name_of_a_line(methods: tuple[str, ...], seed: int) -> None:
    shifts = dict(zip(methods, np.random.default_rng(seed).normal(0, 8, len(methods)), strict=True))
    report = report_of_grid(methods)
    [comparison] = report.comparisons
    matrices = [replace(matrix, after=matrix.after + shifts[matrix.method]) for matrix in comparison.matrices]
    [comparison] = comparisons_of(matrices)
    [section] = balance_figure(comparison, looks_of(report), "balance")
    wide, narrow = Drawing(section.shown()).drawings
    for lines, others in (wide, narrow):
        assert lines
        assert len(others) == 2 * len(methods)
        assert all(line.is_free_of(others) for line in lines)

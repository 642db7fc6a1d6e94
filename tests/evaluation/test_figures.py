"""Figures: where things stand in them, and that a series looks the same in each."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pamctl.evaluation.conflicts import LayerConflicts
from pamctl.evaluation.curves import FIRST, Curve
from pamctl.evaluation.figures import write_figures
from pamctl.evaluation.figures.conflicts import layer_names
from pamctl.evaluation.figures.drawing import look, looks_of
from pamctl.evaluation.figures.matrices import Layout, layout_of
from pamctl.evaluation.figures.tradeoff import stability_plasticity
from pamctl.evaluation.matrix import matrices_of
from pamctl.evaluation.report import report_of
from pamctl.evaluation.results import Result, append_results
from pamctl.evaluation.summary import Comparison, comparisons_of


def comparison(systems: int, orders: int, tasks: int) -> Comparison:
    """Every system in every order, each task 80 when learned and 10 less after each of the next."""
    names = [f"task-{number:02d}" for number in range(tasks)]
    results = [
        Result(
            task,
            "trained",
            learned,
            "exact",
            80.0 - 5 * (t - i),
            4,
            method=f"m{system:02d}",
            order=str(order),
        )
        for system in range(systems)
        for order in range(orders)
        for t in range(tasks)
        for learned in [tuple(names[order:] + names[:order])[: t + 1]]
        for i, task in enumerate(learned)
    ]
    (one,) = comparisons_of(matrices_of(results)[0])
    return one


def blocks(layout: Layout) -> list[tuple[float, float, float, float]]:
    """Left, top, right and bottom of every matrix, with what is written beside and above it."""
    width, height = layout.block
    found = []
    for system in range(layout.systems):
        for order in range(layout.orders):
            left, top = layout.place(system, order)
            beside = layout.beside if order == 0 or not layout.small else 0.0
            found.append((left - beside, top - 0.2, left + width, top + height))
    return found


@pytest.mark.parametrize(
    ("systems", "orders", "tasks", "small"),
    [(1, 1, 1, False), (5, 3, 10, False), (7, 3, 2, True), (18, 3, 6, True)],
)
def test_matrices_stand_apart_and_inside_the_figure(
    systems: int, orders: int, tasks: int, small: bool
) -> None:
    layout = layout_of(comparison(systems, min(orders, tasks), tasks))
    assert layout.small is small
    width, height = layout.size
    places = blocks(layout)
    for left, top, right, bottom in places:
        assert left >= 0
        assert top >= 0
        assert right < width
        assert bottom + layout.below <= height + 1e-9
    for number, (left, top, right, bottom) in enumerate(places):
        for other in places[number + 1 :]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


def test_the_names_below_the_first_matrix_have_room_to_the_left() -> None:
    layout = layout_of(comparison(7, 2, 3))
    left, _ = layout.place(0, 0)
    assert left >= layout.below


def test_looks_differ_and_stay_with_their_system() -> None:
    assert len({look(index) for index in range(56)}) == 56
    assert looks_of(["a", "b", "a"])["b"] == look(1)


def test_layers_are_numbered_and_parts_named_where_there_are_several() -> None:
    assert layer_names(["language_model.layers.0", "language_model.layers.11"]) == ["0", "11"]
    both = ["language_model.layers.0", "vision_tower.encoder.layers.2"]
    assert layer_names(both) == ["language 0", "vision 2"]


def test_lines_of_equal_accuracy_are_those_of_the_identity() -> None:
    """BWT (T - 1) / T = ACC - A_m: each line is named by ACC, which is the same at both of its ends."""
    one = comparison(2, 1, 3)
    figure = stability_plasticity(one, looks_of(one.systems))
    assert figure is not None
    (axes,) = figure.axes
    lines = [line for line in axes.lines if line.get_color() == "0.85"]
    named = [float(text.get_text()) for text in axes.texts]
    assert len(lines) == len(named) > 1
    for line, accuracy in zip(lines, named, strict=True):
        learned, kept = map(np.asarray, line.get_data())
        np.testing.assert_allclose(learned + kept * 2 / 3, accuracy)


def test_a_method_without_both_has_no_place_between_stability_and_plasticity() -> None:
    one = comparison(1, 1, 1)
    assert stability_plasticity(one, looks_of(one.systems)) is None


def test_conflicts_and_curves_are_drawn_where_they_are_known(tmp_path: Path) -> None:
    append_results(tmp_path / "r.jsonl", [Result("a", "trained", ("a",), "exact", 60.0, 4, method="pam")])
    shares = {"a": (1.0, None), "b": (2.0, 3.0)}
    report = replace(
        report_of([tmp_path / "r.jsonl"]),
        conflicts=(LayerConflicts("pam", ("m.layers.0", "m.layers.1"), shares, shares, 2),),
        curves=tuple(Curve(system, None, 0, "a", (1, 2), (3.0, 2.0)) for system in ("pam", FIRST, "mine")),
    )
    drawn = write_figures(report, tmp_path)
    assert drawn.of_trainings == ("conflicts-by-layer", "training-curves")
    assert drawn.by_comparison == (("accuracy-by-order", "matrices"),)
    for name in drawn.of_trainings:
        assert "<!-- pam -->" in (tmp_path / f"{name}.svg").read_text()
        with Image.open(tmp_path / f"{name}.png") as image:
            assert len(image.convert("L").getcolors() or []) > 20

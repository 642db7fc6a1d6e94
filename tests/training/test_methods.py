"""The table of methods: each is a point on three axes, and the command line offers exactly these."""

import pytest

from pamctl.cli.train_task import train_task
from pamctl.refusal import UsageRefusal
from pamctl.training.methods import FIRST_TASK, METHODS, method_named


def test_the_paper_s_methods_on_the_axes() -> None:
    rows = {method.name: (method.start, method.aligns, method.merge) for method in METHODS.values()}
    assert rows == {
        "finetune": ("previous", False, None),
        "average": ("global", False, "average"),
        "pam": ("global", True, "average"),
    }


def test_a_first_task_neither_aligns_nor_merges() -> None:
    assert not FIRST_TASK.aligns
    assert FIRST_TASK.merge is None


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageRefusal) as refused:
        method_named("ewc")
    assert "'ewc'" in refused.value.what
    assert "finetune, average, pam" in refused.value.way_on


def test_the_command_line_offers_every_method() -> None:
    option = next(parameter for parameter in train_task.params if parameter.name == "method")
    assert set(option.type.choices) == set(METHODS)  # type: ignore[attr-defined]

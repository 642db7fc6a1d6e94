"""The table of methods: each is a point on four axes, and the command line takes exactly these."""

from pathlib import Path

import pytest

from pamctl.cli.errors import exit_code_of
from pamctl.cli.main import pamctl
from pamctl.refusal import UsageRefusal
from pamctl.training.methods import METHODS, PLAIN, Method, method_named

AVERAGE = {"method": "average"}
TALL = {"method": "tall", "lambda": 0.1, "k": 2}
TIES = {"method": "ties", "density": 0.9, "scope": "global"}


def test_the_paper_s_methods_on_the_axes() -> None:
    rows = {method.name: (method.start, method.aligns, method.merge) for method in METHODS.values()}
    assert rows == {
        "finetune": ("previous", False, None),
        "average": ("global", False, AVERAGE),
        "pam": ("global", True, AVERAGE),
        "ties": ("global", False, TIES),
        "tall": ("global", False, TALL),
        "tall+pam": ("global", True, TALL),
        "magmax": ("previous", False, {"method": "magmax"}),
        "lwf": ("previous", False, None),
        "lwf+pam": ("global", True, AVERAGE),
        "l2": ("previous", False, None),
        "finetune+align": ("previous", True, None),
        "ilora": ("previous", False, None),
        "olora": ("fresh", False, None),
        "moelora": ("previous", False, None),
        "er": ("previous", False, None),
        "er+pam": ("global", True, AVERAGE),
        "independent": ("fresh", False, None),
        "multitask": ("fresh", False, None),
    }


def test_what_a_method_adds_to_training() -> None:
    plain = {"terms": (), "replays": False, "decay": 0.0, "adapter": "single"}
    rows = {
        method.name: {name: getattr(method, name) for name in plain if getattr(method, name) != plain[name]}
        for method in METHODS.values()
    }
    assert {name: row for name, row in rows.items() if row} == {
        "lwf": {"terms": ("lwf",)},
        "lwf+pam": {"terms": ("lwf",)},
        "l2": {"terms": ("l2",)},
        "ilora": {"decay": 0.25},
        "olora": {"terms": ("orth",), "adapter": "stack"},
        "moelora": {"adapter": "moe"},
        "er": {"replays": True},
        "er+pam": {"replays": True},
    }


def test_what_needs_the_adapter_that_was_merged() -> None:
    assert {name for name, method in METHODS.items() if method.needs_previous} == {"magmax", "er+pam"}


def test_what_goes_on_from_no_adapter() -> None:
    alone = {name: method.at_once for name, method in METHODS.items() if not method.continues}
    assert alone == {"independent": False, "multitask": True}
    assert not any(method.at_once for method in METHODS.values() if method.continues)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_first_task_starts_fresh_and_neither_aligns_nor_merges_nor_adds_a_term(method: Method) -> None:
    first = method.first()
    assert (first.start, first.aligns, first.merge, first.terms) == ("fresh", False, None, ())


def test_the_first_task_is_one_and_the_same_unless_a_method_needs_more_of_it() -> None:
    own = {name for name, method in METHODS.items() if method.first() != PLAIN}
    assert own == {"ilora", "olora", "moelora", "er", "er+pam", "independent", "multitask"}
    assert (PLAIN.name, PLAIN.start) == ("finetune", "fresh")
    for name in own:
        first, method = METHODS[name].first(), METHODS[name]
        assert (first.name, first.replays, first.decay, first.adapter) == (
            name,
            method.replays,
            method.decay,
            method.adapter,
        )


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageRefusal) as refused:
        method_named("ewc")
    assert "'ewc'" in refused.value.what
    assert "finetune, average, pam" in refused.value.way_on


@pytest.mark.parametrize("method", METHODS)
def test_the_command_line_takes_every_method(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["train-task", "nothing.jsonl", "-o", str(tmp_path / "out"), "--method", method]
    assert exit_code_of(lambda: pamctl(given, standalone_mode=False)) == 2
    # A method that it did not take would be refused before the task is looked for.
    assert "no task is named nothing.jsonl" in capsys.readouterr().err

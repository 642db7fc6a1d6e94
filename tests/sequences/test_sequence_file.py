"""What a sequence file may say, and what of it is refused, by file and key."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from pamctl.cli.train_task import train_task
from pamctl.refusal import UsageRefusal
from pamctl.sequences import shipped
from pamctl.sequences.grid import cells_of, units_of
from pamctl.sequences.keys import SETTINGS, flags, over
from pamctl.sequences.sequence_file import read_sequence, sequence_of
from pamctl.sequences.steps import Train
from pamctl.sequences.task_places import located
from pamctl.tasks.embedded import ORDERS
from pamctl.training.methods import METHODS

PLAIN: dict[str, Any] = {"tasks": ["tiny-gqa", "tiny-vqav2"], "methods": ["pam"]}


def refused(**changed: Any) -> str:
    with pytest.raises(UsageRefusal) as refusal:
        sequence_of({**PLAIN, **changed}, "mine.toml")
    return f"{refusal.value.what} / {refusal.value.way_on}"


def test_the_least_that_a_file_says() -> None:
    file = sequence_of(PLAIN, "mine.toml")
    assert dict(file.orders) == {"order-1": ("tiny-gqa", "tiny-vqav2")}
    assert file.seeds == (0,)
    assert [system.label for system in file.systems] == ["pam"]
    assert located(file) == {"tiny-gqa": "tiny-gqa", "tiny-vqav2": "tiny-vqav2"}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"seedz": [1]}, "mine.toml: seedz is not known / did you mean seeds?"),
        ({"settings": {"align_evry": 5}}, "mine.toml: [settings]: align_evry is not known / did you mean"),
        ({"settings": {"learning_rate": 0.1}}, "mine.toml: [settings]: learning_rate is not known"),
        ({"settings": {"top_p": 150}}, "mine.toml: [settings]: --top-p is 150"),
        ({"settings": {"steps": "5"}}, "mine.toml: [settings]: steps is '5' / give a whole number"),
        ({"settings": {"steps": True}}, "mine.toml: [settings]: steps is True"),
        ({"settings": {"term": [1]}}, "mine.toml: [settings]: term is [1]"),
        ({"settings": {"steps": 5, "epochs": 1}}, "mine.toml: [settings]: --steps and --epochs"),
        ({"settings": {"seed": 1}}, "mine.toml: [settings]: seed is not known"),
        ({"methods": ["pan"]}, "[[methods]] number 1 (pan): no method is called 'pan' / "),
        ({"methods": [{"run": "x"}]}, "mine.toml: [[methods]] number 1 has no name"),
        ({"methods": [{"name": "pam", "topp": 5}]}, "(pam): topp is not known / did you mean top_p?"),
        ({"methods": [{"name": "pam", "dtype": "f32"}]}, "(pam): dtype is not known"),
        ({"methods": [{"name": "pam", "merge": {"method": "tiez"}}]}, "(pam): merge: "),
        ({"methods": [{"name": "pam", "merge": "ties"}]}, "(pam): merge is 'ties'"),
        ({"methods": [{"name": "pam", "orders": ["order-2"]}]}, "(pam): orders: order-2 is not known"),
        ({"methods": [{"name": "pam", "seeds": [3]}]}, "(pam): seeds has 3"),
        ({"methods": [{"name": "pam", "run": "../x"}]}, "(pam): run is no name for a folder"),
        ({"methods": [{"name": "pam", "adapter": "moe"}]}, "mine.toml: pam: --adapter moe and"),
        ({"methods": ["pam", "pam"]}, "two [[methods]] are called pam"),
        ({"methods": []}, "mine.toml has no methods"),
        ({"tasks": ["tiny-gqa"]}, "mine.toml: tasks is ['tiny-gqa']"),
        ({"tasks": ["tiny-gqa", "tiny-gqa"]}, "each once"),
        ({"tasks": {"tiny-gqa": {}}}, "mine.toml lists no tasks"),
        ({"orders": {"a": ["x", "y"]}}, "tasks and orders both list tasks"),
        ({"tasks": {"z": {}}, "orders": {"a": ["x", "y"]}}, "mine.toml: [tasks]: z is not known"),
        ({"tasks": {"x": {"rank": 2}}, "orders": {"a": ["x", "y"]}}, "[tasks.x]: rank is not known"),
        ({"tasks": {}, "orders": {"alone": ["x", "y"]}}, "an order is called alone"),
        ({"seeds": [0, 0]}, "mine.toml: seeds is [0, 0]"),
        ({"seeds": [-1]}, "mine.toml: seeds is [-1]"),
        ({"base": 3}, "mine.toml: base is 3"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_by_file_and_key(changed: dict[str, Any], told: str) -> None:
    assert told in refused(**changed)


def test_no_file_and_no_toml_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageRefusal, match="No such file") as refusal:
        read_sequence("embeded")
    assert "embedded" in refusal.value.way_on
    (tmp_path / "bad.toml").write_text("tasks = [")
    with pytest.raises(UsageRefusal, match=r"bad\.toml is not TOML"):
        read_sequence(str(tmp_path / "bad.toml"))


def test_of_steps_and_epochs_the_more_special_one_counts() -> None:
    assert over({"epochs": 3, "batch_size": 2}, {"steps": 5}) == {"batch_size": 2, "steps": 5}
    table = {
        "orders": {"a": ["tiny-gqa", "tiny-vqav2"]},
        "tasks": {"tiny-gqa": {"epochs": 2, "label_smoothing": 0.1}},
        "settings": {"steps": 7, "lr": 0.5},
        "methods": [{"name": "pam", "label_smoothing": 0.2}],
    }
    file = sequence_of(table, "mine.toml")
    (pam,) = file.systems
    assert file.settings_of(pam, ("tiny-gqa",)) == {"learning_rate": 0.5, "epochs": 2, "label_smoothing": 0.2}
    assert file.settings_of(pam, ("tiny-vqav2",)) == {
        "steps": 7,
        "learning_rate": 0.5,
        "label_smoothing": 0.2,
    }


def test_tasks_learned_at_once_need_one_recipe() -> None:
    table = {
        "orders": {"a": ["tiny-gqa", "tiny-vqav2"]},
        "tasks": {"tiny-gqa": {"epochs": 2}},
        "methods": ["multitask"],
    }
    with pytest.raises(UsageRefusal, match="learns all tasks at once, and their epochs differ"):
        sequence_of(table, "mine.toml")
    sequence_of({**table, "methods": [{"name": "multitask", "steps": 3}]}, "mine.toml")


def test_every_key_is_a_flag_of_train_task() -> None:
    options = {option: parameter for parameter in train_task.params for option in parameter.opts}
    for key, name in SETTINGS.items():
        assert options[f"--{key.replace('_', '-')}"].name == name


def test_flags_say_the_settings() -> None:
    settings = {"learning_rate": 0.5, "terms": ("lwf:weight=2", "l2"), "align": False, "align_at_end": True}
    assert flags(settings) == [  # type: ignore[arg-type]
        "--lr", "0.5", "--term", "lwf:weight=2", "--term", "l2", "--no-align", "--align-at-end"
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["embedded", "coin-1", "coin-2", "coin-3", "coin-extended", "video"])
def test_shipped_files_plan_every_method(name: str, tmp_path: Path) -> None:
    file = read_sequence(name)
    for task in file.tasks:
        (tmp_path / task).mkdir()
    assert {*located(file, str(tmp_path))} == {*file.tasks}
    assert {system.method for system in file.systems} == {*METHODS}
    cells = cells_of(file)
    assert {cell.system.method for cell in cells} == {*METHODS}
    units = units_of(file, cells)
    outs = [step.out for unit in units for step in unit.steps if isinstance(step, Train)]
    assert len({*outs}) == len(outs)
    before: set[str] = set()
    for unit in units:
        assert before.issuperset(unit.needs)
        before.add(unit.name)


def test_the_embedded_sequence_has_the_embedded_orders() -> None:
    file = read_sequence("embedded")
    assert tuple(file.orders.values()) == ORDERS
    assert len(cells_of(file)) == 3 * (6 * 4 + 12 * 2)


def test_the_paper_s_recipes() -> None:
    ext, video = read_sequence("coin-extended"), read_sequence("video")
    table = {
        name: tuple(
            entry.settings[key] for key in ("epochs", "batch_size", "weight_decay", "label_smoothing")
        )  # type: ignore[literal-required]
        for file in (ext, video)
        for name, entry in file.tasks.items()
    }
    assert table == {
        "scienceqa": (20, 128, 0, 0), "textvqa": (5, 256, 0, 0), "gqa": (1, 256, 0, 0),
        "vizwiz": (10, 256, 0, 0), "vqav2": (10, 256, 1e-6, 0), "ocrvqa": (3, 128, 0, 0),
        "rsvqa-lr": (3, 256, 0, 0.2), "ai2d": (10, 256, 1e-6, 0), "okvqa": (10, 128, 0, 0),
        "aokvqa-mc": (15, 128, 0, 0), "activitynet-qa": (1, 128, 1e-6, 0), "msrvtt-qa": (1, 128, 0, 0),
        "msvd-qa": (1, 128, 3e-7, 0),
    }  # fmt: skip
    for name in ("coin-1", "coin-2", "coin-3"):
        tables = tomllib.loads((shipped.FOLDER / f"{name}.toml").read_text())["tasks"]
        assert all(tuple(recipe.values()) == table[task] for task, recipe in tables.items())


def test_every_shipped_file_is_whole() -> None:
    for name in shipped.names():
        assert cells_of(read_sequence(name))

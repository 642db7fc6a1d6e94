"""Which steps each method's cell is made of, and what cells share."""

from typing import Any

import pytest

from pamctl.sequences.commands import Commands
from pamctl.sequences.grid import Unit, cells_of, units_of
from pamctl.sequences.sequence_file import sequence_of
from pamctl.sequences.steps import Diagnose

TASKS = ["tiny-gqa", "tiny-vqav2", "tiny-textvqa"]
GQA, VQA, TEXT = TASKS


def units(*methods: Any, **more: Any) -> dict[str, Unit]:
    file = sequence_of({"tasks": TASKS, "methods": [*methods], **more}, "mine.toml")
    return {unit.name: unit for unit in units_of(file, cells_of(file))}


def commands(unit: Unit, base: str | None = None) -> list[str]:
    """Without the parts that every command has."""
    told = Commands(dict(zip(TASKS, TASKS, strict=True)), base, {})
    lines = [command for step in unit.steps if (command := told.of(step))]
    cuts = (
        "order-1/seed-0/",
        "pamctl ",
        " --resume",
        " --order order-1",
        " --results results.jsonl",
        " --seed 0",
    )
    for cut in cuts:
        lines = [line.replace(cut, "") for line in lines]
    return lines


def test_a_method_that_merges() -> None:
    found = units({"name": "pam", "top_p": 30, "init": "fresh"})
    assert [*found] == ["zero-shot", "order-1/seed-0/first", "order-1/seed-0/pam"]
    assert commands(found["zero-shot"]) == [f"eval --task {GQA} --task {VQA} --task {TEXT}"]
    assert commands(found["order-1/seed-0/first"]) == [
        f"train-task {GQA} -o first/1-{GQA}/trained --method finetune",
        f"eval first/1-{GQA}/trained --task {GQA} --task {VQA}",
    ]
    second, third, first = f"pam/2-{VQA}", f"pam/3-{TEXT}", f"first/1-{GQA}/trained"
    rule = "--top-p 100 --reinit global"
    how = "--method average --space factor"
    set_ = "--method pam --top-p 30 --init fresh"
    assert commands(found["order-1/seed-0/pam"]) == [
        f"train-task {VQA} -o {second}/trained --global {first} {set_}",
        f"eval {second}/trained --task {VQA}",
        f"test -d {second}/pruned || align {second}/trained --to {first} {rule} -o {second}/pruned",
        f"eval {second}/pruned --task {VQA} --results diagnostics.jsonl",
        f"test -d {second}/merged || merge {first} {second}/trained {how} -o {second}/merged",
        f"eval {second}/merged --task {GQA} --task {VQA} --task {TEXT}",
        f"train-task {TEXT} -o {third}/trained --global {second}/merged {set_}",
        f"eval {third}/trained --task {TEXT}",
        f"test -d {third}/pruned || align {third}/trained --to {second}/merged {rule} -o {third}/pruned",
        f"eval {third}/pruned --task {TEXT} --results diagnostics.jsonl",
        f"test -d {third}/merged || merge {second}/merged {third}/trained {how} -o {third}/merged",
        f"eval {third}/merged --task {GQA} --task {VQA} --task {TEXT}",
    ]
    assert found["order-1/seed-0/pam"].needs == ("order-1/seed-0/first",)


def test_without_diagnostics_the_same_adapters_and_scores_are_left() -> None:
    file = sequence_of({"tasks": TASKS, "methods": ["pam", "finetune"]}, "mine.toml")
    whole, plain = (units_of(file, cells_of(file), diagnose=diagnose) for diagnose in (True, False))
    assert [(unit.name, unit.needs) for unit in plain] == [(unit.name, unit.needs) for unit in whole]
    for unit, same in zip(whole, plain, strict=True):
        left = [line for line in commands(unit) if "pruned" not in line]
        assert commands(same) == left
        assert not any(isinstance(step, Diagnose) for step in same.steps)


def test_a_method_that_does_not_merge_goes_on_from_what_it_trained() -> None:
    found = units("finetune", base="/no/base")
    trained, last = f"finetune/2-{VQA}/trained", f"finetune/3-{TEXT}/trained"
    assert commands(found["order-1/seed-0/finetune"], "org/base") == [
        f"train-task {VQA} -o {trained} --base org/base --global first/1-{GQA}/trained --method finetune",
        f"eval {trained} --task {GQA} --task {VQA} --task {TEXT} --base org/base",
        f"train-task {TEXT} -o {last} --base org/base --global {trained} --method finetune",
        f"eval {last} --task {GQA} --task {VQA} --task {TEXT} --base org/base",
    ]


@pytest.mark.parametrize("method", ["magmax", "er+pam"])
def test_what_the_task_before_trained_is_told_where_merging_made_another_of_it(method: str) -> None:
    cell = units(method)[f"order-1/seed-0/{method}"]
    trainings = [line for line in commands(cell) if "--global" in line]
    first = f"{'first' if method == 'magmax' else method}/1-{GQA}/trained"
    second = f"{method}/2-{VQA}"
    assert [line.split(" --method")[0].split(" --global ")[1] for line in trainings] == [
        f"{first} --previous {first}",
        f"{second}/merged --previous {second}/trained",
    ]


@pytest.mark.parametrize("method", ["er", "ilora", "olora", "moelora"])
def test_a_method_that_begins_otherwise_has_a_first_task_of_its_own(method: str) -> None:
    found = units(method, "finetune")
    own = found[f"order-1/seed-0/{method}"]
    assert own.needs == ()
    assert commands(own)[0] == f"train-task {GQA} -o {method}/1-{GQA}/trained --method {method}"


def test_settings_of_a_first_adapter_are_told_where_it_is_made() -> None:
    found = units("finetune", {"name": "pam", "run": "r", "rank": 4, "top_p": 30}, {"name": "lwf", "rank": 4})
    shared = [name for name in found if "/first" in name]
    assert shared[0] == "order-1/seed-0/first"
    assert len(shared) == 2  # the common one, and one that both of rank 4 share
    (line, _) = commands(found[shared[1]])
    assert line.endswith("--method finetune --rank 4")
    later = [line for line in commands(found["order-1/seed-0/pam-r"]) if "--global" in line]
    assert all("--rank" not in line and "--top-p 30" in line for line in later)
    scores = [line for line in commands(found["order-1/seed-0/pam-r"]) if line.startswith("eval")]
    assert all(line.endswith("--run r") for line in scores)


def test_a_stack_is_told_the_rank_of_every_task() -> None:
    lines = commands(units({"name": "olora", "rank": 4})["order-1/seed-0/olora"])
    assert sum("--rank 4" in line for line in lines) == 3


def test_tasks_learned_alone_are_learned_once_for_all_orders() -> None:
    orders = {"one": TASKS, "two": TASKS[::-1]}
    file = sequence_of({"orders": orders, "methods": ["independent"]}, "mine.toml")
    found = {unit.name: unit for unit in units_of(file, cells_of(file))}
    assert [*found] == [
        "zero-shot", "alone/seed-0/independent", "one/seed-0/independent", "two/seed-0/independent"
    ]  # fmt: skip
    assert commands(found["alone/seed-0/independent"]) == [
        f"train-task {task} -o alone/seed-0/independent/{task}/trained --method independent" for task in TASKS
    ]
    assert commands(found["two/seed-0/independent"]) == [
        f"eval alone/seed-0/independent/{task}/trained --task {task} --order two" for task in TASKS[::-1]
    ]


def test_tasks_learned_at_once_are_one_training() -> None:
    assert commands(units("multitask")["order-1/seed-0/multitask"]) == [
        f"train-task {GQA} {VQA} {TEXT} -o multitask/all/trained --method multitask",
        f"eval multitask/all/trained --task {GQA} --task {VQA} --task {TEXT}",
    ]


def test_another_merge_in_place_of_the_method_s_own() -> None:
    merge = {"method": "ties", "density": 0.5, "scope": "global"}
    lines = commands(
        units({"name": "finetune", "run": "ties", "merge": merge})["order-1/seed-0/finetune-ties"]
    )
    (line, _) = [line for line in lines if "|| merge" in line]
    assert "--method ties --space factor --set density=0.5 --set scope=global -o" in line
    assert "--previous" in next(line for line in lines if "--global" in line)


def test_a_method_that_is_only_wanted_somewhere() -> None:
    found = units("finetune", {"name": "pam", "seeds": [1]}, seeds=[0, 1])
    cells = [unit.cell.folder for unit in found.values() if unit.cell]
    assert cells == ["order-1/seed-0/finetune", "order-1/seed-1/finetune", "order-1/seed-1/pam"]

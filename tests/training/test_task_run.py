"""One task to disk: same inputs, same bytes; faults are named and leave nothing."""

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pamctl.adapters import Adapter, LoraFactors, open_adapter, save_adapter
from pamctl.refusal import Preempted, Refusal, UsageRefusal
from pamctl.training import plan_task, task_run, train_task
from pamctl.training.checkpoints import Checkpoints, has_checkpoints
from pamctl.training.configuration import Settings
from pamctl.training.metrics_log import FILE_NAME
from pamctl.training.reports import Progress
from tests.training_cases import SETTINGS, write_base

WEIGHTS = "adapter_model.safetensors"
PAM: Settings = {**SETTINGS, "method": "pam", "align_every": 2}
MIXTURE: Settings = {**SETTINGS, "method": "moelora", "experts": 3}


@pytest.fixture
def second(inputs: Path) -> Callable[..., Path]:
    """Train on shapes after colours, with PAM where nothing else is said."""

    def run(out: Path, **changes: Any) -> Path:
        given = {"base": str(inputs / "base"), "global_adapter": inputs / "first", **PAM, **changes}
        return train_task(inputs / "shapes.jsonl", out, **given)

    return run


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def stop_at(step: int) -> Callable[[Progress], None]:
    def on_step(progress: Progress) -> None:
        if progress.step >= step:
            os.kill(os.getpid(), signal.SIGTERM)

    return on_step


def test_same_inputs_and_seed_same_bytes(second: Callable[..., Path], tmp_path: Path) -> None:
    one, two, other = second(tmp_path / "one"), second(tmp_path / "two"), second(tmp_path / "3", seed=1)
    assert content(one) == content(two)
    assert content(one)[WEIGHTS] != content(other)[WEIGHTS]
    assert sorted(content(one)) == ["README.md", "adapter_config.json", WEIGHTS, FILE_NAME, "pamctl.json"]
    assert sorted(child.name for child in tmp_path.iterdir()) == ["3", "one", "two"]


def test_pam_without_important_weights_is_average(second: Callable[..., Path], tmp_path: Path) -> None:
    fast = {"learning_rate": 0.3}
    average = content(second(tmp_path / "average", method="average", **fast))[WEIGHTS]
    assert content(second(tmp_path / "none", top_p=0, **fast))[WEIGHTS] == average
    assert content(second(tmp_path / "all", top_p=100, **fast))[WEIGHTS] != average


def test_pam_ends_with_less_in_conflict_than_average(second: Callable[..., Path], tmp_path: Path) -> None:
    shares = []
    for method in ("average", "pam"):
        given = {"method": method, "learning_rate": 0.3, "steps": 8, "align_every": 4, "scope": "tensor"}
        provenance = open_adapter(second(tmp_path / method, **given)).provenance
        assert provenance is not None
        assert provenance.conflicts is not None
        shares.append(provenance.conflicts["overall"]["differ_percent"])
    assert shares[1] < shares[0]


def test_the_record_tells_everything(second: Callable[..., Path], inputs: Path, tmp_path: Path) -> None:
    first, adapter = open_adapter(inputs / "first"), open_adapter(second(tmp_path / "out", scope="tensor"))
    told = adapter.provenance
    assert told is not None
    assert (told.kind, told.stage, told.method, told.seed) == ("trained", "trained", "pam", 0)
    assert told.tasks == ("colours", "shapes")
    assert [parent.fingerprint for parent in told.parents] == [first.fingerprint]
    assert first.provenance is not None
    assert told.base == first.provenance.base
    assert (
        told.parameters.items()
        >= {
            "top_p": 50.0,
            "align_every": 2,
            "scope": "tensor",
            "reinit": "global",
            "start": "global",
            "steps": 8,
            "rank": 3,
            "global_adapter": first.fingerprint,
        }.items()
    )
    text = (tmp_path / "out" / "pamctl.json").read_text() + (tmp_path / "out" / FILE_NAME).read_text()
    assert str(inputs) not in text


def test_metrics_are_one_event_a_step_and_one_a_realignment(
    second: Callable[..., Path], tmp_path: Path
) -> None:
    lines = (second(tmp_path / "out") / FILE_NAME).read_text().splitlines()
    events = [json.loads(line) for line in lines]
    names = [event["event"] for event in events]
    assert names == ["start", *["step", "step", "align"] * 4]
    assert events[0]["task"] == "shapes"
    assert [event["step"] for event in events[1:4]] == [1, 2, 2]
    assert all(event["loss"] > 0 for event in events if event["event"] == "step")
    assert events[1]["learning_rate"] == pytest.approx(0.02)


def test_a_first_task_is_plain_fine_tuning_whatever_the_method(inputs: Path, tmp_path: Path) -> None:
    told: list[str] = []
    out = train_task(
        inputs / "colours.jsonl", tmp_path / "out", base=str(inputs / "base"), warn=told.append, **PAM
    )
    assert any("no --global adapter" in note for note in told)
    finetuned: Settings = {**PAM, "method": "finetune"}
    other = train_task(inputs / "colours.jsonl", tmp_path / "other", base=str(inputs / "base"), **finetuned)
    assert content(out) == content(other)
    provenance = open_adapter(out).provenance
    assert provenance is not None
    assert (provenance.method, provenance.parents, provenance.conflicts) == ("finetune", (), None)


def test_fresh_lora_claims_no_parent(second: Callable[..., Path], tmp_path: Path) -> None:
    provenance = open_adapter(second(tmp_path / "out", init="fresh")).provenance
    assert provenance is not None
    assert provenance.parents == ()
    assert provenance.parameters["start"] == "fresh"
    assert provenance.tasks == ("colours", "shapes")


def test_fewer_steps_than_align_every_are_told(second: Callable[..., Path], tmp_path: Path) -> None:
    told: list[str] = []
    second(tmp_path / "out", align_every=9, warn=told.append)
    assert any("8 steps are fewer than --align-every 9" in note for note in told)


def test_a_finished_output_is_left_alone_by_resume(second: Callable[..., Path], tmp_path: Path) -> None:
    out = second(tmp_path / "out")
    told: list[str] = []
    before = (out / WEIGHTS).stat().st_mtime_ns
    assert second(out, resume=True, report=told.append) == out
    assert (out / WEIGHTS).stat().st_mtime_ns == before
    assert told == [f"{out} is finished already"]
    with pytest.raises(Refusal, match="align_every was 2, is 3"):
        second(out, resume=True, align_every=3)


def test_a_finished_output_of_terms_replay_and_a_slow_adapter_is_left_alone_by_resume(
    second: Callable[..., Path], tmp_path: Path
) -> None:
    every_axis = {"method": "er+pam", "terms": ["lwf", "l2:weight=0.5"], "decay": 0.25, "replay": "buffer=4"}
    out = second(tmp_path / "out", **every_axis)
    told: list[str] = []
    second(out, **every_axis, resume=True, report=told.append)
    assert told == [f"{out} is finished already"]
    with pytest.raises(Refusal, match=r"replay was .*'buffer': 4.* is .*'buffer': 5"):
        second(out, **{**every_axis, "replay": "buffer=5"}, resume=True)


def test_a_finished_mixture_is_left_alone_by_resume_and_gone_on_from(
    second: Callable[..., Path], inputs: Path, tmp_path: Path
) -> None:
    def first(**changes: Any) -> Path:
        given = {"base": str(inputs / "base"), **MIXTURE, "decay": 0.25, **changes}
        return train_task(inputs / "colours.jsonl", tmp_path / "first", **given)

    told: list[str] = []
    mixture = first()
    assert first(resume=True, report=told.append) == mixture
    assert told == [f"{mixture} is finished already"]
    with pytest.raises(Refusal, match="steps was 8, is 9"):
        first(resume=True, steps=9)
    # The second task starts from the adapter beside it, which is a mixture too.
    out = second(tmp_path / "second", **MIXTURE, decay=0.25, global_adapter=mixture)
    provenance = open_adapter(out, routers=True).provenance
    assert provenance is not None
    assert (provenance.tasks, provenance.parameters["experts"]) == (("colours", "shapes"), 3)


def test_an_existing_output_is_refused_without_force(second: Callable[..., Path], tmp_path: Path) -> None:
    out = second(tmp_path / "out")
    with pytest.raises(Refusal, match="already exists"):
        second(out)
    assert second(out, seed=1, force=True) == out
    assert open_adapter(out).provenance.seed == 1  # type: ignore[union-attr]


def test_checkpoints_ask_for_resume_or_force(second: Callable[..., Path], tmp_path: Path) -> None:
    out, unbroken = tmp_path / "out", second(tmp_path / "unbroken")
    with pytest.raises(Preempted):
        second(out, checkpoint_every=1, on_step=stop_at(2))
    with pytest.raises(Refusal, match="left checkpoints") as refused:
        second(out)
    assert "--resume" in refused.value.way_on
    with pytest.raises(UsageRefusal, match="--resume goes on and --force starts over"):
        second(out, resume=True, force=True)
    assert content(second(out, force=True)) == content(unbroken)


def test_resume_without_checkpoints_just_starts(second: Callable[..., Path], tmp_path: Path) -> None:
    assert second(tmp_path / "out", resume=True).is_dir()


def test_a_plan_writes_nothing(inputs: Path, tmp_path: Path) -> None:
    plan = plan_task(
        inputs / "shapes.jsonl",
        tmp_path / "out",
        base=str(inputs / "base"),
        global_adapter=inputs / "first",
        **PAM,
    )
    assert not list(tmp_path.iterdir())
    assert (plan.examples, plan.trained_parameters, plan.configuration.steps) == (10, 252, 8)
    assert plan.to_json()["configuration"]["top_p"] == 50


def _missing_task(inputs: Path) -> dict[str, Any]:
    return {"task": inputs / "nothing.jsonl"}


def _missing_global(inputs: Path) -> dict[str, Any]:
    return {"global_adapter": inputs / "nothing"}


def _other_base(inputs: Path) -> dict[str, Any]:
    folder = inputs / "other"
    return {"base": str(folder if folder.exists() else write_base(folder, seed=1))}


def _mixed_ranks(inputs: Path) -> dict[str, Any]:
    folder = inputs / "mixed"
    if not folder.exists():
        folder.mkdir()
        first = open_adapter(inputs / "first")
        modules = dict(first.modules)
        name = min(modules)
        modules[name] = LoraFactors(modules[name].a[:2], modules[name].b[:, :2])
        save_adapter(Adapter(modules), folder)
        shutil.copy(inputs / "first" / "pamctl.json", folder)
    return {"global_adapter": folder}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (_missing_task, "nothing.jsonl"),
        (_missing_global, "nothing"),
        (_other_base, r"was trained on base \(\w{12}\), the base is other \(\w{12}\)"),
        ({"rank": 8}, r"--rank is 8, .*first has rank 3"),
        ({"alpha": 8.0}, r"--alpha is 8.0, .*first has alpha 3"),
        ({"targets": r".*q_proj"}, r"--targets '.\*q_proj' (picks|does not pick) "),
        ({"targets": "("}, "not a regular expression"),
        ({"checkpoint_every": 0}, "--checkpoint-every is 0"),
        ({"kept": 0}, "--keep-checkpoints is 0"),
        ({"steps": 0}, "--steps is 0"),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_is_left(
    second: Callable[..., Path], inputs: Path, tmp_path: Path, changed: Any, told: str
) -> None:
    given = changed(inputs) if callable(changed) else changed
    task = given.pop("task", inputs / "shapes.jsonl") if callable(changed) else inputs / "shapes.jsonl"
    with pytest.raises(Refusal, match=told) as refused:
        train_task(
            task,
            tmp_path / "out",
            **{"base": str(inputs / "base"), "global_adapter": inputs / "first", **PAM, **given},
        )
    assert refused.value.way_on
    assert not list(tmp_path.iterdir())


def test_an_output_inside_a_file_is_refused(second: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refusal, match="is a file"):
        second(tmp_path / "file" / "out")


def test_a_loss_that_runs_away_leaves_nothing(second: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="the loss is"):
        second(tmp_path / "out", learning_rate=1e30, checkpoint_every=1)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_keeps_the_checkpoints(
    second: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, unbroken = tmp_path / "out", second(tmp_path / "unbroken")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("pamctl.training.finished.save_adapter", full)
        with pytest.raises(Refusal, match="no space left to write"):
            second(out, checkpoint_every=3)
    assert not out.exists()
    assert has_checkpoints(out)
    assert content(second(out, resume=True)) == content(unbroken)


def test_an_interrupt_keeps_the_checkpoints_and_nothing_else(
    second: Callable[..., Path], tmp_path: Path
) -> None:
    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        second(tmp_path / "early", checkpoint_every=100, on_step=interrupt)
    assert not list(tmp_path.iterdir())


def test_metrics_can_be_followed_while_it_runs(
    second: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    save = Checkpoints.save

    def seen(self: Checkpoints, *given: Any) -> None:
        sizes.append(len((self.folder / FILE_NAME).read_bytes().splitlines()))
        save(self, *given)

    monkeypatch.setattr(task_run.Checkpoints, "save", seen)
    second(tmp_path / "out", checkpoint_every=3)
    assert sizes == [5, 10]

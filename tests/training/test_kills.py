"""Killed or stopped at any step, or with its newest checkpoint damaged, a run ends in the same bytes."""

import random
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pamctl.training.metrics_log import FILE_NAME
from tests.training_cases import write_base, write_task
from tests.warm_pamctl import Done, Signalled, WarmPamctl

STEPS, EVERY = 24, 3
FILES = ("adapter_model.safetensors", "pamctl.json", FILE_NAME)
KILLED, STOPPED = signal.SIGKILL, signal.SIGTERM
CHAINS, LINKS = 4, 5
"""Every run is broken off this often, one break after another, so that a break costs one process, not two."""


@dataclass(frozen=True)
class Training:
    """One command line of `pamctl train-task`: a second task by PAM, in a folder of inputs."""

    pamctl: WarmPamctl
    inputs: Path

    def __call__(self, out: Path, *flags: str, signalled: Signalled | None = None) -> Done:
        given = (
            f"train-task shapes.jsonl --base base --global first --align-every 4 --steps {STEPS} --lr 0.02"
        )
        command = [*given.split(), "--batch-size", "4", "--checkpoint-every", str(EVERY), "-o", str(out)]
        return self.pamctl(*command, *flags, cwd=self.inputs, signalled=signalled)


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    inputs = tmp_path_factory.mktemp("inputs")
    write_base(inputs / "base")
    write_task(inputs, "colours", seed=0)
    write_task(inputs, "shapes", seed=1)
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("JAX_COMPILATION_CACHE_DIR")  # what is killed half-writes compiled programs too
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        program = WarmPamctl(tmp_path_factory.mktemp("streams"))
    first = "train-task colours.jsonl --base base --steps 2 --lr 0.02 -o first"
    assert program(*first.split(), cwd=inputs).code == 0
    yield Training(program, inputs)
    program.close()


@pytest.fixture(scope="module")
def unbroken(train: Training, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run that nothing stopped writes."""
    out = tmp_path_factory.mktemp("unbroken") / "out"
    done = train(out)
    assert done.code == 0, done.stderr
    return content(out)


def content(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES}


def steps_folder(out: Path) -> Path:
    return out.with_name(out.name + ".checkpoints") / "steps"


def newest(out: Path) -> int:
    """The newest step whose checkpoint counts, 0 where there is none."""
    return max((int(record.stem) for record in (steps_folder(out) / "records").glob("*.json")), default=0)


def break_off(train: Training, out: Path, number: int, step: int, seconds: float = 0) -> int:
    """Let a signal come before a step, going on from the newest checkpoint if any; return the newest then."""
    before = newest(out)
    done = train(out, "--resume", signalled=Signalled(number, step - before, seconds))
    assert done.stdout == ""
    assert (f"going on after step {before} of {STEPS}" in done.stderr) == (before > 0)
    assert not out.exists()
    if number == STOPPED:
        assert done.code == 75
        assert f"Error: stopped after step {step} of {STEPS}" in done.stderr
        assert newest(out) == step
    else:
        assert done.code == -KILLED
        # The save before the last one had to count before the last one began.
        assert newest(out) in [before, *saves_begun(before, step)][-2:]
    return newest(out)


def saves_begun(resumed_after: int, step: int) -> list[int]:
    """The steps after which a save had begun when a run was killed before `step`."""
    return [begun for begun in range(resumed_after + 1, step) if begun % EVERY == 0]


def go_on(train: Training, out: Path, step: int, unbroken: dict[str, bytes]) -> str:
    """Go on after a step to the same bytes and return what was told."""
    done = train(out, "--resume")
    assert (done.code, done.stdout) == (0, f"{out}\n"), done.stderr
    assert (f"going on after step {step} of {STEPS}" in done.stderr) == (step > 0)
    assert content(out) == unbroken
    assert [child.name for child in out.parent.iterdir()] == [out.name]
    return done.stderr


@pytest.mark.parametrize("seed", range(CHAINS))
def test_broken_off_again_and_again(
    train: Training, unbroken: dict[str, bytes], tmp_path: Path, seed: int
) -> None:
    draws, out, step = random.Random(seed), tmp_path / "out", 0
    for at in sorted(draws.sample(range(1, STEPS), LINKS)):
        number = draws.choice([KILLED, STOPPED])
        step = break_off(train, out, number, at, draws.uniform(0, 0.1))
    go_on(train, out, step, unbroken)


def test_killed_in_the_middle_of_a_save(train: Training, unbroken: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    # A save takes longer than a step; on a busy machine it may be done all the same.
    for saved in range(EVERY, STEPS, EVERY):
        step = break_off(train, out, KILLED, saved + 1)
        if step < saved:
            break
    assert step == saved - EVERY
    go_on(train, out, step, unbroken)


@pytest.fixture(scope="module")
def stopped(train: Training, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of steps 18 and 20."""
    out = tmp_path_factory.mktemp("stopped") / "out"
    break_off(train, out, STOPPED, 20)
    assert {arrays.name for arrays in (steps_folder(out) / "arrays").iterdir()} == {"18", "20"}
    return steps_folder(out).parent


@pytest.fixture
def out(stopped: Path, tmp_path: Path) -> Path:
    """An output that is not there yet, with a copy of those checkpoints beside it."""
    shutil.copytree(stopped, tmp_path / stopped.name)
    return tmp_path / "out"


def largest_file(arrays: Path) -> Path:
    return max((file for file in arrays.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


def truncate(arrays: Path, record: Path) -> None:
    file = largest_file(arrays)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_bit(arrays: Path, record: Path) -> None:
    content = bytearray(largest_file(arrays).read_bytes())
    content[len(content) // 2] ^= 1
    largest_file(arrays).write_bytes(content)


def lose_the_arrays(arrays: Path, record: Path) -> None:
    shutil.rmtree(arrays)


def lose_the_record(arrays: Path, record: Path) -> None:
    record.unlink()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (truncate, "is damaged and passed over: state/.* is not what was written"),
        (flip_a_bit, "is damaged and passed over: state/.* is not what was written"),
        (lose_the_arrays, "is damaged and passed over: .* is missing"),
        (lose_the_record, "was not finished and is passed over"),
    ],
)
def test_a_newest_checkpoint_that_is_damaged_is_told_and_the_one_before_used(
    train: Training,
    unbroken: dict[str, bytes],
    out: Path,
    damage: Callable[[Path, Path], None],
    told: str,
) -> None:
    arrays = steps_folder(out) / "arrays" / "20"
    damage(arrays, steps_folder(out) / "records" / "20.json")
    stderr = go_on(train, out, 18, unbroken)
    assert re.search(rf"^Warning: checkpoint {arrays} {told}$", stderr, re.MULTILINE)


def test_another_configuration_is_refused_with_the_differences(train: Training, out: Path) -> None:
    done = train(out, "--resume", "--lr", "0.1", "--seed", "1")
    assert (done.code, done.stdout) == (1, "")
    assert (
        "was made with another configuration: learning_rate was 0.02, is 0.1; seed was 0, is 1" in done.stderr
    )
    assert newest(out) == 20

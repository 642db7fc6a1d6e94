"""The slow adapter: its average by hand, where the next task goes on, and a run that is stopped."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from pamctl.adapters import open_adapter
from pamctl.models.base import Base
from pamctl.models.lora import lora_from_adapter
from pamctl.models.paligemma import Lora
from pamctl.refusal import Preempted, UsageRefusal
from pamctl.tasks import open_task
from pamctl.training import train_task
from pamctl.training.checkpoints import Checkpoints
from pamctl.training.inheritance import Inheritance
from pamctl.training.loop import State, initial_state, train
from pamctl.training.metrics_log import MetricsLog
from pamctl.training.preparation import Prepared, prepare
from pamctl.training.slow_adapter import FAST, weight_of_slow
from tests.training.method_cases import SETTINGS
from tests.training_cases import CONFIG, second_task

HOW: dict[str, Any] = {**SETTINGS, "method": "ilora", "learning_rate": 0.3, "decay": 0.9}


def flat(lora: Lora) -> np.ndarray:
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(lora)])


def test_the_weight_grows_up_to_the_decay() -> None:
    assert [weight_of_slow(step, 0.25) for step in (1, 2, 100)] == [0.25, 0.25, 0.25]
    assert [weight_of_slow(step, 0.9) for step in (1, 2, 3, 9, 10)] == pytest.approx(
        [1 / 2, 2 / 3, 3 / 4, 9 / 10, 9 / 10]
    )


class Recorder:
    """Stands for the checkpoints: keeps fast and slow of every step."""

    every, folder = 1, Path()

    def __init__(self) -> None:
        self.fast: list[np.ndarray] = []
        self.slow: list[np.ndarray] = []

    def save(self, step: int, state: State, metrics_size: int) -> None:
        self.fast.append(flat(state.lora))
        self.slow.append(flat(state.slow))

    def settle(self) -> None:
        """Nothing is under way."""


def aligned_run(inputs: Path, base: Base) -> Prepared:
    return second_task(inputs, base, **HOW, align=True, align_every=2, top_p=100)


def test_it_follows_the_realigned_weights(inputs: Path, base: Base) -> None:
    run, seen = aligned_run(inputs, base).run, Recorder()
    train(run, MetricsLog(), checkpoints=seen)  # type: ignore[arg-type]
    before = flat(lora_from_adapter(open_adapter(inputs / "first"), CONFIG))
    slow = before.astype(np.float64)
    assert len(seen.fast) == len(seen.slow) == 5
    for step, (fast, found) in enumerate(zip(seen.fast, seen.slow, strict=True), start=1):
        weight = min(1 - 1 / (step + 1), 0.9)
        slow = weight * slow + (1 - weight) * fast
        np.testing.assert_allclose(found, slow, rtol=1e-5, atol=1e-6)
        if step % 2 == 0:
            # Whatever had another sign is as before, and only then does the slow adapter see it.
            assert (np.sign(fast) == np.sign(before)).all()
            assert (fast == before).sum() > (seen.fast[step - 2] == before).sum()


class Stopping:
    """Asks for a stop once it was asked that often."""

    def __init__(self, after: int) -> None:
        self._left = after

    @property
    def requested(self) -> bool:
        self._left -= 1
        return self._left <= 0


def test_a_stopped_run_goes_on_bit_for_bit(inputs: Path, base: Base, tmp_path: Path) -> None:
    run = aligned_run(inputs, base).run
    whole = train(run, MetricsLog())
    folder = tmp_path / "out.checkpoints"
    folder.mkdir()
    checkpoints = Checkpoints(folder, run.configuration.to_json(), 100)
    log = MetricsLog(folder / "metrics.jsonl")
    with pytest.raises(Preempted, match="after step 3 of 6"):
        train(run, log, checkpoints=checkpoints, stop=Stopping(3))  # type: ignore[arg-type]
    log.close()
    found = checkpoints.latest(initial_state(run.start, run.slow), warn=pytest.fail)
    assert found is not None
    assert found.step == 3
    slow = flat(found.state.slow)
    assert not np.array_equal(slow, flat(found.state.lora))
    resumed = train(run, MetricsLog(), resume_from=found)
    for name in ("lora", "slow"):
        np.testing.assert_array_equal(flat(getattr(resumed, name)), flat(getattr(whole, name)))
    assert not np.array_equal(flat(whole.slow), slow)


@pytest.fixture(scope="module")
def chain(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two tasks with a slow adapter."""
    folder = tmp_path_factory.mktemp("chain")
    given = {**HOW, "base": str(inputs / "base")}
    first = train_task(inputs / "colours.jsonl", folder / "first", **given)
    second = train_task(inputs / "shapes.jsonl", folder / "second", global_adapter=first, **given)
    return SimpleNamespace(first=first, second=second)


def test_the_fast_adapter_lies_beside_and_the_next_task_goes_on_from_it(
    inputs: Path, base: Base, chain: SimpleNamespace
) -> None:
    slow, fast = (lora_from_adapter(open_adapter(of), CONFIG) for of in (chain.first, chain.first / FAST))
    assert not np.array_equal(flat(slow), flat(fast))
    given: Any = {**HOW}
    before = Inheritance(open_adapter(chain.first))
    run = prepare([open_task(inputs / "shapes.jsonl")], base, before, given).run
    np.testing.assert_array_equal(flat(run.start), flat(fast))
    np.testing.assert_array_equal(flat(run.slow), flat(slow))


def test_both_tell_what_they_are(chain: SimpleNamespace) -> None:
    first = open_adapter(chain.first)
    for folder in (chain.second, chain.second / FAST):
        told = open_adapter(folder).provenance
        assert told is not None
        assert told.tasks == ("colours", "shapes")
        assert told.parameters["decay"] == 0.9
        assert told.parameters["global_adapter"] == first.fingerprint
    assert sorted(file.name for file in (chain.second / FAST).iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "pamctl.json",
    ]
    steps = [json.loads(line)["event"] for line in (chain.second / "metrics.jsonl").read_text().splitlines()]
    assert steps == ["start", *["step"] * SETTINGS["steps"]]


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_out_of_range_is_refused(inputs: Path, base: Base, decay: float) -> None:
    with pytest.raises(UsageRefusal, match="--ema"):
        second_task(inputs, base, **{**HOW, "decay": decay})


def test_consistency_needs_a_slow_adapter(inputs: Path, base: Base) -> None:
    with pytest.raises(UsageRefusal, match="--term consistency needs a slow adapter"):
        second_task(inputs, base, **{**SETTINGS, "method": "finetune", "terms": ["consistency"]})

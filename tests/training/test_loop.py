"""The loop against Algorithm 1 in numpy, and what it does when numbers run away."""

import json
import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from pamctl.adapters import open_adapter
from pamctl.models.base import Base
from pamctl.models.lora import init_lora, lora_from_adapter
from pamctl.models.paligemma import Lora, suffix_loss
from pamctl.training.configuration import Settings
from pamctl.training.epochs import batch_visits
from pamctl.training.loop import State, train, train_step
from pamctl.training.metrics_log import FILE_NAME, MetricsLog
from pamctl.training.preparation import Prepared
from pamctl.training.realignment import _realign
from pamctl.training.reports import Diverged, Progress
from tests.training_cases import CONFIG, EXAMPLES, TARGETS, first_task, second_task

RATE, WARM_UP = 0.3, 2
SETTINGS: Settings = {"batch_size": 4, "learning_rate": RATE, "steps": 40, "align_every": 1, "method": "pam"}


def prepared(inputs: Path, base: Base, **settings: Any) -> Prepared:
    return second_task(inputs, base, **{**SETTINGS, **settings})


def events_of(log: MetricsLog) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        log.write_to(Path(folder))
        return [json.loads(line) for line in (Path(folder) / FILE_NAME).read_text().splitlines()]


def flat(tree: Lora) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def algorithm_1(
    global_weights: np.ndarray, gradient_of: Callable[[np.ndarray, int], np.ndarray], steps: int
) -> Iterator[tuple[np.ndarray, int]]:
    """The weights after each step and how many were put back: PAM with p = 50, s = 1, and Adam by hand."""
    magnitudes = np.sort(np.abs(global_weights))[::-1]
    tau = magnitudes[math.ceil(0.5 * len(magnitudes)) - 1]
    important = (np.abs(global_weights) >= tau) & (global_weights != 0)
    weights, first, second = global_weights, np.zeros_like(global_weights), np.zeros_like(global_weights)
    for step in range(1, steps + 1):
        gradient = gradient_of(weights, step)
        gradient = gradient / max(1.0, np.linalg.norm(gradient))
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        adam = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        weights = weights - RATE * min((step - 1) / WARM_UP, 1) * adam
        conflict = important & (np.sign(weights) != np.sign(global_weights))
        weights = np.where(conflict, global_weights, weights)
        yield weights, int(conflict.sum())


class Stopping:
    """Stands for the checkpoints: keeps every state, and ends the run after a step."""

    every = 1
    folder = Path()

    def __init__(self, last: int) -> None:
        self.weights: list[np.ndarray] = []
        self._last = last

    def save(self, step: int, state: State, metrics_size: int) -> None:
        self.weights.append(flat(state.lora))
        if step == self._last:
            raise StopIteration


def test_three_steps_of_algorithm_1(inputs: Path, base: Base) -> None:
    # The first step of warm-up has rate 0, so three steps are two that change something.
    run, log, seen = prepared(inputs, base).run, MetricsLog(), Stopping(last=3)
    with pytest.raises(StopIteration):
        train(run, log, checkpoints=seen)  # type: ignore[arg-type]
    leaves, structure = jax.tree.flatten(run.start)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]

    def gradient_of(weights: np.ndarray, step: int) -> np.ndarray:
        parts = zip(np.split(weights.astype(np.float32), ends), leaves, strict=True)
        lora = jax.tree.unflatten(structure, [part.reshape(leaf.shape) for part, leaf in parts])
        features, texts, _ = run.split.batch(batch_visits(EXAMPLES, 4, 0, step))
        return flat(
            jax.grad(lambda x: suffix_loss(CONFIG, base.parameters, x, 1.0, features, texts).mean())(lora)
        )

    start = flat(lora_from_adapter(open_adapter(inputs / "first"), CONFIG))
    expected = list(algorithm_1(start, gradient_of, 3))
    for found, (weights, _) in zip(seen.weights, expected, strict=True):
        np.testing.assert_allclose(found, weights, atol=2e-4)
    told = [event["conflicts"]["modules"] for event in events_of(log) if event["event"] == "align"]
    counts = [sum(sum(factors.values()) for factors in modules.values()) for modules in told]
    assert counts == [put_back for _, put_back in expected]
    assert counts[2] > 0


def test_realignment_comes_every_s_steps(inputs: Path, base: Base) -> None:
    log = MetricsLog()
    train(prepared(inputs, base, steps=7, align_every=3).run, log)
    events = events_of(log)
    assert [event["step"] for event in events if event["event"] == "step"] == [1, 2, 3, 4, 5, 6, 7]
    assert [event["step"] for event in events if event["event"] == "align"] == [3, 6]


def test_the_start_is_left_as_it_was(inputs: Path, base: Base) -> None:
    run = prepared(inputs, base, steps=3).run
    before = flat(run.start)
    train(run, MetricsLog())
    train(run, MetricsLog())
    np.testing.assert_array_equal(flat(run.start), before)


def test_an_adapted_vision_tower_trains(inputs: Path, base: Base) -> None:
    targets = rf"{TARGETS}|multi_modal_projector\.linear|vision_tower\..*fc1"
    run = first_task(inputs, base, steps=3, batch_size=4, targets=targets).run
    trained = train(run, MetricsLog()).lora
    fresh = init_lora(CONFIG, 3, targets, 0)
    for tower in ("vision_tower", "multi_modal_projector", "language_model"):
        assert not np.array_equal(flat(trained[tower]), flat(fresh[tower]))


@pytest.mark.parametrize(
    "settings", [{"accumulate": 2}, {"accumulate": 4}, {"remat": "all"}, {"remat": "none"}]
)
def test_what_saves_memory_changes_the_last_bits_alone(inputs: Path, base: Base, settings: Settings) -> None:
    targets = rf"{TARGETS}|vision_tower\..*fc1"
    plain: Settings = {"steps": 4, "batch_size": 8, "learning_rate": 0.02, "targets": targets}
    run = first_task(inputs, base, **plain).run
    whole = flat(train(run, MetricsLog()).lora)
    saved = flat(train(first_task(inputs, base, **{**plain, **settings}).run, MetricsLog()).lora)
    assert np.abs(whole - flat(run.start)).max() > 0.01
    np.testing.assert_allclose(saved, whole, atol=1e-4)


def test_a_loss_that_is_not_finite_is_refused_by_step(inputs: Path, base: Base) -> None:
    with pytest.raises(Diverged, match=r"the loss is (nan|inf) at step [2-9]") as refused:
        train(prepared(inputs, base, learning_rate=1e30, steps=9).run, MetricsLog())
    assert "lower --lr" in refused.value.way_on


def test_progress_ends_at_the_last_step(inputs: Path, base: Base) -> None:
    told: list[Progress] = []
    train(prepared(inputs, base, steps=5).run, MetricsLog(), on_step=told.append)
    assert (told[-1].step, told[-1].steps) == (5, 5)
    assert all(progress.examples_per_second > 0 for progress in told)


def test_every_step_and_realignment_runs_one_compiled_program(inputs: Path, base: Base) -> None:
    programs: Any = (train_step, _realign)
    for program in programs:
        program.clear_cache()
    for seed in (0, 1):
        train(prepared(inputs, base, steps=5, align_every=2, seed=seed).run, MetricsLog())
    assert [program._cache_size() for program in programs] == [1, 1]


def test_progress_tells_rates_and_what_was_put_back(inputs: Path, base: Base) -> None:
    told: list[Progress] = []
    log = MetricsLog()
    train(prepared(inputs, base, steps=6, align_every=2).run, log, on_step=told.append)
    steps = [event for event in events_of(log) if event["event"] == "step"]
    aligned = [event for event in events_of(log) if event["event"] == "align"]
    assert told[-1].learning_rate == steps[-1]["learning_rate"]
    assert told[-1].conflicts == aligned[-1]["conflicts"]["percent"]["overall"]
    # four image tokens and <bos> b c "\\n" d <eos>
    assert told[-1].tokens_per_second == pytest.approx(10 * told[-1].examples_per_second)
    assert told[-1].mfu is None

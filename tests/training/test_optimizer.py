"""The optimiser: the schedule by hand, and whole updates against big_vision's formula in numpy."""

import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pamctl.training.optimizer import Rates, optimizer, schedule

RATES = Rates(learning_rate=0.1, weight_decay=0.01, clip=1.0, warmup_steps=2, steps=6)


@pytest.mark.parametrize(
    ("count", "factor"), [(0, 0.0), (1, 0.5), (2, 1.0), (3, (2 + math.sqrt(2)) / 4), (4, 0.5), (6, 0.0)]
)
def test_schedule_by_hand(count: int, factor: float) -> None:
    # Linear over two steps, then half a cosine over four; during warm-up the cosine is still at its top.
    assert float(schedule(RATES, count)) == pytest.approx(factor, abs=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_run_without_warm_up_starts_at_the_full_rate(steps: int) -> None:
    assert float(schedule(RATES._replace(warmup_steps=0, steps=steps), 0)) == 1


def test_updates_are_big_vision_s() -> None:
    weight = np.array([1.0, -2.0, 0.5])
    gradients = [np.array([3.0, 4.0, 0.0]), np.array([0.1, -0.2, 0.3]), np.array([-0.5, 0.0, 0.2])]
    chain = optimizer(RATES)
    ours, state = jnp.asarray(weight), chain.init(jnp.asarray(weight))
    first, second = np.zeros(3), np.zeros(3)
    for count, gradient in enumerate(gradients):
        updates, state = chain.update(jnp.asarray(gradient), state, ours)
        ours = optax.apply_updates(ours, updates)
        clipped = gradient / max(1.0, np.linalg.norm(gradient) / RATES.clip)
        first, second = 0.9 * first + 0.1 * clipped, 0.999 * second + 0.001 * clipped**2
        corrected = first / (1 - 0.9 ** (count + 1)), second / (1 - 0.999 ** (count + 1))
        adam = corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
        factor = float(schedule(RATES, count))
        weight = weight - factor * (RATES.learning_rate * adam + RATES.weight_decay * weight)
        np.testing.assert_allclose(ours, weight, rtol=1e-5)


def test_decay_does_not_follow_the_learning_rate() -> None:
    chain = optimizer(RATES._replace(learning_rate=0.0, warmup_steps=0))
    weight = jnp.array([2.0])
    updates, _ = chain.update(jnp.array([1.0]), chain.init(weight), weight)
    np.testing.assert_allclose(updates, [-0.02], rtol=1e-6)

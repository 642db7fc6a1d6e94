"""The order of examples: every epoch a permutation, every batch a function of seed and step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamctl.training.epochs import batch_visits, epoch_order, steps_of


@given(examples=st.integers(1, 50), batch_size=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
def test_the_steps_walk_through_one_permutation_after_another(
    examples: int, batch_size: int, seed: int
) -> None:
    steps = steps_of(3, examples, batch_size)
    batches = [batch_visits(examples, batch_size, seed, step + 1) for step in range(steps)]
    seen = np.concatenate([batch.examples for batch in batches])
    epochs = np.concatenate([batch.epochs for batch in batches])
    np.testing.assert_array_equal(epochs, np.arange(len(seen)) // examples)
    for epoch in range(3):
        part = seen[epoch * examples : (epoch + 1) * examples]
        assert sorted(part) == list(range(examples))


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    later = batch_visits(100, 7, 3, 40).examples
    epoch_order.cache_clear()
    np.testing.assert_array_equal(batch_visits(100, 7, 3, 40).examples, later)


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    orders = [tuple(epoch_order(100, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4


def test_the_order_is_the_same_in_every_release() -> None:
    assert epoch_order(8, 0, 0).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]


@pytest.mark.parametrize(
    ("epochs", "examples", "batch_size", "steps"), [(1, 10, 5, 2), (1, 11, 5, 3), (3, 3, 4, 3), (1, 3, 4, 1)]
)
def test_epochs_are_rounded_up_to_whole_steps(
    epochs: int, examples: int, batch_size: int, steps: int
) -> None:
    assert steps_of(epochs, examples, batch_size) == steps

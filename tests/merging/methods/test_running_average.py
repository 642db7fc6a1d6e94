import numpy as np
import pytest

from pamctl.merging.methods.running_average import METHOD
from pamctl.refusal import UsageRefusal
from tests.merging.methods.combination_cases import coefficients, merged, random_tensors


def test_the_mean_of_three_tasks_takes_in_a_fourth() -> None:
    # 3/4 · x_1 + 1/4 · x_2
    found = merged(METHOD, [[[4, 8, 0], [0, 4, 0]], [[0, 0, 4], [4, 4, 8]]], count=3)
    np.testing.assert_array_equal(found, [[3, 6, 1], [1, 4, 2]])


def test_several_new_tasks_count_one_each() -> None:
    # 2 + 1 + 1 tasks
    np.testing.assert_array_equal(coefficients(METHOD, random_tensors(0, 3), count=2), [0.5, 0.25, 0.25])


def test_step_by_step_it_is_the_mean_over_all_tasks() -> None:
    tasks = random_tensors(0, 6)
    mean = tasks[0]
    for count, task in enumerate(tasks[1:], start=1):
        mean = merged(METHOD, [mean, task], count=count)
    np.testing.assert_allclose(mean, tasks.mean(axis=0), rtol=1e-12)


def test_without_a_count_it_says_to_give_one() -> None:
    with pytest.raises(UsageRefusal, match="how many tasks") as refused:
        coefficients(METHOD, random_tensors(0, 2))
    assert "give count" in refused.value.way_on


def test_weights_are_refused_as_the_counts_are_the_weights() -> None:
    with pytest.raises(
        UsageRefusal, match=r"running-average takes no weights, and 0\.5,0\.5 are given"
    ) as refused:
        coefficients(METHOD, random_tensors(0, 2), [0.5, 0.5], count=1)
    assert "average" in refused.value.way_on


def test_the_mean_comes_first_and_something_has_to_come_after() -> None:
    assert not METHOD.symmetric
    assert METHOD.least == 2

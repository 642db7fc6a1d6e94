"""Decoding a split: order, batches and padding must not show in what is predicted."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from pamctl.evaluation.evaluate import evaluate
from pamctl.evaluation.scoring import summed_up, unscored
from pamctl.models.base import Base, load_base
from pamctl.models.lora import init_lora
from pamctl.models.paligemma import Lora
from pamctl.refusal import UsageRefusal
from pamctl.tasks import Task, open_task
from pamctl.training.batches import image_features_of
from tests.training_cases import write_base, write_task

LANGUAGE, VISION = r"language_model\..*", r"vision_tower\..*"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A random base with layers strong enough that it does not only repeat the last token."""
    base = load_base(str(write_base(tmp_path_factory.mktemp("base") / "small")))
    layers = jax.tree.map(lambda leaf: 4 * leaf, base.parameters["language_model"]["layers"])
    language = base.parameters["language_model"] | {"layers": layers}
    return replace(base, parameters=base.parameters | {"language_model": language})


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return open_task(write_task(tmp_path_factory.mktemp("task")))


def lora_of(base: Base, targets: str) -> Lora:
    fresh = init_lora(base.config, 2, targets, seed=0)
    return jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(3), leaf.shape), fresh)


def test_batches_and_padding_do_not_show(base: Base, task: Task) -> None:
    lora = lora_of(base, LANGUAGE)
    whole = evaluate(base, lora, 1.0, task)
    assert [prediction.id for prediction in whole] == [example.id for example in task.split("test")]
    assert len({prediction.prediction for prediction in whole}) > 2
    assert evaluate(base, lora, 1.0, task, batch_size=3) == whole
    assert evaluate(base, lora, 1.0, task, batch_size=3, limit=4) == whole[:4]


def test_features_can_be_shared_by_adapters_of_the_language_model(base: Base, task: Task) -> None:
    features = image_features_of(base, task.split("test"))
    for lora in ({}, lora_of(base, LANGUAGE)):
        assert evaluate(base, lora, 1.0, task, features=features) == evaluate(base, lora, 1.0, task)
    with pytest.raises(UsageRefusal, match="adapts the vision tower"):
        evaluate(base, lora_of(base, VISION), 1.0, task, features=features)


def test_an_adapter_of_either_tower_changes_the_answers(base: Base, task: Task) -> None:
    plain = evaluate(base, {}, 1.0, task)
    for targets in (LANGUAGE, VISION):
        adapted = evaluate(base, lora_of(base, targets), 1.0, task)
        assert [answer.prediction for answer in plain] != [answer.prediction for answer in adapted]


def test_max_new_tokens_cuts_answers(base: Base, task: Task) -> None:
    whole, cut = (evaluate(base, {}, 1.0, task, max_new_tokens=most) for most in (None, 1))
    for answer, first in zip(whole, cut, strict=True):
        assert answer.prediction.startswith(first.prediction)
        assert len(first.prediction) < len(answer.prediction) or answer == first


def test_scores_are_percent_and_progress_is_told(base: Base, task: Task) -> None:
    told: list[int] = []
    predictions = evaluate(base, lora_of(base, LANGUAGE), 1.0, task, batch_size=3, on_examples=told.append)
    assert told == [3, 6, 9, 10]
    for prediction in predictions:
        assert prediction.score == 100.0 * (prediction.prediction.strip().lower() in prediction.answers)
    result = summed_up(unscored(task, base.fingerprint, None), predictions)
    assert (result.stage, result.tasks, result.n, result.base) == ("base", (), 10, base.fingerprint)
    assert result.score == np.mean([prediction.score for prediction in predictions])
    assert (result.types, result.unread) == (None, 0)
    assert result.examples != unscored(task, base.fingerprint, None, limit=4).examples

"""Terms of the loss: how they are asked for, what each of them is, and what is told of them."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pamctl.models.base import Base
from pamctl.models.paligemma import suffix_logits, suffix_states, suffix_targets
from pamctl.refusal import UsageRefusal
from pamctl.training.metrics_log import FILE_NAME, MetricsLog
from pamctl.training.preparation import Prepared
from pamctl.training.reports import Reports, StepResult
from pamctl.training.terms import Term, resolved_terms, term_record
from pamctl.training.terms.step import Step
from pamctl.training.throughput import StepWork
from tests.training_cases import CONFIG, second_task


def term(text: str) -> Term:
    """The one term that a specification asks for."""
    ((_, found),) = resolved_terms([text])
    return found


def factors(a: Any, b: Any) -> Any:
    """One layer of one module, A (r, in) and B (out, r) turned as the model holds them."""
    turned = {"a": jnp.float32(np.array(a).T[None]), "b": jnp.float32(np.array(b).T[None])}
    return {"language_model": {"q_proj": turned}}


def step_of(lora: Any, reference: Any) -> Step:
    """A step for terms that look at factors alone."""
    nothing: Any = None
    return Step(CONFIG, {}, lora, reference, {}, 1.0, nothing, nothing, nothing, "none")


def test_terms_are_parsed_and_a_later_one_replaces_an_earlier() -> None:
    found = resolved_terms(("lwf", "orth"), ("lwf:weight=0.5,temperature=3,t_squared=true", "l2:weight=1e-3"))
    assert term_record(found) == [
        {"term": "lwf", "weight": 0.5, "temperature": 3.0, "t_squared": True},
        {"term": "orth", "weight": 0.5, "power": "abs", "reduction": "sum", "norm_weight": 0.0},
        {"term": "l2", "weight": 0.001},
    ]
    assert resolved_terms(("lwf",), ("lwf:weight=0",)) == ()
    assert resolved_terms(["consistency:"]) == resolved_terms(["consistency"])


def test_defaults_are_those_of_the_sources() -> None:
    record = term_record(resolved_terms(["lwf", "l2", "orth", "consistency"]))
    assert record == [
        {"term": "lwf", "weight": 1.0, "temperature": 2.0, "t_squared": False},
        {"term": "l2", "weight": 0.01},
        {"term": "orth", "weight": 0.5, "power": "abs", "reduction": "sum", "norm_weight": 0.0},
        {"term": "consistency", "weight": 1.0},
    ]


@pytest.mark.parametrize(
    ("text", "what", "way_on"),
    [
        ("ewc", "no term is called 'ewc'", "consistency, l2, lwf, orth"),
        ("", "no term is called ''", "l2, lwf"),
        ("lwf:wieght=1", "'wieght=1' is no parameter of lwf", "did you mean weight?"),
        ("lwf:weight", "'weight' is no parameter", "NAME:parameter=value"),
        ("orth:norm_wieght=1", "is no parameter of orth", "did you mean norm_weight?"),
        ("lwf:weight=much", "weight is 'much'", "give a number"),
        ("lwf:weight=", "weight is ''", "give a number"),
        ("lwf:weight=nan", "weight is nan", "in its range"),
        ("l2:weight=inf", "weight is inf", "in its range"),
        ("l2:weight=-1", "weight is -1", "in its range"),
        ("consistency:weight=-0.5", "weight is -0.5", "in its range"),
        ("lwf:temperature=0", "temperature is 0", "in its range"),
        ("lwf:temperature=nan", "temperature is nan", "in its range"),
        ("lwf:t_squared=yes", "t_squared is 'yes'", "true or false"),
        ("orth:power=cube", "power is 'cube'", "in its range"),
        ("orth:reduction=max", "reduction is 'max'", "in its range"),
        ("orth:norm_weight=-1", "norm_weight is -1", "in its range"),
    ],
)
def test_what_is_no_term_is_refused(text: str, what: str, way_on: str) -> None:
    with pytest.raises(UsageRefusal) as refused:
        resolved_terms([text])
    assert what in refused.value.what
    assert way_on in refused.value.way_on


def test_weight_distance_by_hand() -> None:
    # (1-0)² + (2-4)² + (3-3)² + (-1-1)²
    new, old = factors([[1, 2]], [[3], [-1]]), factors([[0, 4]], [[3], [1]])
    assert float(term("l2")(step_of(new, old))) == 9


@pytest.mark.parametrize(
    ("parameters", "value"),
    [
        # A_before A_newᵀ = [[1·3 + 2·(-1), 0], [-3 - 1, 0]] = [[1, 0], [-4, 0]]
        ("", 5.0),
        ("power=square", 17.0),
        ("reduction=mean", 5 / 4),
        ("power=square,reduction=mean", 17 / 4),
        # The norms of the new A and B are √10 and 5.
        ("norm_weight=0.1", 5 + 0.1 * (math.sqrt(10) + 5)),
    ],
)
def test_orthogonality_by_hand(parameters: str, value: float) -> None:
    old = factors([[1, 2], [-1, 1]], [[9, 9]])
    new = factors([[3, -1], [0, 0]], [[3, 4]])
    assert float(term(f"orth:{parameters}")(step_of(new, old))) == pytest.approx(value)


def test_orthogonality_holds_any_number_of_tasks_before_against_the_new_one() -> None:
    old = factors([[1, 0], [0, 1], [2, 2]], [[1, 1, 1]])
    assert float(term("orth")(step_of(factors([[1, -3]], [[0]]), old))) == 1 + 3 + 4


def test_factors_at_zero_have_a_gradient_of_zero() -> None:
    new, old = factors([[3, 4]], [[0], [0]]), factors([[1, 0]], [[1], [1]])
    orth = term("orth:norm_weight=1")
    assert float(orth(step_of(new, old))) == 3 + 5
    gradient = jax.grad(lambda lora: orth(step_of(lora, old)))(new)["language_model"]["q_proj"]
    np.testing.assert_array_equal(gradient["b"], np.zeros((1, 1, 2)))
    np.testing.assert_allclose(gradient["a"].ravel(), [1 + 3 / 5, 4 / 5], rtol=1e-6)


@pytest.fixture(scope="module")
def prepared(inputs: Path, base: Base) -> Prepared:
    return second_task(inputs, base, steps=4, batch_size=4, method="lwf")


@pytest.fixture(scope="module")
def step(prepared: Prepared, base: Base) -> Step:
    """The first batch of shapes, with factors some way from those of `first` and a slow adapter between."""
    run = prepared.run
    batch = run.split.batch(run.order(1))
    draws = np.random.default_rng(0)
    lora, slow = (
        jax.tree.map(lambda leaf: leaf + draws.normal(0, 0.3, leaf.shape).astype(np.float32), run.start)
        for _ in range(2)
    )
    states = jax.jit(partial(suffix_states, CONFIG, remat="none"))
    hidden = states(base.parameters, lora, 1.0, batch.images, batch.texts)
    return Step(
        CONFIG, base.parameters, lora, run.start, slow, 1.0, batch.images, batch.texts, hidden, "none"
    )


def value_of(text: str, step: Step) -> float:
    of = term(text)
    return float(jax.jit(lambda: of(step))())


def log_probabilities(step: Step, lora: Any, temperature: float) -> np.ndarray:
    logits = suffix_logits(CONFIG, step.params, lora, 1.0, step.features, step.texts)
    scaled = np.asarray(logits, np.float64) / temperature
    return scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_lwf_by_its_formula(step: Step, temperature: float) -> None:
    before, now = (log_probabilities(step, of, temperature) for of in (step.reference, step.lora))
    divergence = (np.exp(before) * (before - now)).sum(-1)
    real = np.asarray(suffix_targets(step.texts)[1])
    expected = np.mean([row[there].mean() for row, there in zip(divergence, real, strict=True)])
    assert expected > 0.01
    assert value_of(f"lwf:temperature={temperature}", step) == pytest.approx(expected, rel=1e-4)
    squared = value_of(f"lwf:temperature={temperature},t_squared=true", step)
    assert squared == pytest.approx(temperature**2 * expected, rel=1e-4)


def test_consistency_counts_where_the_slow_states_are_above(step: Step) -> None:
    slow = np.asarray(jax.jit(lambda: step.states_of(step.slow))(), np.float64)
    short = np.square(np.maximum(slow - np.asarray(step.hidden, np.float64), 0)).mean(-1)
    real = np.asarray(suffix_targets(step.texts)[1])
    assert short[real].mean() > 1e-4
    assert value_of("consistency", step) == pytest.approx(short[real].mean(), rel=1e-4)


def reports_of(prepared: Prepared, log: MetricsLog, told: list[str]) -> Reports:
    work = StepWork.of(CONFIG, prepared.run.start, features_given=True)
    return Reports(prepared.run.configuration, None, log, work, warn=told.append)


def result(step: int, loss: float, **terms: float) -> StepResult:
    parts = {name: jnp.float32(part) for name, part in terms.items()}
    return StepResult(step, jnp.float32(loss), parts, None, 4, 40, 8)


def test_terms_are_told_each_step(prepared: Prepared, tmp_path: Path) -> None:
    log = MetricsLog()
    told: list[str] = []
    reports = reports_of(prepared, log, told)
    reports.add(result(1, 3.5, lwf=0.25, l2=1.0))
    reports.settle()
    log.write_to(tmp_path)
    (event,) = [json.loads(line) for line in (tmp_path / FILE_NAME).read_text().splitlines()]
    assert event["loss"] == 3.5
    assert event["terms"] == {"lwf": 0.25, "l2": 1.0}
    assert told == []


def test_a_term_above_ten_times_the_cross_entropy_is_told_of_once(prepared: Prepared) -> None:
    told: list[str] = []
    reports = reports_of(prepared, MetricsLog(), told)
    for step, loss, part in ((1, 11.0, 10.0), (2, 13.0, 12.0), (3, 41.0, 40.0)):
        reports.add(result(step, loss, orth=part))
    reports.settle()
    (warning,) = told
    assert "term orth is 12 times the cross-entropy at step 2" in warning
    assert "--term orth:weight=" in warning

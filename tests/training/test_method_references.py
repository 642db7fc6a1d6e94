"""Each method's second task on the engine against the same in float64 torch, written from its formula."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pamctl.adapters import Adapter, LoraFactors, open_adapter  # noqa: E402
from pamctl.models.base import Base  # noqa: E402
from pamctl.models.lora import init_lora  # noqa: E402
from pamctl.tasks import open_task  # noqa: E402
from pamctl.training.epochs import batch_visits  # noqa: E402
from pamctl.training.inheritance import Inheritance  # noqa: E402
from pamctl.training.methods import METHODS  # noqa: E402
from pamctl.training.preparation import prepare  # noqa: E402
from tests.adapter_cases import saved  # noqa: E402
from tests.training.method_cases import (  # noqa: E402
    BATCH,
    SETTINGS,
    Bench,
    events,
)
from tests.training.torch_methods import (  # noqa: E402
    Encoded,
    Model,
    Realigned,
    Tensor,
    Update,
    Weights,
    adapted_modules,
    assert_close,
    each,
    encoded,
    flat,
    lora,
    merged,
    trained,
    weights_of,
    weights_of_tree,
)
from tests.training_cases import CONFIG, TARGETS  # noqa: E402

FAST: dict[str, Any] = {"learning_rate": 0.3, "align_every": 2}


class ReferenceBench(Bench):
    """Trains on the engine; has the same model and examples for the reference."""

    def __init__(self, inputs: Path, base: Base, out: Path) -> None:
        super().__init__(inputs, out)
        self.base, self.model = base, Model(inputs / "base")
        self.colours = encoded(base, inputs / "colours.jsonl")
        self.shapes = encoded(base, inputs / "shapes.jsonl")
        self.first = inputs / "first"
        self.start = weights_of(self.first)

    def batch(self, examples: list[Encoded], step: int, seed: int = 0) -> list[Encoded]:
        return [examples[place] for place in batch_visits(len(examples), BATCH, seed, step).examples]

    def cross_entropy(self, weights: Weights, step: int) -> Tensor:
        """Of plain LoRA on shapes."""
        return self.model.cross_entropy(self.batch(self.shapes, step), lora(weights))


@pytest.fixture(scope="module")
def bench(inputs: Path, base: Base, tmp_path_factory: pytest.TempPathFactory) -> ReferenceBench:
    return ReferenceBench(inputs, base, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def finetuned(bench: ReferenceBench) -> Path:
    return bench("finetune")


@pytest.fixture(scope="module")
def pam(bench: ReferenceBench) -> Path:
    return bench("pam", top_p=50, **FAST)


@pytest.fixture(scope="module")
def expected(bench: ReferenceBench) -> Weights:
    """The second task of fine-tuning, from which Average, TIES, TALL and MagMax have theirs."""
    return trained(bench.start, bench.cross_entropy)


@pytest.fixture(scope="module")
def expected_pam(bench: ReferenceBench) -> Weights:
    rule = Realigned(bench.start, 50, 2)
    weights = trained(bench.start, bench.cross_entropy, rate=0.3, after=rule)
    assert rule.put_back > 0
    return weights


def test_finetune_warms_up_decays_and_smooths(bench: ReferenceBench) -> None:
    how: dict[str, Any] = {"steps": 40, "weight_decay": 0.01, "label_smoothing": 0.2}
    smoothed = encoded(bench.base, bench.inputs / "shapes.jsonl", 0.2)

    def loss(weights: Weights, step: int) -> Tensor:
        return bench.model.cross_entropy(bench.batch(smoothed, step), lora(weights))

    reference = trained(bench.start, loss, 40, decay=0.01)
    assert_close(weights_of(bench("finetune", **how)), reference, 1e-4)


def test_finetune(finetuned: Path, expected: Weights) -> None:
    assert_close(weights_of(finetuned), expected)


def test_first_task(bench: ReferenceBench) -> None:
    start = weights_of_tree(init_lora(CONFIG, 3, TARGETS, 0))

    def loss(weights: Weights, step: int) -> Tensor:
        return bench.model.cross_entropy(bench.batch(bench.colours, step), lora(weights, 2.0))

    reference = trained(start, loss)
    folded = {name: of * 2 if name.endswith("lora_B") else of for name, of in reference.items()}
    out = bench("pam", "colours", global_adapter=None, alpha=6)
    assert_close(weights_of(out), folded)


@pytest.mark.parametrize("method", ["average", "ties", "tall", "magmax"])
def test_what_merges_afterwards_trains_as_finetune(
    bench: ReferenceBench, expected: Weights, method: str
) -> None:
    assert_close(weights_of(bench(method)), expected)


def test_average(bench: ReferenceBench, finetuned: Path, expected: Weights) -> None:
    mean = each(lambda old, new: (old + new) / 2, bench.start, expected)
    assert_close(merged(bench.first, finetuned, METHODS["average"].merge or {}), mean)


def test_pam(bench: ReferenceBench, pam: Path, expected_pam: Weights) -> None:
    assert_close(weights_of(pam), expected_pam, 1e-4)
    mean = each(lambda old, new: (old + new) / 2, bench.start, expected_pam)
    assert_close(merged(bench.first, pam, METHODS["pam"].merge or {}), mean, 1e-4)


def test_ties(bench: ReferenceBench, finetuned: Path, expected: Weights) -> None:
    old, new = (_largest(flat(of), 0.9) for of in (bench.start, expected))
    sign = (old + new).sign()
    agree = [torch.where((of.sign() == sign) & (of != 0), of, 0.0) for of in (old, new)]
    count = sum((of != 0).double() for of in agree)
    mean = (agree[0] + agree[1]) / torch.clamp(count, min=1)
    found = merged(bench.first, finetuned, METHODS["ties"].merge or {})
    assert_close({"all": flat({name: found[name] for name in bench.start})}, {"all": mean})
    assert 0 < int((mean == 0).sum()) < len(mean) / 5


# A and B of a global and a task adapter, twenty numbers each: TIES trims the 0.1 and the 0.2 of either.
GLOBAL: Any = [4, -3, 2, 0.1, 5, 5, 5, 5, 5, 5], [1, -1, 8, 0.2, 5, 5, 5, 5, 5, 5]
TASK: Any = [2, 1, -3, 6, 0.1, 5, 5, 5, 5, 5], [1, 1, 0.5, 7, 0.2, 5, 5, 5, 5, 5]
BY_HAND: dict[str, Any] = {
    "average": ([3, -1, -0.5, 3.05, 2.55], [1, 0, 4.25, 3.6, 2.6]),
    # Where signs differ the larger survives whole; at -1 and 1 the sign that most others have, which is +.
    "ties": ([3, -3, -3, 6, 5], [1, 1, 4.25, 7, 5]),
    # 0.1 is less than a tenth of 6 and of 5, 0.5 than one of 8, 0.2 than one of 7 and of 5.
    "tall": ([3, -1, -0.5, 0, 0], [1, 0, 0, 0, 0]),
    # Of -1 and 1 the later.
    "magmax": ([4, -3, -3, 6, 5], [1, 1, 8, 7, 5]),
}


@pytest.mark.parametrize("method", BY_HAND)
def test_merges_by_hand(tmp_path: Path, method: str) -> None:
    for name, (a, b) in (("global", GLOBAL), ("task", TASK)):
        factors = LoraFactors(np.array([a], np.float32), np.array([b], np.float32).T, 1.0)
        saved(Adapter({"language_model.layers.0.self_attn.q_proj": factors}), tmp_path / name)
    found = merged(tmp_path / "global", tmp_path / "task", METHODS[method].merge or {})
    module = "layers.0.self_attn.q_proj"
    for factor, first in zip(("lora_A", "lora_B"), BY_HAND[method], strict=True):
        np.testing.assert_allclose(found[f"{module}.{factor}"].ravel(), [*first, 5, 5, 5, 5, 5], rtol=1e-6)


@pytest.mark.parametrize("method", ["tall", "tall+pam"])
def test_tall(bench: ReferenceBench, pam: Path, expected_pam: Weights, method: str) -> None:
    out = bench(method, **FAST) if METHODS[method].aligns else pam
    assert_close(weights_of(out), expected_pam, 1e-4)

    def masked(old: Tensor, new: Tensor) -> Tensor:
        both = (old.abs() > 0.1 * new.abs()) & (new.abs() > 0.1 * old.abs())
        return torch.where(both, (old + new) / 2, 0.0)

    reference = each(masked, bench.start, expected_pam)
    assert int((flat(reference) == 0).sum()) > 0
    assert_close(merged(bench.first, out, METHODS[method].merge or {}), reference, 1e-4)


def test_magmax_goes_on_with_the_chain_and_merges_beside_it(
    bench: ReferenceBench, finetuned: Path, expected: Weights, tmp_path: Path
) -> None:
    def larger(old: Tensor, new: Tensor) -> Tensor:
        return torch.where(new.abs() >= old.abs(), new, old)

    by = METHODS["magmax"].merge or {}
    state = each(larger, bench.start, expected)
    assert_close(merged(bench.first, finetuned, by), state)
    # The state after two tasks is not where the third one starts.
    out = bench("magmax", "colours", global_adapter=bench.first, previous=finetuned)

    def loss(weights: Weights, step: int) -> Tensor:
        return bench.model.cross_entropy(bench.batch(bench.colours, step), lora(weights))

    assert_close(weights_of(out), trained(expected, loss), 1e-4)


def distilled(
    bench: ReferenceBench, weight: float = 1.0, temperature: float = 2.0
) -> Callable[[Weights, int], Tensor]:
    """Cross-entropy and KL(softmax(z_old / T) || softmax(z_new / T))."""

    def loss(weights: Weights, step: int) -> Tensor:
        examples, each_mean = bench.batch(bench.shapes, step), []
        for example in examples:
            old, new = (
                bench.model.log_probabilities(bench.model.states(example, lora(of)), temperature)
                for of in (bench.start, weights)
            )
            each_mean.append((old.exp() * (old - new)).sum(-1).mean())
        return bench.cross_entropy(weights, step) + weight * torch.stack(each_mean).mean()

    return loss


def test_lwf_and_what_is_told_of_it(bench: ReferenceBench, expected: Weights) -> None:
    losses: list[tuple[float, ...]] = []

    def loss(weights: Weights, step: int) -> Tensor:
        whole = distilled(bench)(weights, step)
        parts = whole, whole - bench.cross_entropy(weights, step)
        losses.append(tuple(part.detach().item() for part in parts))
        return whole

    reference, out = trained(bench.start, loss), bench("lwf")
    assert_close(weights_of(out), reference)
    with pytest.raises(AssertionError, match="is off by"):
        assert_close(reference, expected, 1e-3)
    assert losses[-1][1] > 1e-4
    told = [(event["loss"], event["terms"]["lwf"]) for event in events(out, "step")]
    np.testing.assert_allclose(told, losses, rtol=1e-4, atol=1e-6)


def test_lwf_and_pam(bench: ReferenceBench) -> None:
    rule = Realigned(bench.start, 50, 2)
    reference = trained(bench.start, distilled(bench), rate=0.3, after=rule)
    assert rule.put_back > 0
    out = bench("lwf+pam", **FAST)
    assert_close(weights_of(out), reference, 1e-4)
    mean = each(lambda old, new: (old + new) / 2, bench.start, reference)
    assert_close(merged(bench.first, out, METHODS["lwf+pam"].merge or {}), mean, 1e-4)


def test_l2(bench: ReferenceBench, expected: Weights) -> None:
    def loss(weights: Weights, step: int) -> Tensor:
        distance = (flat(weights) - flat(bench.start)).square().sum()
        return bench.cross_entropy(weights, step) + 0.5 * distance

    reference = trained(bench.start, loss)
    assert_close(weights_of(bench("l2", terms=["l2:weight=0.5"])), reference)
    with pytest.raises(AssertionError, match="is off by"):
        assert_close(reference, expected, 1e-3)


def test_finetune_and_alignment(bench: ReferenceBench, expected_pam: Weights) -> None:
    assert_close(weights_of(bench("finetune+align", **FAST)), expected_pam, 1e-4)


def test_ilora_averages_over_steps_and_tasks(bench: ReferenceBench) -> None:
    fast = weights_of_tree(init_lora(CONFIG, 3, TARGETS, 0))
    average, before = fast, None
    for task, examples in (("colours", bench.colours), ("shapes", bench.shapes)):

        def loss(weights: Weights, step: int, examples: list[Encoded] = examples) -> Tensor:
            return bench.model.cross_entropy(bench.batch(examples, step), lora(weights))

        slow = [average]

        def follow(weights: Weights, step: int, slow: list[Weights] = slow) -> Weights:
            of_slow = min(1 - 1 / (step + 1), 0.25)
            slow.append(each(lambda s, f: of_slow * s + (1 - of_slow) * f, slow[-1], weights))
            return weights

        fast = trained(fast, loss, after=follow)
        average = slow[-1]
        before = bench("ilora", task, global_adapter=before)
        assert_close(weights_of(before), average)
        assert_close(weights_of(before / "fast"), fast)


def test_olora_stacks_on_frozen_factors(bench: ReferenceBench) -> None:
    given: dict[str, Any] = {"alpha": 6.0, "seed": 1}
    task = open_task(str(bench.inputs / "shapes.jsonl"))
    inherited = Inheritance(open_adapter(bench.first))
    how: Any = {"method": "olora", **SETTINGS, **given}
    start = weights_of_tree(prepare([task], bench.base, inherited, how).run.start)
    assert all(not of.any() for name, of in start.items() if name.endswith("lora_B"))

    def loss(weights: Weights, step: int) -> Tensor:
        def both(module: str, x: Tensor) -> Tensor | float:
            return lora(bench.start)(module, x) + lora(weights, 2.0)(module, x)

        examples = bench.batch(bench.shapes, step, seed=1)
        products = [
            (weights[f"{module}.lora_A"] @ bench.start[f"{module}.lora_A"].T).abs().sum()
            for module in adapted_modules(weights)
        ]
        return bench.model.cross_entropy(examples, both) + 0.5 * sum(products)

    new = trained(start, loss)
    reference = {
        name: torch.cat([old, new[name]])
        if name.endswith("lora_A")
        else torch.cat([old, 2.0 * new[name]], dim=1)
        for name, old in bench.start.items()
    }
    assert_close(weights_of(bench("olora", **given)), reference, 1e-4)


def gated(weights: Weights) -> Update:
    """sum_e softmax(R x)_e B_e A_e x with three experts of rank 1."""

    def update(module: str, x: Tensor) -> Tensor | float:
        if f"{module}.lora_A" not in weights:
            return 0.0
        down, up, router = (weights[f"{module}.{part}"] for part in ("lora_A", "lora_B", "router"))
        gates = torch.softmax(x @ router.T, -1)
        return torch.stack([gates[:, [e]] * (x @ down[[e]].T @ up[:, [e]].T) for e in range(3)]).sum(0)

    return update


def test_moelora_gates_every_token(bench: ReferenceBench) -> None:
    before, weights = None, weights_of_tree(init_lora(CONFIG, 3, TARGETS, 0, experts=3))
    for task, examples in (("colours", bench.colours), ("shapes", bench.shapes)):

        def loss(weights: Weights, step: int, examples: list[Encoded] = examples) -> Tensor:
            return bench.model.cross_entropy(bench.batch(examples, step), gated(weights))

        moved = trained(weights, loss)
        before = bench("moelora", task, global_adapter=before, experts=3)
        assert_close(weights_of(before), moved, 1e-4)
        router = "layers.0.self_attn.q_proj.router"
        assert not torch.equal(moved[router], weights[router])
        weights = moved


@pytest.fixture(scope="module")
def first_kept(bench: ReferenceBench) -> Path:
    """A first task whose examples are kept, seven of the ten, with their label smoothing."""
    given: dict[str, Any] = {"replay": "buffer=7", "label_smoothing": 0.2, "global_adapter": None}
    return bench("er", "colours", **given)


@pytest.mark.parametrize("method", ["er", "er+pam"])
def test_er(bench: ReferenceBench, first_kept: Path, method: str) -> None:
    lines = (first_kept / "replay" / "buffer.jsonl").read_text().splitlines()
    kept = [json.loads(line)["id"] for line in lines]
    assert len(kept) == 7
    smoothed = encoded(bench.base, bench.inputs / "colours.jsonl", 0.2)
    replayed = [smoothed[int(identity.removeprefix("colours-"))] for identity in kept]

    def loss(weights: Weights, step: int) -> Tensor:
        examples = bench.batch(bench.shapes, step) + bench.batch(replayed, step)
        return bench.model.cross_entropy(examples, lora(weights))

    start = weights_of(first_kept)
    rule = Realigned(start, 50, 2)
    aligns, rate = METHODS[method].aligns, {"er": 0.02, "er+pam": 0.1}[method]
    reference = trained(start, loss, rate=rate, after=rule if aligns else lambda now, step: now)
    assert (rule.put_back > 0) == aligns
    given: dict[str, Any] = {"label_smoothing": 0.0, "learning_rate": rate, "align_every": 2}
    out = bench(method, global_adapter=first_kept, **given)
    assert_close(weights_of(out), reference, 1e-4 if aligns else 1e-5)


def _largest(vector: Tensor, share: float) -> Tensor:
    """The vector with all but that share of its entries, the largest, set to 0."""
    order = torch.argsort(vector.abs(), descending=True)
    kept = torch.zeros_like(vector)
    top = order[: int(share * len(vector))]
    kept[top] = vector[top]
    return kept

"""Whole merges against mergekit's of dense models: adapters on one side, base + deltas on the other.

mergekit merges the state dicts of models that were fine-tuned from one base; here they are the base with the
deltas of adapters added, so that what its merge adds to the base is the delta that the merged adapter should
have. Methods that know no base get the deltas alone. What is random keeps what our draws keep.

Where mergekit does something that no delta deserves, a test says so by name.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from pamctl.adapters import Adapter, LoraFactors, open_adapter
from pamctl.merging import merge
from pamctl.merging.random_numbers import Draws
from pamctl.refusal import Refusal
from tests.adapter_cases import SIZES, delta, random_factors, saved

torch = pytest.importorskip("torch")
api = pytest.importorskip("mergekit.merge_methods.api")

Deltas = dict[str, Any]
RANKS, SCALES = (3, 2, 4), (1.0, 2.0, 0.5)
LAST = list(SIZES)[-1]


def inputs(
    shares: Sequence[float] = (1.0, 0.5, -0.2), *, size: float = 1.0, without: str | None = None
) -> list[Adapter]:
    """Random adapters of different ranks and scales.

    Args:
        shares: how much of one strong direction each has, beside what is its own.
        size: what every delta is multiplied by.
        without: a module that the last one lacks.
    """
    adapters = [
        Adapter({module: _factors(i, module, share, size) for module in SIZES}, name=str(i))
        for i, share in enumerate(shares)
    ]
    if without:
        left = {module: adapters[-1].modules[module] for module in SIZES if module != without}
        adapters[-1] = Adapter(left, name="the last")
    return adapters


def _factors(i: int, module: str, share: float, size: float) -> LoraFactors:
    place, scale = list(SIZES).index(module), SCALES[i]
    own = random_factors(100 * i + place, *SIZES[module], RANKS[i])
    common = random_factors(900 + place, *SIZES[module], 1)
    a = np.concatenate([own.a, common.a])
    b = np.concatenate([own.b, 3 * share / scale * common.b], axis=1)
    return LoraFactors(a, (size * b).astype(np.float32), scale)


def dense(adapter: Adapter) -> Deltas:
    return {module: delta(factors) for module, factors in adapter.modules.items()}


def base_model() -> Deltas:
    rng = np.random.default_rng(7)
    return {module: rng.standard_normal((rows, columns)) for module, (columns, rows) in SIZES.items()}


class OurDraws:
    """Stands in for torch.bernoulli: one call after the other keeps what the draws of our merge keep.

    mergekit draws module by module, for each model that has something there to drop.
    """

    def __init__(self, adapters: Sequence[Adapter]) -> None:
        self.draws: Iterator[Draws] = iter(
            Draws(0, adapter.claimed_fingerprint, f"{module} delta".replace(".", "_"))
            for module in SIZES
            for adapter in adapters
        )

    def __call__(self, probabilities: Any) -> Any:
        numbers = next(self.draws).numbers(0, probabilities.numel()).reshape(probabilities.shape)
        return (torch.from_numpy(numbers) < probabilities).to(probabilities.dtype)


@dataclass(frozen=True)
class Kind:
    """A method of both, named and set as each has it.

    Args:
        weights: of the adapters; None where mergekit has none.
        base: whether it gets base + delta and the base; else the deltas alone.
        first: whether the first delta is its base.
        two: whether it takes two inputs.
    """

    ours: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    theirs: Mapping[str, Any] = field(default_factory=dict)
    weights: Sequence[float] | None = (0.3, 1.2, 0.7)
    variant: str | None = None
    base: bool = True
    first: bool = False
    two: bool = False


def merged_by_mergekit(kind: Kind, adapters: Sequence[Adapter]) -> Deltas:
    """The dense delta that mergekit's merge adds to the base."""
    base = base_model()
    if not kind.base:
        base = {module: np.zeros_like(weight) for module, weight in base.items()}
    models: dict[str, Any] = {"base": _tensors(base)} if kind.base else {}
    for i, adapter in enumerate(adapters):
        deltas = dense(adapter)
        models[str(i)] = _tensors(
            {module: weight + deltas.get(module, 0.0) for module, weight in base.items()}
        )
    given = dict(kind.theirs)
    if kind.weights is not None:
        given["weight"] = {str(i): weight for i, weight in enumerate(kind.weights[: len(adapters)])}
    origin = "base" if kind.base else "0" if kind.first else None
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch, "bernoulli", OurDraws(adapters))
        merged = api.merge_state_dicts(models, kind.ours.replace("-", "_"), parameters=given, base=origin)
    return {module: merged[module].numpy() - base[module] for module in base}


def _tensors(weights: Deltas) -> dict[str, Any]:
    return {module: torch.from_numpy(weight.copy()) for module, weight in weights.items()}


def merged_by_us(kind: Kind, adapters: Sequence[Adapter], folder: Path) -> Deltas:
    """The delta of the merged adapter as it is read from where it was written."""
    merged = merge(
        adapters,
        kind.ours,
        None if kind.weights is None else kind.weights[: len(adapters)],
        space="delta",
        variant=kind.variant,
        parameters=kind.parameters,
        energy=1.0,
        svd="full",
    )
    return dense(open_adapter(saved(merged, folder)))


def assert_same(ours: Deltas, theirs: Deltas, tolerance: float = 1e-5) -> None:
    assert ours.keys() == theirs.keys()
    for module, expected in theirs.items():
        off, whole = np.linalg.norm(ours[module] - expected), np.linalg.norm(expected)
        assert off <= tolerance * whole, f"{module} is off by {off / whole:.3g}"


def of_both(name: str, merge: str | None = None, /, **both: Any) -> Kind:
    """A kind of variant `mergekit` whose parameters are called alike, but for the mean or sum of TIES."""
    normalize = {} if merge is None else {"normalize": merge == "mean"}
    own = {} if merge is None else {"merge": merge}
    return Kind(name, {**both, **own}, {**both, **normalize}, variant="mergekit")


KINDS = {
    "linear": Kind("linear", variant="mergekit", base=False),
    "linear, not normalized": Kind("linear", {}, {"normalize": False}, variant="paper", base=False),
    "task arithmetic": Kind("task-arithmetic", {"lambda": 0.4}, {"lambda": 0.4}, weights=(0.3, -1.2, 0.7)),
    "ties": of_both("ties", density=0.4),
    "ties, trimming nothing": of_both("ties", density=1.0),
    "ties, summed": of_both("ties", "sum", density=0.4, **{"lambda": 0.7}),
    "dare_linear": of_both("dare-linear", density=0.6),
    "dare_linear, not rescaled": of_both("dare-linear", density=0.6, rescale=False),
    "dare_linear, dropping nothing": of_both("dare-linear", density=1.0),
    "dare_ties": of_both("dare-ties", density=0.6),
    "dare_ties, normalized": of_both("dare-ties", "mean", density=0.6),
    "dare_ties, dropping nothing": of_both("dare-ties", density=1.0),
    "della": of_both("della", density=0.6, epsilon=0.2),
    "della, summed": of_both("della", "sum", density=0.6, epsilon=0.2, rescale=False),
    "della of one probability": of_both("della", density=0.6, epsilon=0.0),
    "della_linear": of_both("della-linear", density=0.6, epsilon=0.2, **{"lambda": 0.7}),
    "breadcrumbs": of_both("breadcrumbs", density=0.5, gamma=0.1),
    "breadcrumbs, of a density that leaves no room": of_both("breadcrumbs", density=0.95, gamma=0.1),
    "breadcrumbs_ties": of_both("breadcrumbs-ties", density=0.5, gamma=0.1),
    "breadcrumbs_ties, normalized": of_both("breadcrumbs-ties", "mean", density=0.5, gamma=0.1),
    "sce": Kind("sce", weights=None),
    "sce of a share": Kind("sce", {"select_topk": 0.3}, {"select_topk": 0.3}, weights=None),
    "model_stock": Kind("model-stock", weights=None),
    "multislerp": Kind("multislerp"),
    "multislerp, not normalized": Kind(
        "multislerp", {"normalize_weights": False}, {"normalize_weights": False}
    ),
    "karcher": Kind("karcher", weights=None, base=False),
    "karcher in one step": Kind("karcher", {"max_iter": 1}, {"max_iter": 1}, weights=None, base=False),
    "nuslerp": Kind("nuslerp", two=True),
    "nuslerp by rows": Kind("nuslerp", {"row_wise": True}, {"nuslerp_flatten": False}, two=True),
    "slerp": Kind("slerp", {"t": 0.3}, {"t": 0.3}, weights=None, base=False, first=True, two=True),
    "nearswap": Kind("nearswap", {"t": 0.3}, {"t": 0.3}, weights=None, base=False, first=True, two=True),
}
PER_ADAPTER = {
    "ties": ("density", (0.2, 0.5, 1.0)),
    "dare_linear": ("density", (0.3, 0.9, 0.5)),
    "della_linear": ("epsilon", (0.1, 0.3, 0.05)),
    "breadcrumbs": ("gamma", (0.1, 0.02, 0.3)),
}


@pytest.mark.parametrize("name", KINDS)
def test_adapters_merge_as_mergekit_merges_the_models_they_make(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    adapters = inputs((1.0, 0.5)) if kind.two else inputs((1.0, 0.5, 0.7))
    assert_same(merged_by_us(kind, adapters, tmp_path / "ours"), merged_by_mergekit(kind, adapters))


BY_VARIANCE = "sce of a share"
LEFT_OUT = [
    BY_VARIANCE,
    *(name for name, kind in KINDS.items() if kind.ours in ("multislerp", "karcher", "model-stock")),
]


@pytest.mark.parametrize("name", [name for name in KINDS if name not in LEFT_OUT and not KINDS[name].two])
def test_a_module_that_one_adapter_lacks_is_one_that_its_model_has_unchanged(
    name: str, tmp_path: Path
) -> None:
    kind, adapters = KINDS[name], inputs((1.0, 0.5, 0.7), without=LAST)
    assert_same(merged_by_us(kind, adapters, tmp_path / "ours"), merged_by_mergekit(kind, adapters))


@pytest.mark.parametrize("name", LEFT_OUT)
def test_an_adapter_has_no_part_in_a_module_that_it_lacks(name: str, tmp_path: Path) -> None:
    """Its model has a delta of 0 there, with a variance and an angle, which other methods do not see."""
    kind, adapters = KINDS[name], inputs((1.0, 0.5, 0.7), without=LAST)
    ours, theirs = merged_by_us(kind, adapters, tmp_path / "ours"), merged_by_mergekit(kind, adapters)
    without = merged_by_mergekit(kind, adapters[:-1])
    assert_same(ours, {**theirs, LAST: without[LAST]})


@pytest.mark.parametrize("name", PER_ADAPTER)
def test_a_parameter_may_be_given_for_each(name: str, tmp_path: Path) -> None:
    kind, (parameter, values) = KINDS[name], PER_ADAPTER[name]
    each = {str(i): value for i, value in enumerate(values)}
    kind = Kind(
        kind.ours,
        {**kind.parameters, parameter: values},
        {**kind.theirs, parameter: each},
        variant=kind.variant,
    )
    adapters = inputs()
    assert_same(merged_by_us(kind, adapters, tmp_path / "ours"), merged_by_mergekit(kind, adapters))


@pytest.mark.parametrize("weights", [(1.0, -2.0, 0.5), (-1.0, 0.0, -0.2)])
@pytest.mark.parametrize("method", ["ties", "dare-ties", "breadcrumbs-ties", "della"])
def test_negative_weights_vote_where_those_that_agree_are_summed(
    method: str, weights: tuple[float, ...], tmp_path: Path
) -> None:
    kind = of_both(method, "sum", density=0.6)
    kind = Kind(method, kind.parameters, kind.theirs, weights, "mergekit")
    adapters = inputs()
    assert_same(merged_by_us(kind, adapters, tmp_path / "ours"), merged_by_mergekit(kind, adapters))


@pytest.fixture(scope="module")
def llamas(tmp_path_factory: Any) -> Path:
    """A folder with a small Llama in `base`, and adapters of it that peft saved in `0` and `1`."""
    from tests.parity.test_peft_adapters import llama, with_random_adapter

    folder = tmp_path_factory.mktemp("llamas")
    llama().save_pretrained(folder / "base")
    for i, config in enumerate([{"r": 2, "lora_alpha": 6}, {"r": 4, "lora_alpha": 4}]):
        base = llama()
        base.name_or_path = str(folder / "base")
        targets = ["q_proj", "o_proj", "gate_proj"]
        with_random_adapter(base, i, target_modules=targets, **config).save_pretrained(folder / str(i))
    return folder


@pytest.mark.filterwarnings("ignore")  # what mergekit and transformers tell each other
@pytest.mark.parametrize("name", ["task arithmetic", "ties", "breadcrumbs_ties", "sce", "multislerp"])
def test_adapters_merge_as_mergekit_merges_the_checkpoints_that_it_makes_of_them(
    name: str, llamas: Path, tmp_path: Path
) -> None:
    """Its whole program: adapters merged into the base by peft, models merged, a checkpoint written."""
    config, program, settings = (
        pytest.importorskip(f"mergekit.{part}") for part in ("config", "merge", "options")
    )
    kind = KINDS[name]
    weights = [None, None] if kind.weights is None else list(kind.weights[:2])
    models = [
        {"model": f"{llamas / 'base'}+{llamas / str(i)}", "parameters": {} if w is None else {"weight": w}}
        for i, w in enumerate(weights)
    ]
    asked = {
        "merge_method": kind.ours.replace("-", "_"),
        "base_model": str(llamas / "base"),
        "models": models,
        "parameters": dict(kind.theirs),
        "dtype": "float32",
    }
    options = settings.MergeOptions(
        lora_merge_cache=str(tmp_path / "cache"), copy_tokenizer=False, write_model_card=False, quiet=True
    )
    program.run_merge(config.MergeConfiguration.model_validate(asked), str(tmp_path / "theirs"), options)
    theirs, base = (_checkpoint(folder) for folder in (tmp_path / "theirs", llamas / "base"))
    ours = merged_by_us(kind, [open_adapter(llamas / str(i)) for i in range(2)], tmp_path / "ours")
    added = {key: weight.astype(np.float64) - base[key] for key, weight in theirs.items()}
    assert_same(ours, {module: added.pop(f"{module}.weight") for module in ours})
    assert not any(each.any() for each in added.values())


def _checkpoint(folder: Path) -> dict[str, Any]:
    return {key: weight for file in folder.glob("*.safetensors") for key, weight in load_file(file).items()}


class TestTrapsOfMergekit:
    def test_breadcrumbs_may_lose_everything_where_no_outlier_is_taken(self, tmp_path: Path) -> None:
        """Releases before 0.1.5 cut off the last gamma · n elements, all of them where that is under 1."""
        kind, adapters = of_both("breadcrumbs", density=0.5, gamma=0.001), inputs()
        theirs, ours = merged_by_mergekit(kind, adapters), merged_by_us(kind, adapters, tmp_path / "ours")
        assert all(each.any() for each in ours.values())
        if any(each.any() for each in theirs.values()):
            assert_same(ours, theirs)

    def test_breadcrumbs_of_less_than_one_element_lose_everything(self, tmp_path: Path) -> None:
        kind, adapters = of_both("breadcrumbs", density=0.002, gamma=0.0), inputs((1.0, 0.5))
        theirs, ours = merged_by_mergekit(kind, adapters), merged_by_us(kind, adapters, tmp_path / "ours")
        assert not any(each.any() for each in theirs.values())
        for module, each in ours.items():
            # each keeps its largest element, and has a weight that is not 0
            found = int((np.abs(each) > 1e-4 * np.abs(each).max()).sum())
            assert found in (1, 2), module

    @pytest.mark.parametrize("by_rows", [False, True])
    def test_model_stock_turns_the_mean_around_where_adapters_oppose_each_other(
        self, by_rows: bool, tmp_path: Path
    ) -> None:
        options, adapters = {"filter_wise": by_rows}, inputs((1.0, -0.2))
        kind = Kind("model-stock", options, options, weights=None)
        theirs, ours = merged_by_mergekit(kind, adapters), merged_by_us(kind, adapters, tmp_path / "ours")
        one, other = map(dense, adapters)
        opposed = 0
        for module, each in theirs.items():
            axis = 1 if by_rows else None
            lengths = (np.linalg.norm(x[module], axis=axis, keepdims=True) for x in (one, other))
            cosine = (one[module] * other[module]).sum(axis=axis, keepdims=True) / math.prod(lengths)
            mean, t = (one[module] + other[module]) / 2, 2 * cosine / (1 + cosine)
            np.testing.assert_allclose(each, t * mean, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(ours[module], np.maximum(t, 0) * mean, rtol=1e-5, atol=1e-5)
            opposed += int((t < 0).sum())
        assert opposed

    def test_model_stock_takes_small_deltas_for_unrelated(self, tmp_path: Path) -> None:
        """It divides by the product of both lengths, but by no less than 1e-6; that of a LoRA may be less."""
        kind, size = Kind("model-stock", weights=None), 2.0**-26
        large = merged_by_us(kind, inputs((2.0, 2.0)), tmp_path / "large")
        adapters = inputs((2.0, 2.0), size=size)
        theirs, ours = merged_by_mergekit(kind, adapters), merged_by_us(kind, adapters, tmp_path / "ours")
        assert_same(ours, {module: size * each for module, each in large.items()})
        assert all(
            np.linalg.norm(each) < 0.01 * np.linalg.norm(ours[module]) for module, each in theirs.items()
        )

    def test_sce_weighs_small_deltas_alike(self, tmp_path: Path) -> None:
        """It has equal weights where the mean squares add up to less than 1e-6, as those of LoRAs may."""
        kind, size = Kind("sce", weights=None), 2.0**-14
        large = merged_by_us(kind, inputs(), tmp_path / "large")
        adapters = inputs(size=size)
        theirs, ours = merged_by_mergekit(kind, adapters), merged_by_us(kind, adapters, tmp_path / "ours")
        assert_same(ours, {module: size * each for module, each in large.items()})
        equal = Kind("ties", {"density": 1.0}, weights=None, variant="mergekit")
        assert_same(theirs, merged_by_us(equal, adapters, tmp_path / "equal"))

    def test_karcher_loses_tensors_shorter_than_its_tolerance(self, tmp_path: Path) -> None:
        kind, size = Kind("karcher", weights=None, base=False), 2.0**-26
        large = merged_by_us(kind, inputs(), tmp_path / "large")
        adapters = inputs(size=size)
        theirs, ours = merged_by_mergekit(kind, adapters), merged_by_us(kind, adapters, tmp_path / "ours")
        assert not any(each.any() for each in theirs.values())
        assert_same(ours, {module: size * each for module, each in large.items()})

    def test_dare_makes_up_for_what_it_drops_by_length_and_not_by_probability(self, tmp_path: Path) -> None:
        adapters = inputs()
        theirs = merged_by_mergekit(of_both("dare-linear", density=0.6), adapters)
        paper = Kind("dare-linear", {"density": 0.6}, variant="paper")
        ours = merged_by_us(paper, adapters, tmp_path / "ours")
        off = [np.linalg.norm(ours[m] - theirs[m]) / np.linalg.norm(ours[m]) for m in theirs]
        assert all(1e-3 < each < 0.5 for each in off)

    def test_a_mean_of_what_agrees_may_divide_by_weights_that_cancel(self, tmp_path: Path) -> None:
        kind, adapters = of_both("ties", density=1.0), inputs()
        kind = Kind("ties", kind.parameters, kind.theirs, (1.0, -0.999, 0.0), "mergekit")
        largest = max(float(np.abs(each).max()) for adapter in adapters for each in dense(adapter).values())
        theirs = merged_by_mergekit(kind, adapters)
        assert max(float(np.abs(each).max()) for each in theirs.values()) > 100 * largest
        with pytest.raises(Refusal, match="divides by the weights"):
            merged_by_us(kind, adapters, tmp_path / "ours")

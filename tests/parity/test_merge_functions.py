"""The methods that trim, drop, elect signs or select, against the functions of peft and mergekit that do so.

What is random is compared with the peers' masks held fixed: their draw is replaced by the one used here.
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.merging.methods import (
    breadcrumbs,
    breadcrumbs_ties,
    dare_linear,
    dare_ties,
    della,
    della_linear,
    magnitude_prune,
    nearswap,
    sce,
    ties,
)
from pamctl.merging.methods.method import Float32
from tests.merging.methods.elementwise_cases import SEEDS, drawn, merged, random_inputs

torch = pytest.importorskip("torch")

DENSITIES = st.floats(0.1, 1)
INPUTS, SHAPE = 3, (6, 10)
WEIGHTS = st.lists(st.floats(0.1, 3), min_size=INPUTS, max_size=INPUTS)
SIGNS = st.sampled_from(["total", "frequency"])


class SameDraws:
    """Stands in for torch.bernoulli: one call after the other keeps what the draws of the inputs keep."""

    def __init__(self, inputs: list[Float32], seed: int) -> None:
        self.numbers: Iterator[Float32] = iter([drawn(seed, x) for x in inputs])

    def __call__(self, probabilities: Any) -> Any:
        return (torch.from_numpy(next(self.numbers)) < probabilities).to(probabilities.dtype)


def assert_same(found: Float32, theirs: Any) -> None:
    np.testing.assert_allclose(found, theirs.numpy(), rtol=2e-5, atol=2e-6)


def in_torch(inputs: list[Float32]) -> list[Any]:
    return [torch.from_numpy(x.copy()) for x in inputs]


class TestPeft:
    @pytest.fixture(autouse=True)
    def functions(self) -> None:
        self.peft = pytest.importorskip("peft.utils.merge_utils")

    @settings(max_examples=30)
    @given(SEEDS, WEIGHTS, st.floats(0.1, 0.99), SIGNS)
    def test_ties(self, seed: int, weights: list[float], density: float, sign: str) -> None:
        inputs = random_inputs(seed, INPUTS, SHAPE)
        theirs = self.peft.ties(in_torch(inputs), torch.tensor(weights), density, sign)
        assert_same(merged(ties.METHOD, inputs, weights, variant="peft", density=density, sign=sign), theirs)

    def test_ties_where_signs_cancel_and_with_negative_weights(self) -> None:
        inputs = [np.array([[1, -2, 3]], np.float32), np.array([[-1, 2, 3]], np.float32)]
        for weights in ([1.0, 1.0], [2.0, -1.0], [-1.0, -0.5], [1.0, 0.0]):
            for sign in ("total", "frequency"):
                theirs = self.peft.ties(in_torch(inputs), torch.tensor(weights), 0.99, sign)
                found = merged(ties.METHOD, inputs, weights, variant="peft", density=0.99, sign=sign)
                assert_same(found, theirs)

    @settings(max_examples=30)
    @given(SEEDS, WEIGHTS, st.floats(0.1, 0.99))
    def test_magnitude_prune(self, seed: int, weights: list[float], density: float) -> None:
        inputs = random_inputs(seed, INPUTS, SHAPE)
        theirs = self.peft.magnitude_prune(in_torch(inputs), torch.tensor(weights), density)
        assert_same(merged(magnitude_prune.METHOD, inputs, weights, density=density), theirs)

    @settings(max_examples=30)
    @given(SEEDS, WEIGHTS, st.floats(0.1, 0.99))
    def test_dare_linear(self, seed: int, weights: list[float], density: float) -> None:
        inputs = random_inputs(seed, INPUTS, SHAPE)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(torch, "bernoulli", SameDraws(inputs, seed))
            theirs = self.peft.dare_linear(in_torch(inputs), torch.tensor(weights), density)
        found = merged(dare_linear.METHOD, inputs, weights, seed=seed, density=density)
        assert_same(found, theirs)

    @settings(max_examples=30)
    @given(SEEDS, WEIGHTS, st.floats(0.1, 0.99), SIGNS)
    def test_dare_ties(self, seed: int, weights: list[float], density: float, sign: str) -> None:
        inputs = random_inputs(seed, INPUTS, SHAPE)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(torch, "bernoulli", SameDraws(inputs, seed))
            theirs = self.peft.dare_ties(in_torch(inputs), torch.tensor(weights), density, sign)
        found = merged(dare_ties.METHOD, inputs, weights, seed=seed, density=density, sign=sign)
        assert_same(found, theirs)


class TestMergekit:
    @pytest.fixture(autouse=True)
    def functions(self) -> None:
        self.sparsify = pytest.importorskip("mergekit.sparsify")
        self.arithmetic = pytest.importorskip("mergekit.merge_methods.generalized_task_arithmetic")

    def theirs(
        self,
        inputs: list[Float32],
        weights: list[float],
        sparsification: str,
        *,
        elect: str | None = None,
        normalize: bool = False,
        rescale: bool = False,
        seed: int = 0,
        **given: float,
    ) -> Any:
        """Their task arithmetic: sparsify, weigh, keep what has the elected sign, sum, normalise."""
        norm = self.sparsify.RescaleNorm.l1 if rescale else None
        method = self.sparsify.SparsificationMethod(sparsification)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(torch, "bernoulli", SameDraws(inputs, seed))
            sparse = [
                self.sparsify.sparsify(x, method=method, rescale_norm=norm, **given) for x in in_torch(inputs)
            ]
        factors = torch.tensor(weights)[:, None, None]
        weighted = torch.stack(sparse) * factors
        if not elect:
            return weighted.sum(dim=0)
        mask = self.arithmetic.get_mask(weighted, method=elect)
        total, divisor = (weighted * mask).sum(dim=0), (factors * mask).sum(dim=0)
        return total / torch.where(divisor == 0, 1, divisor) if normalize else total

    @settings(max_examples=30)
    @given(SEEDS, WEIGHTS, DENSITIES, SIGNS, st.booleans())
    def test_ties(self, seed: int, weights: list[float], density: float, sign: str, normalize: bool) -> None:
        inputs = random_inputs(seed, INPUTS, SHAPE)
        elect = {"total": "sum", "frequency": "count"}[sign]
        theirs = self.theirs(inputs, weights, "magnitude", elect=elect, normalize=normalize, density=density)
        merge = "mean" if normalize else "sum"
        options = {"variant": "mergekit", "density": density, "sign": sign, "merge": merge}
        assert_same(merged(ties.METHOD, inputs, weights, **options), theirs)

    def test_ties_summed_with_weights_that_are_negative_or_0(self) -> None:
        inputs = random_inputs(3, INPUTS, SHAPE)
        for weights in ([1.0, -2.0, 0.5], [-1.0, 0.0, -0.2], [0.0, 0.0, 0.0]):
            for sign, elect in (("total", "sum"), ("frequency", "count")):
                theirs = self.theirs(inputs, weights, "magnitude", elect=elect, density=0.6)
                options = {"variant": "mergekit", "density": 0.6, "sign": sign, "merge": "sum"}
                assert_same(merged(ties.METHOD, inputs, weights, **options), theirs)

    @settings(max_examples=30)
    @given(SEEDS, WEIGHTS, st.floats(0.1, 1), st.booleans())
    def test_dare(self, seed: int, weights: list[float], density: float, rescale: bool) -> None:
        inputs = random_inputs(seed, INPUTS, SHAPE)
        how: dict[str, Any] = {"density": density, "rescale": rescale, "seed": seed}
        for method, elect in ((dare_linear.METHOD, None), (dare_ties.METHOD, "sum")):
            theirs = self.theirs(inputs, weights, "random", elect=elect, **how)
            assert_same(merged(method, inputs, weights, variant="mergekit", **how), theirs)

    @settings(max_examples=30)
    @given(SEEDS, WEIGHTS, st.floats(0.2, 0.8), st.floats(0, 0.19), st.booleans())
    def test_della(
        self, seed: int, weights: list[float], density: float, epsilon: float, rescale: bool
    ) -> None:
        inputs = random_inputs(seed, INPUTS, SHAPE)
        how: dict[str, Any] = {"density": density, "epsilon": epsilon, "rescale": rescale, "seed": seed}
        for method, elect in ((della_linear.METHOD, None), (della.METHOD, "sum")):
            theirs = self.theirs(inputs, weights, "della_magprune", elect=elect, normalize=True, **how)
            assert_same(merged(method, inputs, weights, variant="mergekit", **how), theirs)

    @settings(max_examples=30)
    @given(SEEDS, WEIGHTS, DENSITIES, st.floats(0.05, 0.5))
    def test_breadcrumbs(self, seed: int, weights: list[float], density: float, gamma: float) -> None:
        inputs = random_inputs(seed, INPUTS, SHAPE)
        how: dict[str, Any] = {"density": density, "gamma": gamma}
        for method, elect in ((breadcrumbs.METHOD, None), (breadcrumbs_ties.METHOD, "sum")):
            theirs = self.theirs(inputs, weights, "magnitude_outliers", elect=elect, **how)
            assert_same(merged(method, inputs, weights, variant="mergekit", **how), theirs)

    @settings(max_examples=30)
    @given(SEEDS, st.sampled_from([0.11, 0.34, 0.52, 0.77, 1]))  # theirs counts in float32
    def test_sce(self, seed: int, share: float) -> None:
        theirs_sce = pytest.importorskip("mergekit.merge_methods.sce")
        inputs = random_inputs(seed, INPUTS, SHAPE)
        vectors = torch.stack(in_torch(inputs))
        selected = vectors * theirs_sce.sce_mask(vectors, share)
        weights = theirs_sce.sce_weight(selected)[:, None, None] * self.arithmetic.get_mask(selected)
        theirs = (selected * weights).sum(dim=0) / weights.sum(dim=0).clamp(min=1e-6)
        assert_same(merged(sce.METHOD, inputs, select_topk=share), theirs)

    @settings(max_examples=30)
    @given(SEEDS, st.floats(1e-4, 3))
    def test_nearswap(self, seed: int, t: float) -> None:
        theirs_nearswap = pytest.importorskip("mergekit.merge_methods.nearswap")
        first, second = random_inputs(seed, 2, SHAPE)
        second[0] = first[0]
        group = _group(*in_torch([first, second]))
        method = theirs_nearswap.nearswap_merge
        merge = getattr(method, "merge_group", method)
        assert_same(merged(nearswap.METHOD, [first, second], t=t), merge(group, t=t))


def _group(base: Any, other: Any) -> Any:
    """What mergekit hands to a method: a base tensor and the others, with only what is asked of them."""
    entries = [SimpleNamespace(tensor=other, id=1)]
    return SimpleNamespace(base=SimpleNamespace(tensor=base, id=0), non_base=entries)

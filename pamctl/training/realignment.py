"""PAM's alignment on the device: the task adapter against a fixed global adapter, counted layer by layer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pamctl_kernels import realign, sign_conflicts

from pamctl.adapters import Adapter
from pamctl.adapters.factors import Float32
from pamctl.alignment import AlignmentReport, SignCounts, Thresholds, thresholds
from pamctl.models.config import PaliGemmaConfig
from pamctl.models.lora import adaptable
from pamctl.models.paligemma import Lora
from pamctl.training.configuration import Alignment, Moments, PutBack
from pamctl.training.optimizer import OptimizerState, first_moments_zero_where


class Counts(NamedTuple):
    """Per leaf of the adapter and layer, still on the device: (layers,) int32, negative where one is NaN.

    Attributes:
        differ: weights whose sign differs from a global weight that is not 0.
        conflicts: those of them where the global weight is important; alignment puts them back.
    """

    differ: Lora
    conflicts: Lora


@dataclass(frozen=True)
class Anchor:
    """The global adapter on the device with the magnitude from which each of its weights is important.

    Attributes:
        config: of the base, for the names of modules.
        lora: the global adapter W_G.
        thresholds: shaped like `lora`, each leaf (layers, 1, 1).
        start: the task adapter before its first step.
        sizes: per module and factor, how many weights there are and how many are important.
        reinit, moments: see `pamctl.training.configuration.Alignment`.
    """

    config: PaliGemmaConfig
    lora: Lora
    thresholds: Lora
    start: Lora
    sizes: dict[str, dict[str, SignCounts]]
    reinit: PutBack
    moments: Moments

    def realign(self, lora: Lora, optimizer: OptimizerState) -> tuple[Lora, OptimizerState, Counts]:
        """Put back the weights of `lora` in conflict; both are consumed, nothing waits for the device."""
        start = self.start if self.reinit == "init" else {}
        return _realign(lora, optimizer, self.lora, self.thresholds, start, self.reinit, self.moments)

    def report(self, counts: Counts) -> AlignmentReport | None:
        """Read the counts of one realignment; None where a weight was NaN."""
        host = jax.device_get(counts)
        if any(int(leaf.min()) < 0 for leaf in jax.tree.leaves(host)):
            return None
        modules: dict[str, dict[str, SignCounts]] = {}
        for kind in adaptable(self.config):
            differ, conflicts = (tree.get(kind.tower, {}).get(kind.kind) for tree in host)
            for layer, module in enumerate(kind.modules() if differ else ()):
                modules[module] = {
                    factor: replace(
                        size, differ=int(differ[factor][layer]), conflicts=int(conflicts[factor][layer])
                    )
                    for factor, size in self.sizes[module].items()
                }
        return AlignmentReport(modules)


def anchor_of(
    adapter: Adapter, lora: Lora, start: Lora, alignment: Alignment, config: PaliGemmaConfig
) -> Anchor:
    """Return the anchor of a global adapter: thresholds are computed once, on the host.

    Args:
        adapter: the global adapter.
        lora: the same as a tree on the device.
        start: the task adapter before its first step.
    """
    limits = thresholds(adapter, alignment.top_p, alignment.scope)
    sizes = {}
    for module, (tau_a, tau_b) in limits.items():
        factors = adapter.modules[module].folded()
        sizes[module] = {"a": _size(factors.a, tau_a), "b": _size(factors.b, tau_b)}
    tree = _threshold_tree(config, lora, limits)
    return Anchor(config, lora, tree, start, sizes, alignment.reinit, alignment.moments)


def to_event(report: AlignmentReport) -> dict[str, Any]:
    """The fields of an `align` event: percent of all weights, overall and per factor; counts per module."""
    shares = {"overall": report.overall, **report.factors}
    return {
        "differ": _told(report, shares, "differ"),
        "conflicts": _told(report, shares, "conflicts"),
    }


def _told(report: AlignmentReport, shares: Mapping[str, SignCounts], count: str) -> dict[str, Any]:
    percent = {name: round(100 * getattr(of, count) / max(of.weights, 1), 4) for name, of in shares.items()}
    modules = {
        module: {factor: getattr(counts, count) for factor, counts in factors.items()}
        for module, factors in report.modules.items()
    }
    return {"percent": percent, "modules": modules}


@partial(jax.jit, static_argnames=("reinit", "moments"), donate_argnames=("lora", "optimizer"))
def _realign(
    lora: Lora,
    optimizer: OptimizerState,
    to: Lora,
    limits: Lora,
    start: Lora,
    reinit: PutBack,
    moments: Moments,
) -> tuple[Lora, OptimizerState, Counts]:
    _, differ = realign(lora, to, jnp.float32(0), per_layer=True)
    aligned, conflicts = realign(lora, to, limits, "zero" if reinit == "zero" else "global", per_layer=True)
    if reinit == "init" or moments == "reset":
        found = sign_conflicts(lora, to, limits)
        if reinit == "init":
            aligned = jax.tree.map(jnp.where, found, start, lora)
        if moments == "reset":
            optimizer = first_moments_zero_where(optimizer, found)
    return aligned, optimizer, Counts(differ, conflicts)


def _size(weights: Float32, tau: np.float32) -> SignCounts:
    important = int(np.count_nonzero((np.abs(weights) >= tau) & (weights != 0)))
    return SignCounts(weights=weights.size, important=important)


def _threshold_tree(config: PaliGemmaConfig, lora: Lora, limits: Thresholds) -> Lora:
    tree: Lora = {}
    for kind in adaptable(config):
        if kind.kind in lora.get(kind.tower, {}):
            pairs = np.array([limits[module] for module in kind.modules()], np.float32)
            everywhere = lora[kind.tower][kind.kind]["a"].sharding
            a, b = (jax.device_put(column[:, None, None], everywhere) for column in pairs.T)
            tree.setdefault(kind.tower, {})[kind.kind] = {"a": a, "b": b}
    return tree

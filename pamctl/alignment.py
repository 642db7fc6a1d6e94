"""PAM's rule on adapters: which global weights are important, and which task weights contradict them.

A weight w of the task adapter is in conflict with the weight w_G of the global adapter where |w_G| >= tau,
w_G != 0 and sign(w) != sign(w_G); tau is the k-th largest magnitude of the global adapter with
k = ceil(p n / 100) (PAM, Algorithm 1). Factors are compared element by element, a with a and b with b, the
scale folded into b.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from pamctl_kernels import magnitude_threshold, realign, sign_conflicts

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.compatibility import (
    factor_mismatch,
    refuse_experts,
    share_a_start,
)
from pamctl.adapters.factors import ComputedModules, Float32, LoraFactors
from pamctl.adapters.matching import brought_together
from pamctl.adapters.provenance import Provenance
from pamctl.refusal import Refusal, UsageRefusal

Scope = Literal["tensor", "module", "factor", "global"]
Reinit = Literal["global", "zero"]
Thresholds = dict[str, tuple[np.float32, np.float32]]


@dataclass(frozen=True)
class SignCounts:
    """How many weights there are, whose sign differs, which are important, and important ones in conflict."""

    weights: int = 0
    differ: int = 0
    important: int = 0
    conflicts: int = 0

    def __add__(self, other: "SignCounts") -> "SignCounts":
        return SignCounts(
            *(mine + theirs for mine, theirs in zip(_counts(self), _counts(other), strict=True))
        )

    @property
    def differ_percent(self) -> float:
        """The share of all weights whose sign differs from a global weight that is not 0."""
        return 100 * self.differ / self.weights if self.weights else 0.0

    @property
    def conflict_percent(self) -> float:
        """The share of the important weights whose sign differs: what alignment puts back."""
        return 100 * self.conflicts / self.important if self.important else 0.0

    def to_json(self) -> dict[str, float]:
        return {
            **asdict(self),
            "differ_percent": round(self.differ_percent, 4),
            "conflict_percent": round(self.conflict_percent, 4),
        }


@dataclass(frozen=True)
class AlignmentReport:
    """The sign counts of one comparison, per module and factor (`a`, `b`), before anything is put back."""

    modules: Mapping[str, Mapping[str, SignCounts]]

    @property
    def factors(self) -> dict[str, SignCounts]:
        """The counts of all A and of all B."""
        return {
            factor: sum((counts[factor] for counts in self.modules.values()), SignCounts())
            for factor in ("a", "b")
        }

    @property
    def overall(self) -> SignCounts:
        return self.factors["a"] + self.factors["b"]

    def to_json(self) -> dict[str, Any]:
        return {
            "overall": self.overall.to_json(),
            "factors": {factor: counts.to_json() for factor, counts in self.factors.items()},
            "modules": {
                module: {factor: counts.to_json() for factor, counts in factors.items()}
                for module, factors in self.modules.items()
            },
        }


def thresholds(adapter: Adapter, top_p: float = 50, scope: Scope = "global") -> Thresholds:
    """The magnitude from which a weight of the adapter is important, for each module as (tau_a, tau_b).

    Args:
        adapter: the global adapter.
        top_p: how many percent of the weights are important, 0 to 100.
        scope: what is ranked together: `global` all weights (Algorithm 1 to the letter), `factor` all A and
            all B apart, `module` the two factors of a module, `tensor` each factor of each module by itself.
            With `global`, A, which starts random, takes most of the places from B, which starts at 0.

    Raises:
        UsageRefusal: top_p or scope is not one of these.
    """
    _refuse_options(top_p, scope)
    if scope in ("tensor", "module"):
        return {
            module: _own_thresholds(factors.folded(), top_p, scope)
            for module, factors in adapter.modules.items()
        }
    folded = {module: factors.folded() for module, factors in adapter.modules.items()}
    all_a, all_b = [factors.a for factors in folded.values()], [factors.b for factors in folded.values()]
    if scope == "factor":
        pair = (_threshold(all_a, top_p), _threshold(all_b, top_p))
    else:
        pair = (_threshold(all_a + all_b, top_p),) * 2
    return dict.fromkeys(folded, pair)


def compare_signs(
    adapter: Adapter, to: Adapter, top_p: float = 50, scope: Scope = "global"
) -> tuple[Thresholds, AlignmentReport]:
    """The thresholds of `to` and where `adapter` contradicts it; arguments and errors as for `align`."""
    to, adapter = brought_together((to, adapter))
    if mismatch := factor_mismatch((to, adapter)):
        raise Refusal(
            f"{adapter.name} cannot be compared with {to.name} weight by weight: {mismatch}",
            f"train it from {to.name}, with the same rank and targets",
        )
    taus = thresholds(to, top_p, scope)
    modules = {}
    for module in to.shapes:
        task, reference = adapter.modules[module].folded(), to.modules[module].folded()
        modules[module] = {
            "a": _count(task.a, reference.a, taus[module][0]),
            "b": _count(task.b, reference.b, taus[module][1]),
        }
    return taus, AlignmentReport(modules)


def align(
    adapter: Adapter, to: Adapter, top_p: float = 50, scope: Scope = "global", reinit: Reinit = "global"
) -> tuple[Adapter, AlignmentReport]:
    """Put back the weights of a task adapter that contradict an important weight of the global adapter.

    Args:
        adapter: the task adapter W'.
        to: the global adapter W_G: the same modules with the same ranks.
        top_p: how many percent of the global weights are important.
        scope: what is ranked together, see `thresholds`.
        reinit: what a weight in conflict becomes: `global` the global weight, `zero` 0.

    Returns:
        The realigned adapter, computed module by module when it is read or saved, and the counts of what was
        in conflict. What the task adapter carries besides factors passes through.

    Raises:
        Refusal: different bases, modules or ranks.
        UsageRefusal: an option is out of range.
    """
    if reinit not in get_args(Reinit):
        raise UsageRefusal(f"reinit is {reinit!r}", f"choose one of {', '.join(get_args(Reinit))}")
    refuse_experts((to, adapter))
    to, adapter = brought_together((to, adapter))
    taus, report = compare_signs(adapter, to, top_p, scope)

    def realigned(module: str) -> LoraFactors:
        task, reference = adapter.modules[module].folded(), to.modules[module].folded()
        a, _ = realign(task.a, reference.a, taus[module][0], reinit)
        b, _ = realign(task.b, reference.b, taus[module][1], reinit)
        return LoraFactors(a, b, layer=task.layer)

    parameters = {"to": to.fingerprint, "top_p": float(top_p), "scope": scope, "reinit": reinit}
    provenance = _provenance(adapter, to, parameters, report)
    modules = ComputedModules(adapter.shapes, realigned)
    base_model = adapter.base_model or to.base_model
    aligned = Adapter(
        modules, provenance, base_model, adapter.name, adapter.extras, denoiser=adapter.denoiser
    )
    return aligned, report


def _provenance(
    adapter: Adapter, to: Adapter, parameters: Mapping[str, Any], report: AlignmentReport
) -> Provenance:
    parents = (adapter, to) if share_a_start((adapter, to)) else (adapter,)
    known = adapter.provenance
    return Provenance(
        kind="aligned",
        stage=known.stage if known else "trained",
        tasks=known.tasks if known else (),
        parents=tuple(parent.as_parent() for parent in parents),
        base=adapter.base if adapter.base_fingerprint else to.base or adapter.base,
        method="align",
        parameters=parameters,
        conflicts=report.overall.to_json(),
    )


def _refuse_options(top_p: float, scope: str) -> None:
    if not 0 <= top_p <= 100:
        raise UsageRefusal(f"top_p is {top_p:g}", "give a percentage from 0 to 100")
    if scope not in get_args(Scope):
        raise UsageRefusal(f"scope is {scope!r}", f"choose one of {', '.join(get_args(Scope))}")


def _own_thresholds(factors: LoraFactors, top_p: float, scope: str) -> tuple[np.float32, np.float32]:
    if scope == "module":
        return (_threshold([factors.a, factors.b], top_p),) * 2
    return _threshold([factors.a], top_p), _threshold([factors.b], top_p)


def _threshold(tensors: list[Float32], top_p: float) -> np.float32:
    return np.float32(magnitude_threshold(tensors, top_p))


def _count(task: Float32, reference: Float32, tau: np.float32) -> SignCounts:
    return SignCounts(
        weights=reference.size,
        differ=int(np.count_nonzero(sign_conflicts(task, reference, np.float32(0)))),
        important=int(np.count_nonzero((np.abs(reference) >= tau) & (reference != 0))),
        conflicts=int(np.count_nonzero(sign_conflicts(task, reference, tau))),
    )


def _counts(counts: SignCounts) -> tuple[int, int, int, int]:
    return counts.weights, counts.differ, counts.important, counts.conflicts

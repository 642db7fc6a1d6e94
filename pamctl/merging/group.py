"""Modules that are merged alike: a method with its parameters, as one rule of the recipe says."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from pamctl.merging.methods import method_named
from pamctl.merging.methods.method import (
    Combination,
    Elementwise,
    Float64,
    Method,
    Projected,
    Settings,
    Space,
    Spectral,
)
from pamctl.merging.shares import shares

Value = TypeVar("Value")


@dataclass(frozen=True)
class Group:
    """How some modules are merged.

    Args:
        method: the method that was named.
        settings: of its parameters, and of the method inside where there is one; per-adapter ones in `order`.
        weights: one an input, in `order`, as the method takes them.
        order: the inputs in the order in which the method gets them, as places in the user's order.
        space: where it works.
        modules: that it is for.
    """

    method: Method
    settings: Settings
    weights: tuple[float, ...]
    order: tuple[int, ...]
    space: Space
    modules: tuple[str, ...]

    @property
    def work(self) -> Combination | Elementwise | Spectral | Projected:
        return self.method.work

    @property
    def acting(self) -> Method:
        """The method that merges elements: the one inside where there is one."""
        return method_named(self.settings["inner"]) if isinstance(self.work, Projected) else self.method

    @property
    def is_global(self) -> bool:
        """Whether what the method has to know is measured over all modules together."""
        work = self.acting.work
        measures = isinstance(work, Elementwise) and work.measure is not None
        return measures and self.settings.get("scope") == "global"

    @property
    def is_dense(self) -> bool:
        """Whether deltas are made whole and decomposed."""
        return self.space == "delta" and isinstance(self.work, Elementwise)

    @property
    def leaves_out_absent(self) -> bool:
        """Whether an input takes no part in a module that it lacks; in a plain sum it counts there as 0."""
        work = self.acting.work
        return not (isinstance(work, Combination) and not work.uses_gram)

    def among(self, present: Sequence[int]) -> "Group":
        """The group with some of its inputs, as places in `order`, where others are to be left out.

        Where the scope is global all stay, and a piece tells whose blocks it has.
        """
        weights = [self.weights[i] for i in present]
        if len(present) == len(self.order) or not any(weights):
            return self
        if self.is_global or not self.leaves_out_absent:
            return self
        settings = {
            name: tuple(value[i] for i in present) if isinstance(value, tuple) else value
            for name, value in self.settings.items()
        }
        return replace(
            self,
            settings=settings,
            weights=shares(weights, len(weights)) if self.acting.shares else tuple(weights),
            order=tuple(self.order[i] for i in present),
        )

    @property
    def is_square_root(self) -> bool:
        """Whether factors are merged unscaled, with the square root of weight · scale on either side.

        That is what peft's `add_weighted_adapter` does with the factors, and what makes its cross terms.
        """
        return self.space == "factor" and self.settings.get("variant") == "peft"

    def in_given_order(self, values: Sequence[Value]) -> list[Value]:
        """Values of the inputs in `order`, in the user's order."""
        given = list(values)
        for place, value in zip(self.order, values, strict=True):
            given[place] = value
        return given

    def weights_of(self, scales: Sequence[float]) -> tuple[Float64, Float64]:
        """The weights for a and for b of a module whose inputs have these scales."""
        weights = np.asarray(self.weights, np.float64)
        if not self.is_square_root:
            return weights, weights
        scaled = weights * np.asarray(scales)
        return np.sign(scaled) * np.sqrt(np.abs(scaled)), np.sqrt(np.abs(scaled))

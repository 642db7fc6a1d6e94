"""What TIES and its relatives share: each element elects a sign, and the inputs that have it are merged.

    paper     sign of sum w_i x_i;  mean over those that agree: sum w_i x_i / sum w_i
    mergekit  the same
    peft      sign of sum x_i;      mean over those that agree: sum w_i x_i / how many agree

An element that is 0 has no sign, agrees with none and is not in the mean. The papers have no weights;
equal ones give what they define. With merge = "sum" nothing is divided by, with "max" the largest |w_i
x_i| of those that agree stands alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pamctl_kernels import merge_agreeing

from pamctl.merging.methods.method import Float64, Parameter, Piece, Settings, Stream, over
from pamctl.refusal import UsageRefusal

SIGN = Parameter(
    "sign",
    "what elects a sign: the total of the inputs' elements, or the frequency of each sign among them",
    "total",
    choices=("total", "frequency"),
)

Sign = Literal[1, -1]
Divide = Literal["count", "weight", "none", "max"]


def merge_parameter(default: str = "mean", by_variant: Mapping[str, str] | None = None) -> Parameter:
    """How the inputs that agree become one element; mergekit's `normalize` is mean where true, else sum."""
    return Parameter(
        "merge",
        "what becomes of the elements that agree: their mean, their sum, or the max of their magnitudes",
        default,
        choices=("mean", "sum", "max"),
        by_variant=by_variant or {},
    )


@dataclass(frozen=True)
class Voters:
    """The inputs that take part in one piece, with their weights and the magnitudes under which they are 0.

    An input whose weight is 0 takes no part, except in peft. But for peft an input of negative weight is
    taken as its opposite with a positive one, which changes no sum.
    """

    blocks: list[Any]
    weights: list[float]
    thresholds: list[Any]

    @classmethod
    def of(cls, piece: Piece, weights: Float64, settings: Settings, limits: Sequence[Any]) -> "Voters":
        shares = [float(weight) for weight in piece.of_inputs(weights)]
        everyone = list(zip(piece.blocks, shares, piece.of_inputs(limits), strict=True))
        if settings["variant"] != "peft":
            _refuse_negative(shares, settings)
            everyone = [(x if w > 0 else -x, abs(w), limit) for x, w, limit in everyone if w]
        return cls(*([each[part] for each in everyone] for part in range(3)))

    def election(self, settings: Settings) -> Literal["total", "weighted", "frequency"]:
        """How the kernels are to elect; equal weights are left out, so that no bit hangs on their size."""
        if settings["sign"] == "frequency":
            return "frequency"
        return "total" if settings["variant"] == "peft" or len(set(self.weights)) == 1 else "weighted"


def merge_elected(
    piece: Piece,
    weights: Float64,
    settings: Settings,
    limits: Sequence[Any] | None = None,
    on_tie: Sign = 1,
) -> Any:
    """The merged block, times lambda.

    Args:
        limits: one magnitude an input of the scope, under which its elements are taken for 0, or None.
        on_tie: the sign elected where the sum is 0.
    """
    voters = Voters.of(piece, weights, settings, limits or [None] * len(weights))
    if not voters.blocks:
        return piece.blocks[0] * 0.0
    mean: Divide = "count" if settings["variant"] == "peft" else "weight"
    divide: dict[str, Divide] = {"mean": mean, "sum": "none", "max": "max"}
    merged = merge_agreeing(
        voters.blocks,
        voters.weights,
        voters.thresholds,
        elect=voters.election(settings),
        on_tie=on_tie,
        divide=divide[settings["merge"]],
    )
    return merged if settings["lambda"] == 1 else merged * float(settings["lambda"])


def majority_sign(stream: Stream, weights: Float64, settings: Settings, limits: Sequence[Any]) -> Sign:
    """The sign that more elements of the scope elect than elect the other; 1 where as many do."""
    if len(weights) < 2:
        return 1  # the elements of one input never cancel

    def balance(piece: Piece) -> int:
        voters = Voters.of(piece, weights, settings, limits)
        return _signs_elected(voters, settings) if voters.blocks else 0

    return -1 if sum(over(stream, balance)) < 0 else 1


def _signs_elected(voters: Voters, settings: Settings) -> int:
    """How many more elements elect + than -; sums alone, twice as fast as having the signs written out."""
    election = voters.election(settings)
    xp = voters.blocks[0].__array_namespace__()
    total = 0.0
    for x, weight, limit in zip(voters.blocks, voters.weights, voters.thresholds, strict=True):
        x = x if limit is None else x * (xp.abs(x) >= limit)
        x = xp.sign(x) if election == "frequency" else x * weight if election == "weighted" else x
        total = x + total
    return int(xp.count_nonzero(total > 0)) - int(xp.count_nonzero(total < 0))


def _refuse_negative(weights: Sequence[float], settings: Settings) -> None:
    if settings["merge"] == "mean" and min(weights) < 0:
        listed = ",".join(f"{weight:g}" for weight in weights)
        raise UsageRefusal(
            f"the mean of what agrees divides by the weights, and of {listed} one is negative",
            "give weights of at least 0, or merge = sum, which divides by nothing",
        )

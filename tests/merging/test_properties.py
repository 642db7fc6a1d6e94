"""What holds for whole merges, whatever the method, space, format, dtype, ranks and scales: always of deltas.

What is expected is computed here, densely and in float64, from the numbers that were written to the files.
"""

import itertools
import math
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pamctl.adapters import Adapter, LoraFactors, open_adapter, write_adapter
from pamctl.adapters.formats.written import WriteOptions
from pamctl.merging import Recipe, execute, merge, plan_merge
from pamctl.merging.methods import NAMES, method_named
from pamctl.merging.methods.method import Elementwise, Projected, Spectral
from pamctl.refusal import Refusal
from tests.adapter_cases import same_deltas
from tests.merging.merge_cases import (
    ALL_OF_IT,
    AT_REST,
    CASES,
    FORMATS,
    NUMPY_DTYPES,
    PARTIAL,
    RANDOM,
    SCALES,
    SIZES,
    Case,
    Deltas,
    Float64,
    Input,
    assert_same,
    bits_of,
    case,
    deltas_of,
    flat,
    inputs,
    largest,
    opened,
    random_input,
    with_zeros,
)

Tensors = Sequence[Deltas]
Weights = Sequence[float]
Given = Mapping[str, Any]

WEIGHTS = (0.3, 0.7, 1.0, 1.6)
THREE_WEIGHTS = st.lists(st.sampled_from(WEIGHTS), min_size=3, max_size=3)
TINY = 1e-6
"""A singular value of this share of the largest is rounding."""


# --- what a method makes of dense tensors -----------------------------------------------------------------


def weighted_sum(xs: Sequence[Any], weights: Weights) -> Float64:
    total: Float64 = sum(w * x for w, x in zip(weights, xs, strict=True))
    return total


def each_tensor(merge_one: Callable[[list[Float64], Weights, Given], Float64]) -> Callable[..., Deltas]:
    """A function of one tensor of each input as one of all tensors."""
    return lambda xs, weights, given: {
        name: merge_one([x[name] for x in xs], weights, given) for name in xs[0]
    }


def scaled(merge_one: Callable[..., Float64], by: str = "lambda") -> Callable[..., Float64]:
    return lambda xs, weights, given: given[by] * merge_one(xs, weights, given)


def mean(xs: Sequence[Float64], weights: Weights, given: Given) -> Float64:
    return weighted_sum(xs, weights) / sum(weights)


def running(xs: Sequence[Float64], weights: Weights, given: Given) -> Float64:
    return mean(xs, [given["count"], *[1.0] * (len(xs) - 1)], given)


def summed(xs: Sequence[Float64], weights: Weights, given: Given) -> Float64:
    return weighted_sum(xs, weights)


def linear(xs: Sequence[Float64], weights: Weights, given: Given) -> Float64:
    return (mean if given["variant"] == "mergekit" else summed)(xs, weights, given)


def strongest(magnitudes: Float64, count: int) -> float:
    """The least of so many largest magnitudes."""
    return float(np.sort(magnitudes, axis=None)[-count]) if count else math.inf


def trimmed(x: Deltas, density: float, scope: str) -> Deltas:
    whole = np.concatenate([np.abs(values).ravel() for values in x.values()])
    kept = {}
    for name, values in x.items():
        magnitudes = whole if scope == "global" else np.abs(values)
        least = strongest(magnitudes, int(density * magnitudes.size))
        kept[name] = np.where(np.abs(values) >= least, values, 0.0)
    return kept


def elected(ts: Tensors, weights: Weights, given: Given, *, voters: Weights, divide: str) -> Deltas:
    """Merge what has the elected sign; `divide` says what a mean is divided by."""
    merged = {}
    for name in ts[0]:
        stack = np.stack([t[name] for t in ts])
        votes = np.sign(stack) if given["sign"] == "frequency" else stack * np.reshape(voters, (-1, 1, 1))
        sign = np.where(votes.sum(axis=0) >= 0, 1.0, -1.0)
        agree = (stack * sign) > 0
        parts = np.where(agree, stack * np.reshape(weights, (-1, 1, 1)), 0.0)
        if given["merge"] == "max":
            merged[name] = np.take_along_axis(parts, np.abs(parts).argmax(axis=0)[None], axis=0)[0]
        elif given["merge"] == "sum":
            merged[name] = parts.sum(axis=0)
        else:
            by = agree if divide == "count" else agree * np.reshape(weights, (-1, 1, 1))
            by = by.sum(axis=0)
            merged[name] = np.divide(parts.sum(axis=0), by, out=np.zeros_like(sign), where=by != 0)
        merged[name] *= given["lambda"]
    return merged


def ties(xs: Tensors, weights: Weights, given: Given) -> Deltas:
    densities = np.broadcast_to(given["density"], len(xs))
    ts = [trimmed(x, d, given["scope"]) for x, d in zip(xs, densities, strict=True)]
    peft = given["variant"] == "peft"
    voters = [1.0] * len(xs) if peft else weights
    return elected(ts, weights, given, voters=voters, divide="count" if peft else "weights")


def dare_ties(xs: Tensors, weights: Weights, given: Given) -> Deltas:
    return ties(xs, weights, {**given, "scope": "tensor"})


def magnitude_prune(xs: Tensors, weights: Weights, given: Given) -> Deltas:
    ts = [trimmed(x, given["density"], given["scope"]) for x in xs]
    return {name: given["lambda"] * weighted_sum([t[name] for t in ts], weights) for name in ts[0]}


def without_outliers(x: Float64, given: Given) -> Float64:
    """Breadcrumbs' mask on what is a row for the paper and a tensor for mergekit."""
    if given["variant"] == "paper" and x.ndim == 2:
        return np.stack([without_outliers(row, given) for row in x])
    keep, drop = max(int(given["density"] * x.size), 1), int(given["gamma"] * x.size)
    if given["variant"] == "mergekit":
        drop = min(drop, x.size - keep)
    order = np.argsort(-np.abs(x), axis=None)[drop : drop + keep]
    kept = np.zeros(x.size)
    kept[order] = x.ravel()[order]
    return kept.reshape(x.shape)


def breadcrumbs(xs: Tensors, weights: Weights, given: Given) -> Deltas:
    return {
        name: given["lambda"] * weighted_sum([without_outliers(x[name], given) for x in xs], weights)
        for name in xs[0]
    }


def breadcrumbs_ties(xs: Tensors, weights: Weights, given: Given) -> Deltas:
    ts = [{name: without_outliers(values, given) for name, values in x.items()} for x in xs]
    return elected(ts, weights, given, voters=weights, divide="weights")


def magmax(xs: Sequence[Float64], weights: Weights, given: Given) -> Float64:
    best = weights[0] * xs[0]
    for w, x in zip(weights[1:], xs[1:], strict=True):
        best = np.where(np.abs(w * x) >= np.abs(best), w * x, best)
    return given["lambda"] * best


def consensus(xs: Sequence[Float64], weights: Weights, given: Given) -> Float64:
    total = weighted_sum(xs, weights)
    masks = [
        np.abs(w * x) > given["lambda"] * np.abs(total - w * x) for w, x in zip(weights, xs, strict=True)
    ]
    enough = np.sum(masks, axis=0) >= min(given["k"], len(xs))
    return given.get("alpha", 1.0) * np.where(enough, total, 0.0)


def tall(xs: Sequence[Float64], weights: Weights, given: Given) -> Float64:
    return consensus(xs, [w / sum(weights) for w in weights], given)


def sce(xs: Sequence[Float64], weights: Weights, given: Given) -> Float64:
    stack = np.stack(xs)
    variance = stack.var(axis=0)
    count = max(int(given["select_topk"] * np.count_nonzero(variance)), 1)
    stack = np.where(variance >= strongest(variance, count), stack, 0.0)
    energies = [w * np.mean(t**2) for w, t in zip(weights, stack, strict=True)]
    agree = stack * np.where(stack.sum(axis=0) >= 0, 1.0, -1.0) > 0
    by = np.where(agree, np.reshape(energies, (-1, 1, 1)), 0.0)
    whole = by.sum(axis=0)
    return np.divide((by * stack).sum(axis=0), whole, out=np.zeros(whole.shape), where=whole > 0)


def nearswap(xs: Sequence[Float64], weights: Weights, given: Given) -> Float64:
    a, b = (w * x for w, x in zip(weights, xs, strict=True))
    return a + np.clip(b - a, -given["t"], given["t"])


def by_row(combine: Callable[..., Float64], option: str) -> Callable[..., Float64]:
    """A function of vectors on tensors, or on each row where the option says so."""

    def merged(xs: Sequence[Float64], weights: Weights, given: Given) -> Float64:
        if given.get(option):
            return np.stack([combine(rows, weights, given) for rows in zip(*xs, strict=True)])
        return combine([x.ravel() for x in xs], weights, given).reshape(xs[0].shape)

    return merged


def cosine(a: Float64, b: Float64) -> float:
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / lengths) if lengths > 0 else 0.0


def arc(a: Float64, b: Float64, t: float) -> Float64:
    angle = math.acos(max(-1.0, min(1.0, cosine(a, b))))
    if abs(math.sin(angle)) < 1e-6:
        return (1 - t) * a + t * b
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


def slerp(xs: Sequence[Float64], weights: Weights, given: Given) -> Float64:
    if abs(cosine(*xs)) > 0.9995:
        return (1 - given["t"]) * xs[0] + given["t"] * xs[1]
    return arc(xs[0], xs[1], given["t"])


def nuslerp(xs: Sequence[Float64], weights: Weights, given: Given) -> Float64:
    return arc(xs[0], xs[1], weights[1] / sum(weights))


def multislerp(xs: Sequence[Float64], weights: Weights, given: Given) -> Float64:
    if given["normalize_weights"]:
        weights = [w / sum(weights) for w in weights]
    lengths = [float(np.linalg.norm(x)) for x in xs]
    m = weighted_sum([x / length for x, length in zip(xs, lengths, strict=True)], weights)
    return sum(w * n for w, n in zip(weights, lengths, strict=True)) * m / np.linalg.norm(m)


def karcher(xs: Sequence[Float64], weights: Weights, given: Given) -> Float64:
    weights = [w / sum(weights) for w in weights]
    lengths = [float(np.linalg.norm(x)) for x in xs]
    us = [x / length for x, length in zip(xs, lengths, strict=True)]
    m = weighted_sum(us, weights)
    m = m / np.linalg.norm(m)
    for _ in range(given["max_iter"]):
        v = np.zeros_like(m)
        for w, u in zip(weights, us, strict=True):
            angle = math.acos(max(-1.0, min(1.0, float(m @ u))))
            if angle >= given["tol"]:
                v += w * angle / math.sin(angle) * (u - math.cos(angle) * m)
        step = float(np.linalg.norm(v))
        if step < given["tol"]:
            break
        m = math.cos(step) * m + math.sin(step) * v / step
    return sum(w * n for w, n in zip(weights, lengths, strict=True)) * m


def model_stock(xs: Sequence[Float64], weights: Weights, given: Given) -> Float64:
    count = len(xs)
    c = float(np.mean([cosine(a, b) for a, b in itertools.combinations(xs, 2)]))
    t = count * c / (1 + (count - 1) * c) if c > 0 else 0.0
    return min(max(t, 0.0), 1.0) * mean(xs, [1.0] * count, given)


def directions(x: Float64, scale: float | None = None) -> tuple[Float64, Float64, Float64]:
    """SVD without what is rounding."""
    u, s, v = np.linalg.svd(x, full_matrices=False)
    k = int(np.count_nonzero(s > TINY * (s[0] if scale is None else scale)))
    return u[:, :k], s[:k], v[:k]


def polar(x: Float64) -> Float64:
    u, _, v = directions(x)
    return u @ v


def available(xs: Sequence[Float64]) -> int:
    return min(*xs[0].shape, sum(len(directions(x)[1]) for x in xs))


def weighed(xs: Sequence[Float64], weights: Weights) -> list[Float64]:
    return [w * x for w, x in zip(weights, xs, strict=True)]


def tsv(xs: Sequence[Float64], weights: Weights, given: Given) -> Float64:
    xs = weighed(xs, weights)
    k = given["k"] or max(available(xs) // len(xs), 1)
    parts = [directions(x) for x in xs]
    u = np.hstack([left[:, :k] for left, _, _ in parts])
    s = np.hstack([strengths[:k] for _, strengths, _ in parts])
    v = np.vstack([right[:k] for _, _, right in parts])
    return given["alpha"] * (polar(u) * s) @ polar(v)


def iso_c(xs: Sequence[Float64], weights: Weights, given: Given) -> Float64:
    u, s, v = directions(weighted_sum(xs, weights))
    return given["alpha"] * s.mean() * u @ v


def iso_cts(xs: Sequence[Float64], weights: Weights, given: Given) -> Float64:
    xs, whole = weighed(xs, weights), available(xs)
    own = round((whole - int(given["common_space_fraction"] * whole)) / len(xs))
    own = min(own, whole // len(xs))
    common, scale = whole - own * len(xs), max(float(np.linalg.norm(x)) for x in xs)
    u, s, v = directions(weighted_sum(xs, [1.0] * len(xs)))
    u, s, v = u[:, :common], s[:common], v[:common]
    rests = [directions(x - u @ (u.T @ x), scale) for x in xs]
    left = np.hstack([*(r[0][:, :own] for r in rests), u])
    singular = np.hstack([*(r[1][:own] for r in rests), s])
    right = np.vstack([*(r[2][:own] for r in rests), v])
    return given["alpha"] * singular.mean() * polar(left) @ polar(right)


def best_of_rank(x: Float64, k: int) -> Float64:
    u, s, v = np.linalg.svd(x, full_matrices=False)
    return (u[:, :k] * s[:k]) @ v[:k]


def cart(xs: Sequence[Float64], weights: Weights, given: Given) -> Float64:
    weights, centre = [w / sum(weights) for w in weights], mean(xs, weights, given)
    k = math.ceil(given["rho"] * available(xs))
    kept = weighted_sum([best_of_rank(x - centre, k) for x in xs], weights)
    return centre + given["lambda"] * len(xs) * kept


def opcm(xs: Sequence[Float64], weights: Weights, given: Given) -> Float64:
    xs = weighed(xs, weights)
    merged = xs[0]
    for x in xs[1:]:
        u, s, v = np.linalg.svd(merged)
        there = int(np.count_nonzero(s > TINY * s[0]))
        protected = int(np.count_nonzero(np.cumsum(s) <= given["alpha"] * s.sum()))
        p = u.T @ x @ v.T
        p[range(there), range(there)] = 0
        p[:protected, :protected] = 0
        merged = merged + u @ p @ v
    return merged * np.mean([np.linalg.norm(x) for x in xs]) / np.linalg.norm(merged)


DENSE: dict[str, Callable[..., Deltas]] = {
    "average": each_tensor(mean),
    "running-average": each_tensor(running),
    "linear": each_tensor(linear),
    "task-arithmetic": each_tensor(scaled(summed)),
    "cat": each_tensor(summed),
    "svd": each_tensor(summed),
    "ties": ties,
    "magnitude-prune": magnitude_prune,
    "dare-linear": each_tensor(scaled(summed)),
    "dare-ties": dare_ties,
    "della": dare_ties,
    "della-linear": each_tensor(scaled(summed)),
    "breadcrumbs": breadcrumbs,
    "breadcrumbs-ties": breadcrumbs_ties,
    "magmax": each_tensor(magmax),
    "tall": each_tensor(tall),
    "consensus": each_tensor(consensus),
    "sce": each_tensor(sce),
    "slerp": each_tensor(by_row(slerp, "")),
    "nuslerp": each_tensor(by_row(nuslerp, "row_wise")),
    "multislerp": each_tensor(by_row(multislerp, "")),
    "karcher": each_tensor(by_row(karcher, "")),
    "nearswap": each_tensor(nearswap),
    "model-stock": each_tensor(by_row(model_stock, "filter_wise")),
    "tsv": each_tensor(tsv),
    "iso-c": each_tensor(iso_c),
    "iso-cts": each_tensor(iso_cts),
    "cart": each_tensor(cart),
    "opcm": each_tensor(opcm),
}
"""(tensors of each input, weights, parameters) -> merged tensors; of the random ones at density 1."""


def given_to(each: Case, name: str | None = None) -> dict[str, Any]:
    """The documented parameters of the case, or of the method inside it, those left out at their defaults."""
    method = method_named(name or each.name)
    variant = each.variant or (method.variants[0] if method.variants else None)
    said = each.options["parameters"]
    return {p.name: said.get(p.name, p.default_of(variant)) for p in method.parameters} | {"variant": variant}


def signed(vectors: Float64) -> Float64:
    """Columns whose entries of largest magnitude are positive."""
    at = np.abs(vectors).argmax(axis=0)
    return vectors * np.sign(vectors[at, range(vectors.shape[1])])


def projected(each: Case, made: Sequence[Input], weights: Weights) -> Deltas:
    """KnOTS and Core Space on dense deltas: into the coordinates, the inner method, and back."""
    inner, lefts, rights, coordinates = each.parameters["inner"], {}, {}, [dict[str, Any]() for _ in made]
    for module in made[0].modules:
        name = flat(module)
        xs = [x.deltas()[name] for x in made]
        if each.name == "core":
            parts = [x.modules[module] for x in made]
            b = np.hstack(
                [x.scale(module) * p[1].astype(np.float64) for x, p in zip(made, parts, strict=True)]
            )
            a = np.vstack([p[0].astype(np.float64) for p in parts])
            lefts[name], rights[name] = signed(directions(b)[0]), signed(directions(a)[2].T).T
        elif each.parameters.get("stack") == "inputs":
            lefts[name] = np.eye(len(xs[0]))
            rights[name] = signed(directions(np.vstack(xs))[2].T).T
        else:
            lefts[name], rights[name] = signed(directions(np.hstack(xs))[0]), np.eye(xs[0].shape[1])
        for to, x in zip(coordinates, xs, strict=True):
            to[name] = lefts[name].T @ x @ rights[name].T
    merged = DENSE[inner](coordinates, weights, given_to(each, inner))
    return {name: lefts[name] @ values @ rights[name] for name, values in merged.items()}


def expected_of(each: Case, made: Sequence[Input], weights: Weights) -> Deltas:
    """The deltas that the formula gives."""
    if isinstance(each.method.work, Projected):
        return projected(each, made, weights)
    return DENSE[each.name]([x.deltas() for x in made], weights, given_to(each))


# --- the properties ---------------------------------------------------------------------------------------


def named(cases: Sequence[Case]) -> Any:
    return pytest.mark.parametrize("each", cases, ids=str)


def dtypes_for(each: Case) -> tuple[str, ...]:
    """In half precision elements of unlike adapters tie, and float32 and float64 may settle that apart."""
    combines = not isinstance(each.method.work, Elementwise | Projected)
    return tuple(NUMPY_DTYPES) if combines else ("F32",)


def tolerance(each: Case) -> float:
    """What is near the end of a spectrum is made as strong as the rest, and its rounding too."""
    return 1e-3 if isinstance(each.method.work, Spectral) or each.name == "core" else 2e-5


def weights_for(each: Case, weights: Weights) -> list[float] | None:
    return list(weights) if each.weighted else None


def test_the_cases_cover_every_method_in_every_variant() -> None:
    tried = {(each.name, each.variant) for each in CASES}
    for name in NAMES:
        for variant in method_named(name).variants or (None,):
            # peft's linear is no function of deltas and has a test of its own
            assert (name, variant) in tried or (name, variant) == ("linear", "peft")


@named([*CASES, *PARTIAL])
@settings(max_examples=5)
@given(data=st.data(), weights=THREE_WEIGHTS)
def test_a_merge_of_deltas_is_the_formula_on_the_dense_deltas(
    each: Case, data: st.DataObject, weights: list[float]
) -> None:
    made = data.draw(inputs(2, each.most, dtypes=dtypes_for(each)))
    weights = weights[: len(made)]
    with opened(made) as adapters:
        found = deltas_of(each.merged(adapters, weights_for(each, weights), **each.lossless))
    sizes = largest([x.deltas() for x in made], weights)
    assert_same(found, expected_of(each, made, weights), sizes, tolerance(each))


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
@named([case("cat"), case("karcher"), case("core", inner="average"), case("opcm")])
def test_an_adapter_of_each_format_merges_to_the_formula(each: Case, dtype: str) -> None:
    ranks = itertools.cycle([(1, 4, 2), (6, 3, 3), (2, 5, 1)])
    made = [
        random_input(i, ranks=next(ranks), scales=SCALES[i % 2 :], format=format, dtype=dtype)
        for i, format in enumerate(FORMATS)
    ]
    with opened(made) as adapters:
        found = deltas_of(each.merged(adapters, **each.lossless))
    weights = [1.0] * len(made)
    assert_same(found, expected_of(each, made, weights), largest([x.deltas() for x in made]), tolerance(each))


SPLIT = ("memory", "peft", "kohya", "diffusers")
"""Formats that keep the scale apart from B, on which peft's roots hang."""

FACTORS = [each for each in [*CASES, *PARTIAL] if "factor" in each.method.spaces]


def factors_merged(each: Case, made: Sequence[Input], weights: Weights) -> Deltas:
    """The formula on A and on scale · B; for peft's variants on A and B with the roots of weight · scale."""
    tensors = [dict[str, Float64]() for _ in made]
    for to, x in zip(tensors, made, strict=True):
        for module, (a, b, _) in x.modules.items():
            to[f"{module} a"] = a.astype(np.float64)
            to[f"{module} b"] = b.astype(np.float64) * (1.0 if each.variant == "peft" else x.scale(module))
    if each.variant != "peft":
        return DENSE[each.name](tensors, weights, given_to(each))
    merged = Deltas()
    for module in made[0].modules:
        roots = [math.sqrt(w * x.scale(module)) for w, x in zip(weights, made, strict=True)]
        own = [{name: t[name] for name in (f"{module} a", f"{module} b")} for t in tensors]
        merged |= DENSE[each.name](own, roots, given_to(each))
    return merged


@named(FACTORS)
@settings(max_examples=4)
@given(data=st.data(), weights=THREE_WEIGHTS)
def test_a_merge_of_factors_is_the_formula_on_each_factor(
    each: Case, data: st.DataObject, weights: list[float]
) -> None:
    formats = SPLIT if each.variant == "peft" else ["memory", *AT_REST]
    made = data.draw(inputs(2, each.most, formats=formats, dtypes=dtypes_for(each), alike=True))
    weights = weights[: len(made)]
    merged = factors_merged(each, made, weights)
    with opened(made) as adapters:
        found = deltas_of(each.merged(adapters, weights_for(each, weights), space="factor"))
    expected, bounds = {}, {}
    for module in made[0].modules:
        a, b = merged[f"{module} a"], merged[f"{module} b"]
        expected[flat(module)] = b @ a
        bounds[flat(module)] = 10 * sum(
            float((abs(x.scale(module) * y.astype(np.float64)) @ abs(z.astype(np.float64))).max())
            for x in made
            for z, y, _ in [x.modules[module]]
        ) + float((abs(b) @ abs(a)).max())
    assert_same(found, expected, bounds)


@settings(max_examples=15)
@given(
    made=inputs(alike=True, formats=SPLIT),
    weights=st.lists(st.sampled_from([-1.0, 0.5, 2.0]), min_size=3, max_size=3),
)
def test_pefts_linear_has_the_roots_of_the_weights_on_both_sides(
    made: list[Input], weights: list[float]
) -> None:
    weights = weights[: len(made)]
    expected, bounds = {}, {}
    for module in made[0].modules:
        strengths = [w * x.scale(module) for w, x in zip(weights, made, strict=True)]
        a = weighted_sum(
            [x.modules[module][0].astype(np.float64) for x in made],
            [math.copysign(math.sqrt(abs(s)), s) for s in strengths],
        )
        b = weighted_sum(
            [x.modules[module][1].astype(np.float64) for x in made], [math.sqrt(abs(s)) for s in strengths]
        )
        expected[flat(module)] = b @ a
        bounds[flat(module)] = 10 * float((np.abs(b) @ np.abs(a)).max()) + sum(map(abs, strengths))
    with opened(made) as adapters:
        found = deltas_of(merge(adapters, "linear", weights, "factor", variant="peft"))
    assert_same(found, expected, bounds)


def gives_one_back(each: Case) -> bool:
    """Whether all weight on one adapter leaves that adapter."""
    spectrum_kept = each.name not in ("iso-c", "iso-cts")
    return each.weighted and spectrum_kept and each.name != "nearswap" and each.variant != "peft"


@named([each for each in CASES if gives_one_back(each)])
@settings(max_examples=4)
@given(data=st.data(), place=st.integers(0, 2), space=st.sampled_from(["delta", "factor"]))
def test_all_weight_on_one_adapter_gives_that_adapter(
    each: Case, data: st.DataObject, place: int, space: Any
) -> None:
    space = space if space in each.method.spaces else "delta"
    made = data.draw(inputs(2, each.most, alike=space == "factor"))
    place = min(place, len(made) - 1)
    weights = [float(i == place) for i in range(len(made))]
    with opened(made) as adapters:
        found = deltas_of(each.merged(adapters, weights, space=space))
    deltas = [x.deltas() for x in made]
    assert_same(found, deltas[place], largest(deltas), tolerance(each))


@named([each for each in CASES if each.copies])
@settings(max_examples=4)
@given(
    data=st.data(),
    count=st.integers(2, 3),
    space=st.sampled_from(["delta", "factor", "auto"]),
    scale=st.sampled_from(SCALES),
)
def test_copies_of_an_adapter_give_it_back(
    each: Case, data: st.DataObject, count: int, space: Any, scale: float
) -> None:
    (one,) = data.draw(inputs(1, 1))
    copies = [one.times(scale)] * min(count, each.most)
    if each.name == "tsv":  # it keeps a share of the directions that the sides have room for
        assume(all(len(copies) * len(a) <= min(SIZES[m]) for m, (a, _, _) in one.modules.items()))
    weights = [1 / len(copies) if each.copies == "share" else 1.0] * len(copies)
    space = "delta" if space == "factor" and "factor" not in each.method.spaces else space
    with opened(copies) as adapters:
        found = deltas_of(each.merged(adapters, weights_for(each, weights), space=space))
    expected = copies[0].deltas()
    assert_same(found, expected, largest([expected] * len(copies)), tolerance(each))


SYMMETRIC = [
    each
    for each in [*CASES, *PARTIAL, *RANDOM]
    if each.method.symmetric and each.parameters.get("inner") != "magmax"
]


@named(SYMMETRIC)
@settings(max_examples=3)
@given(
    data=st.data(),
    weights=THREE_WEIGHTS,
    order=st.permutations(range(3)),
    space=st.sampled_from(["delta", "factor"]),
    rank=st.sampled_from([None, 2]),
)
def test_the_order_of_the_adapters_does_not_change_a_bit(
    each: Case, data: st.DataObject, weights: list[float], order: list[int], space: Any, rank: Any
) -> None:
    space = space if space in each.method.spaces else "delta"
    made = data.draw(inputs(each.most, each.most, alike=space == "factor", everywhere=False))
    order = [i for i in order if i < len(made)]
    rank = None if each.method.exact_rank or space == "factor" else rank
    with opened(made) as adapters:
        one = each.merged(adapters, weights_for(each, weights[: len(made)]), space=space, rank=rank)
        two = each.merged(
            [adapters[i] for i in order],
            weights_for(each, [weights[i] for i in order]),
            space=space,
            rank=rank,
        )
        assert bits_of(one) == bits_of(two)


ORDERED = [each for each in [*CASES, *PARTIAL] if not each.method.symmetric]


@named(ORDERED)
def test_where_the_order_matters_the_method_says_so(each: Case) -> None:
    made = [random_input(i, scales=(2.0,)) for i in range(each.most)]
    with opened(made) as adapters:
        one, two = (deltas_of(each.merged(those, **each.lossless)) for those in (adapters, adapters[::-1]))
    same = all(np.allclose(one[module], two[module], atol=1e-4) for module in one)
    assert same is (each.name == "magmax")  # there only equal magnitudes are settled by order


SIGNED = {"linear", "task-arithmetic", "cat", "svd", "magnitude-prune", "dare-linear", "della-linear"}
SIGNED |= {"breadcrumbs", "magmax", "consensus", "tsv", "iso-c", "iso-cts", "opcm"}


def takes_negative_weights(each: Case) -> bool:
    return (
        each.name in SIGNED and each.variant != "peft" and (each.name, each.variant) != ("linear", "mergekit")
    )


@named([each for each in [*CASES, *PARTIAL, *RANDOM] if takes_negative_weights(each)])
@settings(max_examples=4)
@given(data=st.data(), weights=st.lists(st.sampled_from([-1.6, -0.7, 0.3, 1.0]), min_size=3, max_size=3))
def test_negated_weights_give_the_negated_delta(
    each: Case, data: st.DataObject, weights: list[float]
) -> None:
    made = data.draw(inputs(2, each.most))
    weights = weights[: len(made)]
    with opened(made) as adapters:
        one = deltas_of(each.merged(adapters, weights, **each.lossless))
        two = deltas_of(each.merged(adapters, [-w for w in weights], **each.lossless))
    sizes = largest([x.deltas() for x in made], weights)
    assert_same(two, {module: -values for module, values in one.items()}, sizes, tolerance(each))


@named([*CASES, *PARTIAL])
@settings(max_examples=3)
@given(data=st.data(), factor=st.sampled_from([-1.0, -4.0, 0.25, 2.0]))
def test_scaled_adapters_give_the_scaled_delta(each: Case, data: st.DataObject, factor: float) -> None:
    if each.parameters.get("sign") == "frequency":
        factor = abs(factor)  # as many of either sign elect +
    made = data.draw(inputs(2, each.most, formats=["memory", "peft", "kohya"], dtypes=dtypes_for(each)))
    parameters = {"t": 0.5 * abs(factor)} if each.name == "nearswap" else each.options["parameters"]
    with opened(made) as adapters:
        one = deltas_of(each.merged(adapters, **each.lossless))
    scaled_inputs = [x.times(factor) for x in made]
    with opened(scaled_inputs) as adapters:
        two = deltas_of(each.merged(adapters, parameters=parameters, **each.lossless))
    sizes = largest([x.deltas() for x in scaled_inputs])
    assert_same(two, {module: factor * values for module, values in one.items()}, sizes, tolerance(each))


@named([*CASES, *PARTIAL, *RANDOM])
def test_a_scale_does_the_same_in_alpha_and_in_b_in_every_format(each: Case) -> None:
    """To the bit: random numbers too come from what an adapter does, not from how it is written."""
    made = [random_input(i, ranks=(3,), scales=(2.0, 0.25)) for i in range(each.most)]
    with opened(made) as adapters:
        expected = bits_of(each.merged(adapters, space="delta"))
    # kohya's names are other ids, and random numbers hang on ids
    for format in ("peft" if each in RANDOM else "kohya", "mlx"):
        in_b = [
            Input({m: (a, b * np.float32(s), 1.0) for m, (a, b, s) in x.modules.items()}, format)
            for x in made
        ]
        with opened(in_b) as adapters:
            assert bits_of(each.merged(adapters, space="delta")) == expected, format


@settings(max_examples=20)
@given(made=inputs(everywhere=False), weights=st.lists(st.floats(-2, 2), min_size=3, max_size=3))
def test_cat_does_what_its_inputs_do_one_beside_the_other(made: list[Input], weights: list[float]) -> None:
    """x -> sum of w · scale · B (A x), whatever the formats, ranks and scales, at the sum of the ranks."""
    weights = weights[: len(made)]
    with opened(made) as adapters:
        merged = merge(adapters, "cat", weights)
        for module, factors in merged.modules.items():
            x = np.random.default_rng(1).standard_normal((factors.a.shape[1], 3))
            expected, size = np.zeros((len(factors.b), 3)), 1e-30
            for w, each in zip(weights, made, strict=True):
                for name, (a, b, _) in each.modules.items():
                    if flat(name) == flat(module):
                        part = w * each.scale(name) * (b.astype(np.float64) @ (a.astype(np.float64) @ x))
                        expected, size = expected + part, size + float(np.abs(part).max())
            found = factors.scale * (factors.b.astype(np.float64) @ (factors.a.astype(np.float64) @ x))
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * size)


CUT = [
    "average",
    "linear",
    "svd",
    "ties",
    "magmax",
    "dare-linear",
    "sce",
    "tsv",
    "iso-c",
    "cart",
    "core",
    "knots",
]


@pytest.mark.parametrize("method", CUT)
@pytest.mark.parametrize("svd", ["full", "randomized"])
@settings(max_examples=4)
@given(made=inputs(), rank=st.integers(1, 7))
def test_a_cut_delta_is_the_nearest_of_its_rank(method: str, svd: Any, made: list[Input], rank: int) -> None:
    """Eckart-Young: what is lost is what the dense truncated SVD loses, and the report says how much."""
    with opened(made) as adapters:
        exact = deltas_of(merge(adapters, method, space="delta", rank=ALL_OF_IT, svd="full"))
        merged = execute(plan_merge(adapters, Recipe(method, space="delta", rank=rank, svd=svd)))
        found = deltas_of(merged.adapter)
    assert merged.adapter.rank <= rank
    cut, kept, whole = set(map(flat, merged.report.energies)), 0.0, 0.0
    for module, dense in exact.items():
        energies = np.linalg.svd(dense, compute_uv=False) ** 2
        lost = float(((dense - found[module]) ** 2).sum())
        assert lost == pytest.approx(float(energies[rank:].sum()), rel=1e-3, abs=1e-9 * float(energies.sum()))
        if module in cut:
            kept, whole = kept + float(energies[:rank].sum()), whole + float(energies.sum())
    assert merged.report.retained_energy == (pytest.approx(kept / whole, abs=1e-5) if whole else None)


@pytest.mark.parametrize("method", CUT)
@settings(max_examples=5)
@given(
    made=inputs(), share=st.sampled_from([0.5, 0.8, 0.9, 0.99]), svd=st.sampled_from(["full", "randomized"])
)
def test_an_energy_is_kept_at_the_smallest_rank(
    method: str, made: list[Input], share: float, svd: Any
) -> None:
    with opened(made) as adapters:
        exact = deltas_of(merge(adapters, method, space="delta", rank=ALL_OF_IT, svd="full"))
        merged = execute(plan_merge(adapters, Recipe(method, space="delta", energy=share, svd=svd)))
        found = deltas_of(merged.adapter)
        ranks = {flat(module): factors.rank for module, factors in merged.adapter.modules.items()}
    for module, dense in exact.items():
        energies = np.linalg.svd(dense, compute_uv=False) ** 2
        if not energies.any():
            continue  # nothing of this module was among the largest
        shares = np.cumsum(energies) / energies.sum()
        # flat spectra, as those of iso-c, may reach the share but for rounding
        assert shares[ranks[module] - 1] >= share - 1e-5
        assert ranks[module] == 1 or shares[ranks[module] - 2] < share + 1e-5
        lost = float(((dense - found[module]) ** 2).sum())
        assert lost <= (1 - share + 1e-5) * float(energies.sum())
    assert merged.report.retained_energy is not None
    assert merged.report.retained_energy >= share - 1e-5


@settings(max_examples=20)
@given(
    made=inputs(everywhere=False),
    weights=THREE_WEIGHTS,
    how=st.sampled_from([("core", {}), ("knots", {"stack": "outputs"}), ("knots", {"stack": "inputs"})]),
    inner=st.sampled_from(["average", "task-arithmetic"]),
)
def test_a_plain_sum_is_the_same_in_any_coordinates(
    made: list[Input], weights: list[float], how: tuple[str, dict[str, Any]], inner: str
) -> None:
    (name, parameters), weights = how, weights[: len(made)]
    with opened(made) as adapters:
        found = deltas_of(
            merge(adapters, name, weights, rank=ALL_OF_IT, parameters={"inner": inner, **parameters})
        )
    deltas = with_zeros([x.deltas() for x in made])
    by = sum(weights) if inner == "average" else 1.0
    expected = {m: weighted_sum([d[m] for d in deltas], weights) / by for m in deltas[0]}
    assert_same(found, expected, largest(deltas, weights))


SAME_IN_THE_LIMIT = [
    (case("magnitude-prune", density=1.0), case("task-arithmetic")),
    (case("dare-linear", "paper", density=1.0), case("task-arithmetic")),
    (case("dare-linear", "mergekit", density=1.0), case("task-arithmetic")),
    (case("della-linear", "paper", density=1.0), case("task-arithmetic")),
    (case("della-linear", "mergekit", density=1.0), case("task-arithmetic")),
    (case("della", "paper", density=1.0), case("ties", "mergekit", density=1.0)),
    (case("della", "mergekit", density=1.0), case("ties", "mergekit", density=1.0)),
    (case("dare-ties", "peft", density=1.0), case("ties", "peft", density=1.0)),
    (case("dare-ties", "mergekit", density=1.0), case("ties", "mergekit", density=1.0, merge="sum")),
    (
        case("della", "paper", density=0.5, epsilon=0.0, rescale=False),
        case("dare-ties", "mergekit", density=0.5, merge="mean", rescale=False),
    ),
    (case("della-linear", "paper", density=0.5, epsilon=0.0), case("dare-linear", "paper", density=0.5)),
    (case("breadcrumbs", "mergekit", density=0.5, gamma=0.0), case("magnitude-prune", density=0.5)),
    (case("breadcrumbs", "paper", density=1.0, gamma=0.0), case("task-arithmetic")),
    (case("breadcrumbs", "mergekit", density=1.0, gamma=0.25), case("task-arithmetic")),
    (
        case("breadcrumbs-ties", "mergekit", density=0.5, gamma=0.0, merge="mean"),
        case("ties", "mergekit", density=0.5),
    ),
    (case("consensus", k=0), case("task-arithmetic")),
    (case("consensus", k=0, alpha=0.5), case("task-arithmetic", lambda_=0.5)),
    (case("consensus", k=3, lambda_=0.0), case("task-arithmetic")),
    (case("tall", k=0), case("average")),
    (case("cart", lambda_=0.0), case("average")),
    (case("cart", rho=0.0), case("average")),
    (case("cart", rho=1.0), case("average")),
    (case("cat"), case("linear", "paper")),
    (case("linear", "mergekit"), case("average")),
    (case("knots", inner="dare-linear", density=1.0), case("task-arithmetic")),
    (case("core", inner="magnitude-prune", density=1.0), case("task-arithmetic")),
]


@pytest.mark.parametrize(("each", "plain"), SAME_IN_THE_LIMIT, ids=str)
@settings(max_examples=4)
@given(data=st.data(), weights=THREE_WEIGHTS)
def test_in_the_limit_a_method_is_a_plainer_one(
    each: Case, plain: Case, data: st.DataObject, weights: list[float]
) -> None:
    made = data.draw(inputs(2, each.most))
    weights = weights[: len(made)]
    with opened(made) as adapters:
        found, expected = (deltas_of(one.merged(adapters, weights, **one.lossless)) for one in (each, plain))
    assert_same(found, expected, largest([x.deltas() for x in made], weights))


@pytest.mark.parametrize("variant", ["paper", "mergekit", "peft"])
@settings(max_examples=8)
@given(made=inputs(1, 1, dtypes=("F32",)), density=st.sampled_from([0.25, 0.5, 0.75]))
def test_ties_beside_an_adapter_of_zeros_trims(variant: str, made: list[Input], density: float) -> None:
    zero = Input({m: (a, 0 * b, scale) for m, (a, b, scale) in made[0].modules.items()})
    scope = "global" if variant == "paper" else "tensor"
    each = case("ties", variant, density=density)
    prune = case("magnitude-prune", density=density, scope=scope)
    with opened([made[0], zero]) as adapters:
        found, pruned = (deltas_of(one.merged(adapters, **one.lossless)) for one in (each, prune))
    expected = trimmed(made[0].deltas(), density, scope)
    assert_same(found, expected, largest([made[0].deltas()]))
    assert_same(pruned, expected, largest([made[0].deltas()]))


def test_at_the_ends_of_their_way_slerp_and_nearswap_give_their_adapters() -> None:
    made = [random_input(i, ranks=(2, 5), scales=(4.0, 0.25)) for i in range(2)]
    deltas = [x.deltas() for x in made]
    ends = [(case("slerp", t=0.0), 0), (case("slerp", t=1.0), 1)]
    ends += [(case("nearswap", t=0.0), 0), (case("nearswap", t=1e6), 1)]
    with opened(made) as adapters:
        for each, place in ends:
            assert_same(deltas_of(each.merged(adapters, **each.lossless)), deltas[place], largest(deltas))


SUMS = ("average", "running-average", "linear", "task-arithmetic", "cat", "svd")


def is_a_plain_sum(each: Case) -> bool:
    return (each.parameters.get("inner") or each.name) in SUMS


@named([each for each in CASES if is_a_plain_sum(each)])
@settings(max_examples=4)
@given(data=st.data(), weights=THREE_WEIGHTS)
def test_in_a_sum_a_module_that_an_adapter_lacks_counts_as_zero(
    each: Case, data: st.DataObject, weights: list[float]
) -> None:
    made = data.draw(inputs(3, 3, everywhere=False))
    deltas = with_zeros([x.deltas() for x in made])
    name = each.parameters.get("inner") or each.name
    expected = DENSE[name](deltas, weights, given_to(each, name))
    with opened(made) as adapters:
        found = deltas_of(each.merged(adapters, weights_for(each, weights), **each.lossless))
    assert_same(found, expected, largest(deltas, weights), tolerance(each))


@named([each for each in CASES if not is_a_plain_sum(each)])
def test_but_in_a_sum_an_adapter_takes_no_part_in_a_module_that_it_lacks(each: Case) -> None:
    """The first has all three modules, the second two where it may, the third one."""
    first, second, third = SIZES
    made = [
        random_input(i, ranks=(2,), scales=(2.0,), modules=modules)
        for i, modules in enumerate([(first, second, third), (first, second), (first,)])
    ][-each.most :]
    with opened(made) as adapters:
        found = deltas_of(each.merged(adapters, **each.lossless))
    two = [Input({second: x.modules[second]}) for x in made if second in x.modules]
    if len(two) == 2:
        with opened(two) as adapters:
            expected = deltas_of(each.merged(adapters, **each.lossless))
        assert_same({flat(second): found[flat(second)]}, expected, largest([x.deltas() for x in two]), 1e-4)
    alone = max(made, key=lambda x: len(x.modules))
    module = list(alone.modules)[-1]
    if each.copies:
        delta = {flat(module): alone.deltas()[flat(module)]}
        assert_same({flat(module): found[flat(module)]}, delta, largest([delta]))


UNBIASED = [
    case("dare-linear", density=0.25),
    case("dare-linear", density=0.5, lambda_=2.0),
    case("della-linear", density=0.5),
    case("della-linear", density=0.6, epsilon=0.3),
    case("core", inner="dare-linear", density=0.5),
]
SEEDS = 200


def keeping(x: Float64, each: Case) -> Float64:
    """The probability that each element is kept."""
    given = given_to(each)
    if each.name == "dare-linear":
        return np.full(x.shape, given["density"])
    ranks = np.abs(x).argsort(axis=1).argsort(axis=1) / (x.shape[1] - 1)
    return given["density"] - given["epsilon"] + 2 * given["epsilon"] * ranks


@named(UNBIASED)
def test_over_seeds_the_mean_is_the_weighted_sum(each: Case) -> None:
    """To 5 standard errors, which are known: an element of t has the variance x² (1 - p) / p."""
    module, weights = next(iter(SIZES)), [1.0, -0.6]
    made = [random_input(i, ranks=(3,), scales=(2.0,), modules=(module,)) for i in range(2)]
    xs = [x.deltas()[flat(module)] for x in made]
    by = float(each.parameters.get("lambda_", 1.0))
    with opened(made) as adapters:
        drawn = [
            deltas_of(each.merged(adapters, weights, seed=seed, **each.lossless))[flat(module)]
            for seed in range(SEEDS)
        ]
    if each.name == "core":
        error = 5 * np.std(drawn, axis=0) / math.sqrt(SEEDS)
    else:
        variance = sum(
            (w * x) ** 2 * (1 - keeping(x, each)) / keeping(x, each) for w, x in zip(weights, xs, strict=True)
        )
        error = 5 * by * np.sqrt(variance / SEEDS)
        # and the draws vary as much as they should: their variance is off by less than half
        assert 0.5 < float((np.var(drawn, axis=0) / (by**2 * variance)).mean()) < 1.5
    off = np.abs(np.mean(drawn, axis=0) - by * weighted_sum(xs, weights))
    assert (off <= error + 1e-5).all()


def test_dare_keeps_the_share_that_its_density_says_and_every_input_draws_its_own() -> None:
    module = next(iter(SIZES))
    made = [random_input(i, ranks=(3,), modules=(module,)) for i in range(2)]
    each = case("dare-linear", density=0.3)
    kept, both = [], []
    with opened(made) as adapters:
        for seed in range(60):
            alone = [
                deltas_of(each.merged(adapters, weights, seed=seed, **each.lossless))[flat(module)]
                for weights in ([1.0, 0.0], [0.0, 1.0])
            ]
            masks = [np.abs(x) > 1e-5 for x in alone]
            kept.append(np.mean(masks))
            both.append(np.mean(masks[0] & masks[1]))
    count = 60 * SIZES[module][0] * SIZES[module][1]
    assert abs(np.mean(kept) - 0.3) < 5 * math.sqrt(0.3 * 0.7 / (2 * count))
    assert abs(np.mean(both) - 0.09) < 5 * math.sqrt(0.09 * 0.91 / count)


EVERY_KIND = [
    case("average"),
    case("linear", "paper"),
    case("cat"),
    case("karcher"),
    case("ties", "paper", density=0.5),
    case("ties", "peft", density=0.5),
    case("dare-ties", "peft", density=0.5),
    case("della", "paper", density=0.5),
    case("breadcrumbs", "paper", density=0.5),
    case("sce", select_topk=0.5),
    case("magmax"),
    case("knots", inner="ties", density=0.5),
    case("core", inner="dare-ties", density=0.5),
    case("tsv"),
    case("opcm"),
]


WAYS = [(each, space) for each in EVERY_KIND for space in each.method.spaces]


@pytest.mark.parametrize(("each", "space"), WAYS, ids=str)
def test_any_number_of_threads_gives_the_same_bits(each: Case, space: Any) -> None:
    made = [random_input(i, ranks=(4,), scales=(2.0, 0.25)) for i in range(3)]
    with opened(made) as adapters:
        bits = [written(plan_of(each, adapters, space, workers=workers)) for workers in (1, 2, 4)]
    assert bits[0] == bits[1] == bits[2]


def plan_of(each: Case, adapters: Any, space: Any, **options: Any) -> Any:
    given = each.options
    recipe = Recipe(given["method"], given["variant"], space=space, parameters=given["parameters"])
    return plan_merge(adapters, recipe, **options)


def written(plan: Any) -> dict[str, bytes]:
    """The bytes of the weights and of the record, as the merge writes them."""
    with tempfile.TemporaryDirectory() as name:
        write_adapter(execute(plan).adapter, Path(name) / "merged")
        return {
            file: (Path(name) / "merged" / file).read_bytes()
            for file in ("adapter_model.safetensors", "pamctl.json")
        }


LARGE = {"wide": (300, 600), "tall": (600, 300)}


def large_adapter(seed: int) -> Adapter:
    rng = np.random.default_rng(seed)
    return Adapter(
        {
            module: LoraFactors(
                rng.standard_normal((3, inputs), np.float32),
                rng.standard_normal((outputs, 3), np.float32),
                2.0,
            )
            for module, (outputs, inputs) in LARGE.items()
        }
    )


def least_memory(each: Case, adapters: Any, space: Any) -> int:
    """The smallest bound that the plan takes, as its refusal names it."""
    with pytest.raises(Refusal) as refusal:
        plan_of(each, adapters, space, max_memory=1 << 16)
    found = re.search(r"--max-memory (\d+)M", refusal.value.way_on)
    assert found, refusal.value.way_on
    return int(found[1]) << 20


@pytest.mark.parametrize(("each", "space"), WAYS, ids=str)
def test_the_least_memory_gives_the_same_bits_as_plenty(each: Case, space: Any) -> None:
    """Streamed rows, and dense deltas made anew for each pass, are what they are when held whole."""
    adapters = [large_adapter(i) for i in range(2)]
    least = plan_of(each, adapters, space, max_memory=least_memory(each, adapters, space))
    plenty = plan_of(each, adapters, space, max_memory=1 << 30)
    assert written(least) == written(plenty)


@settings(max_examples=20)
@given(
    made=inputs(),
    each=st.sampled_from(EVERY_KIND),
    format=st.sampled_from(AT_REST),
    dtype=st.sampled_from([None, *NUMPY_DTYPES]),
    compact=st.booleans(),
)
def test_what_is_written_in_any_format_and_dtype_has_the_merged_deltas(
    made: list[Input], each: Case, format: str, dtype: str | None, compact: bool
) -> None:
    compact = compact and format != "mlx"
    with opened(made) as adapters, tempfile.TemporaryDirectory() as name:
        merged = each.merged(adapters)
        write_adapter(merged, Path(name) / "merged", format, WriteOptions(dtype=dtype, compact=compact))
        read = open_adapter(Path(name) / "merged")
        ids = {flat(module): module for module in read.shapes}
        same_deltas(read, merged, dtype or merged.dtype, lambda module: ids[flat(module)])

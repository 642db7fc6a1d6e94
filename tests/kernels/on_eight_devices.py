"""The kernels on arrays spread over eight virtual devices: test_back_ends.py runs it in its own process."""

import math
import re
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from kernel_cases import DTYPES, random_size, random_top_p, random_weights, rank, sorted_threshold
from pamctl_kernels import (
    elect_signs,
    kth_largest_magnitudes,
    magnitude_threshold,
    merge_agreeing,
    realign,
    sign_conflicts,
    trim,
    weighted_average,
)
from pamctl_kernels.device import stream, threshold

MESH = Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "model"))
BATCH = 250


def spread(x: np.ndarray, *axes: object) -> jax.Array:
    return jax.device_put(x, NamedSharding(MESH, P(*axes)))


def check_a_thousand_thresholds() -> None:
    """Zero-padded to one shape (k stays), in batches: a collective among eight threads is slow."""
    random = np.random.default_rng(9)
    batched = jax.jit(jax.vmap(lambda x, k: threshold._kth_largest([x], k)))
    for batch in range(1_500 // BATCH):
        dtype = DTYPES[batch % 3]
        cases = [random_weights(random, min(random_size(random), 8192), dtype) for _ in range(BATCH)]
        top_ps = [random_top_p(random) for _ in cases]
        padded = np.zeros((BATCH, 8192), dtype)
        for row, x in zip(padded, cases, strict=True):
            row[: x.size] = x
        ranks = np.int32([rank(top_p, x.size) for top_p, x in zip(top_ps, cases, strict=True)])
        found = np.asarray(batched(spread(padded, None, ("data", "model")), ranks)).astype(np.float64)
        expected = [sorted_threshold(x, top_p) for x, top_p in zip(cases, top_ps, strict=True)]
        assert found.tolist() == expected, batch


def check_single_thresholds() -> None:
    random = np.random.default_rng(10)
    for case in range(24):
        size = 8_000 if case % 8 else 1_000_000
        x = random_weights(random, (size // 40, 40), DTYPES[case % 3])
        top_p = random_top_p(random)
        axes = [("data", "model"), (("data", "model"), None), (None, "model"), ("model",)][case % 4]
        found = magnitude_threshold(spread(x, *axes), top_p)
        assert float(np.asarray(found)) == sorted_threshold(x, top_p), (case, top_p)
    padded = spread(np.concatenate([x.ravel(), np.zeros(8_000 * 3, x.dtype)]), "data")
    same_k = Fraction(100 * rank(30, x.size), padded.size)
    assert float(np.asarray(magnitude_threshold(padded, same_k))) == sorted_threshold(x, 30)


def check_realign_and_average() -> None:
    random = np.random.default_rng(11)
    w, g = ({k: random_weights(random, (8, 16, 4), DTYPES[0]) for k in "ab"} for _ in "wg")
    on = [{"a": spread(t["a"], "data", "model"), "b": spread(t["b"], None, "model")} for t in (w, g)]
    tau = {"a": random.random((8, 1, 1), np.float32), "b": magnitude_threshold(g["b"], 50)}
    aligned, counts = realign(*on, tau, per_layer=True)
    expected, expected_counts = realign(w, g, tau, per_layer=True)
    masks, expected_masks = sign_conflicts(*on, tau), sign_conflicts(w, g, tau)
    average, expected_average = weighted_average(on, [0.5, 0.5]), weighted_average([w, g], [0.5, 0.5])
    for k in "ab":
        assert np.asarray(aligned[k]).tobytes() == expected[k].tobytes()
        assert counts[k].tolist() == expected_counts[k].tolist()
        assert (np.asarray(masks[k]) == expected_masks[k]).all()
        assert aligned[k].sharding.is_equivalent_to(on[0][k].sharding, 3)
        assert average[k].sharding.is_equivalent_to(on[0][k].sharding, 3)
        normal = np.abs(expected_average[k]) > 1e-37
        assert (np.asarray(average[k]) == expected_average[k])[normal].all()
    assert int(realign(*on, tau)[1]) == sum(int(counts.sum()) for counts in expected_counts.values())


def check_agreement() -> None:
    random = np.random.default_rng(12)
    a, b = ({k: random.standard_normal((8, 16, 4), np.float32) for k in "ab"} for _ in "ab")
    on = [{"a": spread(t["a"], "data", "model"), "b": spread(t["b"], None, "model")} for t in (a, b)]
    rule = {"thresholds": [0.5, None], "elect": "weighted", "divide": "weight"}
    merged, expected = merge_agreeing(on, [0.3, 0.7], **rule), merge_agreeing([a, b], [0.3, 0.7], **rule)
    for found, reference in [
        (merged, expected),
        (trim(on[0], 1), trim(a, 1)),
        (elect_signs(on), elect_signs([a, b])),
    ]:
        for k in "ab":
            assert np.asarray(found[k]).tobytes() == reference[k].tobytes()
            assert found[k].sharding.is_equivalent_to(on[0][k].sharding, 3)


def check_streams() -> None:
    random = np.random.default_rng(13)
    tuples = [tuple(random_weights(random, (8, 16, 4), dtype) for dtype in DTYPES) for _ in range(6)]
    axes = [("data", "model"), (None, "model"), (("data", "model"),)]
    on = [tuple(spread(x, *axes[i % 3]) for x in arrays) for i, arrays in enumerate(tuples)]
    for share in (0, 0.2, 1):
        found = kth_largest_magnitudes(on, lambda n, share=share: int(share * n))
        expected = kth_largest_magnitudes(tuples, lambda n, share=share: int(share * n))
        assert [x.tobytes() for x in found] == [x.tobytes() for x in expected]


def largest_collective(program: jax.stages.Lowered) -> int:
    """How many numbers a device contributes to the largest collective of a program, which must have one."""
    found = re.findall(r" = (.*?) (all-\S+|collective-\S+|reduce-scatter)\(", program.compile().as_text())
    assert found
    return max(
        math.prod(map(int, dims.split(",")))
        for shape, _ in found
        for dims in re.findall(r"\[(\d[\d,]*)\]", shape)
    )


def check_only_counts_cross() -> None:
    """No program gathers a leaf: no collective moves more than a few numbers or a sample."""
    x = jax.ShapeDtypeStruct((64, 4096), jnp.float32, sharding=NamedSharding(MESH, P("data", "model")))
    assert largest_collective(jax.jit(partial(magnitude_threshold, top_p=50)).lower(x)) <= threshold.SAMPLE
    assert largest_collective(jax.jit(realign).lower(x, x, 0.5)) <= 64
    assert largest_collective(stream._counts.lower(x, jnp.zeros(8, jnp.int32))) <= 64
    assert largest_collective(stream._sampled.lower(x, count=4096)) <= 4096


if __name__ == "__main__":
    assert jax.device_count() == 8
    check_single_thresholds()
    check_realign_and_average()
    check_agreement()
    check_streams()
    check_only_counts_cross()
    check_a_thousand_thresholds()
    print("all held")

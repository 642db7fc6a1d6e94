from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import pamctl_kernels.stream
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import DTYPES, random_weights
from pamctl_kernels import kth_largest_magnitudes
from pamctl_kernels.device import stream as device_stream

BACK_ENDS = [np.asarray, jnp.asarray]
MOST_PASSES = 15


class Stream:
    """Tuples that are read anew, and how often they were."""

    def __init__(self, tuples: Sequence[tuple[Any, ...]]) -> None:
        self.tuples, self.passes = tuples, 0

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        self.passes += 1
        return iter(self.tuples)


def sorted_magnitudes(stream: Stream, position: int) -> np.ndarray:
    pooled = [np.asarray(arrays[position]).astype(np.float64).ravel() for arrays in stream.tuples]
    return np.sort(np.abs(np.concatenate(pooled)))[::-1]


@pytest.mark.parametrize("array", BACK_ENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("k", "expected"), [(0, np.inf), (1, 4), (2, 3), (3, 3), (4, 2), (6, 0)])
def test_worked_by_hand(array: Any, dtype: Any, k: int, expected: float) -> None:
    """The magnitudes are 4, 3, 3, 2, 0.5, 0."""
    stream = Stream([(array(np.array([[-3, 2]], dtype)),), (array(np.array([3, -0.0, -4, 0.5], dtype)),)])
    (threshold,) = kth_largest_magnitudes(stream, lambda n: k)
    assert float(threshold) == expected
    assert threshold.dtype == dtype
    assert threshold.shape == ()
    assert stream.passes <= (2 if array is np.asarray else MOST_PASSES)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), dtypes=st.tuples(*[st.sampled_from(DTYPES)] * 2))
def test_it_is_what_sorting_everything_gives(seed: int, dtypes: tuple[Any, Any]) -> None:
    random = np.random.default_rng(seed)
    shapes = [(3, 7), (40,), (), (0, 2)]
    tuples = [tuple(random_weights(random, shapes[i % 4], dtype) for dtype in dtypes) for i in range(8)]
    shares = random.random(2)
    ranks: list[Callable[[int], int]] = [
        lambda n: int(shares[0] * n) + 1,
        lambda n: int(np.ceil(shares[1] * n)),
    ]
    for array in BACK_ENDS:
        stream = Stream([tuple(array(x) for x in arrays) for arrays in tuples])
        found = kth_largest_magnitudes(stream, ranks)
        for i, rank in enumerate(ranks):
            magnitudes = sorted_magnitudes(stream, i)
            assert float(found[i]) == magnitudes[rank(magnitudes.size) - 1]
        assert stream.passes <= (2 if array is np.asarray else MOST_PASSES)


@pytest.mark.parametrize("array", BACK_ENDS)
def test_every_rank_of_subnormals_infinities_and_ties(array: Any) -> None:
    x = np.float32([1e-45, -1e-40, 0, -0.0, np.inf, -np.inf, 1, 1, 1.0000001, 3e38])
    stream = Stream([(array(x[:4]),), (array(x[4:]),)])
    expected = sorted_magnitudes(stream, 0).tolist()
    assert [float(kth_largest_magnitudes(stream, lambda n, k=k: k)[0]) for k in range(1, 11)] == expected


def test_host_arrays_larger_than_a_block_and_strided() -> None:
    x = np.random.default_rng(3).standard_normal((700, 500), np.float32)
    stream = Stream([(x.T[::2, ::-3],), (x,)])
    magnitudes = sorted_magnitudes(stream, 0)
    assert float(kth_largest_magnitudes(stream, lambda n: n // 3)[0]) == magnitudes[magnitudes.size // 3 - 1]


def test_counts_of_many_arrays_outlive_what_an_int32_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_stream, "_LIMIT", 10)
    with pytest.raises(ValueError, match="10 weights in one array"):
        kth_largest_magnitudes([(jnp.ones(10),)], lambda n: 1)


@pytest.mark.parametrize("array", BACK_ENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_sample_that_misleads_costs_passes_and_not_the_answer(array: Any, dtype: Any) -> None:
    """Every sampled element is tiny, all others are large."""
    x = np.linspace(1, 2, 61 * 300).astype(dtype)
    x[::61] = 0
    stream = Stream([(array(x),)])
    (found,) = kth_largest_magnitudes(stream, lambda n: n // 2)
    assert float(found) == sorted_magnitudes(stream, 0)[x.size // 2 - 1]
    assert stream.passes <= MOST_PASSES


@pytest.mark.parametrize("array", BACK_ENDS)
def test_more_equal_magnitudes_than_may_be_collected_are_counted(
    array: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pamctl_kernels.stream, "_MOST_KEPT", 100)
    x = np.where(np.arange(10_000) % 3, np.float32(0.5), np.arange(10_000, dtype=np.float32))
    stream = Stream([(array(x),)] * 3)
    for k in (5_000, 12_000, 29_000):
        (found,) = kth_largest_magnitudes(stream, lambda n, k=k: k)
        assert float(found) == sorted_magnitudes(stream, 0)[k - 1]


def test_work_goes_through_the_streams_own_map() -> None:
    class Mapping(Stream):
        def map(self, work: Callable[[Any], Any]) -> Iterator[Any]:
            self.passes += 100
            return map(work, self.tuples)

    stream = Mapping([(np.float32([3, -4]),), (np.float32([0.5]),)])
    assert kth_largest_magnitudes(stream, lambda n: n - 1) == (3,)
    assert stream.passes >= 200


@pytest.mark.parametrize("array", BACK_ENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sign", [1, -1])
def test_nan_is_refused(array: Any, dtype: Any, sign: int) -> None:
    stream = [(array(np.ones(2, dtype)), array(np.array([1, np.copysign(np.nan, sign)], dtype)))]
    with pytest.raises(ValueError, match="array 1 holds NaN"):
        kth_largest_magnitudes(stream, lambda n: 0)


def test_nan_of_the_smallest_payload_is_refused() -> None:
    smallest = np.array([0x7F800001, 0x7F800000], np.int32).view(np.float32)
    for array in BACK_ENDS:
        with pytest.raises(ValueError, match="array 0 holds NaN"):
            kth_largest_magnitudes([(array(smallest),)], lambda n: 1)


def test_streams_that_do_not_fit_are_refused() -> None:
    one, two = np.ones(2, np.float32), np.ones(2, np.float16)
    refused: list[tuple[Any, Any, type[Exception], str]] = [
        (iter([(one,)]), lambda n: 1, TypeError, "read only once"),
        ([(one,), (one, one)], lambda n: 1, ValueError, "1 arrays at a time, then 2"),
        ([(one,), (two,)], lambda n: 1, TypeError, "dtypes float32 and float16"),
        ([(one,)], [lambda n: 1] * 2, ValueError, "1 arrays at a time but there are 2 k"),
        ([(one,)], lambda n: n + 1, ValueError, "k = 3 cannot be kept"),
        ([(one,)], lambda n: -1, ValueError, "k = -1 cannot be kept"),
        ([(one.astype(int),)], lambda n: 1, TypeError, "dtype int64"),
    ]
    for stream, k, error, message in refused:
        with pytest.raises(error, match=message):
            kth_largest_magnitudes(stream, k)
    assert kth_largest_magnitudes([], lambda n: 1) == ()


def test_a_stream_that_changes_between_its_passes_is_refused() -> None:
    class Changing(Stream):
        def __iter__(self) -> Iterator[tuple[Any, ...]]:
            self.passes += 1
            return iter([(np.ones(self.passes, np.float32),)])

    with pytest.raises(ValueError, match="held other weights when the stream was read again"):
        kth_largest_magnitudes(Changing([]), lambda n: 1)


def test_another_rank_compiles_nothing() -> None:
    stream = [(jnp.arange(10.0),)]
    kth_largest_magnitudes(stream, lambda n: 3)
    compiled = device_stream._counts._cache_size()
    assert float(kth_largest_magnitudes(stream, lambda n: 8)[0]) == 2
    assert device_stream._counts._cache_size() == compiled

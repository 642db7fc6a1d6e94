"""A base's tensors on their way from disk to devices: each byte read once, checked, hashed and placed."""

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import ml_dtypes
import numpy as np

from pamctl.models.digest_cache import keep_digest, known_digest
from pamctl.models.leaves import Leaf
from pamctl.models.placement import Placement, Sharding
from pamctl.models.stored import KINDS, BlockReader, Run, StoredModel, StoredTensor, row_blocks
from pamctl.models.trees import Tree
from pamctl.refusal import Refusal

_READERS = 2 if (os.cpu_count() or 1) < 4 else 4
_GROUPS_AT_ONCE = 2  # so that no reader waits while a parameter is handed to the device; bounds host memory
_KIND_OF = {dtype: kind for kind, dtype in KINDS.items()}


def read_model(
    model: StoredModel,
    dtype: np.dtype[Any],
    sharding: Sharding | None = None,
    kept: Callable[[jax.Array], Any] = lambda array: array,
) -> tuple[Tree, str]:
    """Read all tensors of a base into one stacked parameter after the other.

    Every process reads all of it, and keeps what its devices hold: so each knows the digest by itself, and
    files that differ between hosts show.

    Args:
        dtype: of the parameters in memory, one of `KINDS`.
        sharding: how each parameter lies over devices; None for all on the default device.
        kept: what stays of each parameter once it is on the devices.

    Returns:
        The parameters, and the SHA-256 over names, kinds, shapes and numbers of all tensors as stored: the
        same for any spelling, order, sharding or dtype in memory.

    Raises:
        Refusal: a file that ends early or has changed, or numbers that are not finite or are not in `dtype`.
    """
    began, known = time.time(), known_digest(model)
    tree: Tree = {}
    digests: dict[str, str] = {}
    with ThreadPoolExecutor(_READERS) as pool:
        waiting: deque[tuple[list[Placement], list[Future[dict[str, str]]]]] = deque()
        try:
            for group in (*model.groups, *[()] * (_GROUPS_AT_ONCE - 1)):
                leaves = {leaf for run in group for leaf, _, _ in run.tensors}
                placements = {leaf: Placement(leaf, dtype, sharding) for leaf in leaves}
                futures = [pool.submit(_read, run, placements, known is None) for run in group]
                waiting.append(([*placements.values()], futures))
                del placements
                if len(waiting) == _GROUPS_AT_ONCE:
                    arrived, futures = waiting.popleft()
                    for future in futures:
                        digests |= future.result()
                    for placement in arrived:
                        _put(tree, placement.leaf.path, kept(placement.array()))
        finally:
            pool.shutdown(cancel_futures=True)
    if known is None:
        known = _whole_digest(digests)
        keep_digest(model, known, began)
    return tree, known


def stored_digest(model: StoredModel) -> str:
    """Return the SHA-256 that `read_model` gives, for one who needs no parameters; errors are the same."""
    began, known = time.time(), known_digest(model)
    if known is None:
        with ThreadPoolExecutor(_READERS) as pool:
            runs = [run for group in model.groups for run in group]
            digests = pool.map(lambda run: _read(run, {}, True), runs)
            known = _whole_digest({name: digest for each in digests for name, digest in each.items()})
        keep_digest(model, known, began)
    return known


def _whole_digest(digests: Mapping[str, str]) -> str:
    """The SHA-256 over those of all tensors by canonical name."""
    whole = "".join(f"{name} {digest}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(whole.encode()).hexdigest()


def _read(run: Run, placements: Mapping[Leaf, Placement], hashed: bool) -> dict[str, str]:
    """Read a run into its places, of those parameters that have one.

    Returns:
        The SHA-256 of each tensor by canonical name, if they are hashed.
    """
    digests, reader = {}, BlockReader()
    for (leaf, layer, kind), tensor in zip(run.tensors, run.open(), strict=True):
        placement, name, stored = placements.get(leaf), leaf.name(layer), KINDS[kind]
        digest = hashlib.sha256(f"{name} {stored.name} {leaf.stored}\n".encode())
        for start, stop in row_blocks(leaf, kind):
            room = None
            if placement is not None and placement.dtype == stored:
                room = placement.room(layer, start, stop)
            values = reader.read(tensor, leaf, start, stop, room)
            if hashed:
                digest.update(values.reshape(-1).view(np.uint8).data)
            if placement is not None and room is None:
                placement.put(layer, start, _cast(values, placement.dtype, tensor, reader))
        digests[name] = digest.hexdigest()
    return digests


def _cast(values: np.ndarray, dtype: np.dtype[Any], tensor: StoredTensor, reader: BlockReader) -> np.ndarray:
    if values.dtype == dtype:
        return values
    with np.errstate(over="ignore"):
        rounded = values.astype(dtype)
    if not reader.all_finite(rounded, _KIND_OF[dtype]):
        largest = float(ml_dtypes.finfo(dtype).max)
        raise Refusal(
            f"{tensor.where} goes beyond {largest:g}, the largest {_KIND_OF[dtype]}", "load it as f32"
        )
    return rounded


def _put(tree: Tree, path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value

"""One file of torch.save (.bin, .pt, .ckpt): where its tensors lie, without torch and with nothing run."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pamctl.adapters.stored_zip import StoredMember, member_bytes, stored_members
from pamctl.adapters.tensor_file import FileState, TensorEntry, TensorFile, is_tensor_name, shown
from pamctl.adapters.tensor_pickle import PickledTensor, unpickled
from pamctl.refusal import Refusal

LARGEST_PICKLE = 16 << 20
"""In bytes, without the numbers: some 50 000 tensors."""

_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How torch before 1.6 starts a file: its magic number, pickled."""

_CONVERT = "where you trust it, load it with torch and save its tensors, contiguous, as safetensors"


def open_pickle(path: Path) -> TensorFile:
    """The tensors of a torch zip file, flat or in a `state_dict`, and as metadata the values beside them.

    Raises:
        Refusal: it is no table of contiguous tensors: another object is named as what it would run, a tensor
            by its own name; a zip compressed, encrypted, inconsistent or too large; torch < 1.6; big-endian.
    """
    with path.open("rb") as stream:
        state, start = FileState.of(os.fstat(stream.fileno())), stream.read(512)
    if start[:4] != b"PK\3\4":
        legacy = start.startswith(_LEGACY) or start[257:262] == b"ustar"
        raise Refusal(
            f"{path} is {'a pickle of torch before 1.6' if legacy else 'no file of torch.save'}",
            f"{_CONVERT} (or by torch.save of torch 1.6 or later)",
        )
    try:
        members = stored_members(path)
        root = _root(path, members)
        value = unpickled(member_bytes(path, members[f"{root}/data.pkl"]))
        tensors, metadata = _state_dict(value)
        entries = _Storages(root, members).entries(tensors)
    except ValueError as fault:
        raise Refusal(f"{path}: {fault}", _CONVERT) from fault
    return TensorFile(path, entries, state, metadata)


def _root(path: Path, members: Mapping[str, StoredMember]) -> str:
    """The folder in the zip that holds everything; torch names it after the file."""
    roots = [name.removesuffix("/data.pkl") for name in members if name.endswith("/data.pkl")]
    if len(roots) != 1 or "/" in roots[0]:
        raise ValueError(f"it holds {len(roots)} pickles named data.pkl, not one in one folder")
    if members[f"{roots[0]}/data.pkl"].size > LARGEST_PICKLE:
        raise ValueError(f"its pickle is larger than {LARGEST_PICKLE} bytes")
    order = members.get(f"{roots[0]}/byteorder")
    if order and (order.size > 6 or member_bytes(path, order) != b"little"):
        raise ValueError("its numbers are not little-endian")
    return roots[0]


def _state_dict(value: Any) -> tuple[dict[str, PickledTensor], dict[str, str]]:
    """The tensors by name, and as texts the plain values beside them."""
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, not a table of tensors")
    tensors: dict[str, PickledTensor] = {}
    metadata: dict[str, str] = {}
    nested = value.get("state_dict")
    if isinstance(nested, dict):
        value = {name: found for name, found in value.items() if name != "state_dict"}
        if any(isinstance(found, PickledTensor) for found in value.values()):
            raise ValueError("it holds tensors both beside its state_dict and in it")
    for name, found in [*value.items(), *(nested.items() if isinstance(nested, dict) else ())]:
        if not is_tensor_name(name):
            raise ValueError(f"it names a value {shown(name)}")
        if isinstance(found, PickledTensor) and name not in metadata:
            tensors[name] = found
        # A number with a module's path for a name may be its alpha: as metadata it would be overlooked.
        elif isinstance(found, bool | int | float | str | None) and "." not in name and name not in metadata:
            metadata[name] = str(found)
        else:
            raise ValueError(f"{name} is a {type(found).__name__}, not a tensor")
    return tensors, metadata


class _Storages:
    """The members that hold numbers, each of one dtype and size."""

    def __init__(self, root: str, members: Mapping[str, StoredMember]) -> None:
        self.root = root
        self.members = members
        self.dtypes: dict[str, str] = {}

    def entries(self, tensors: Mapping[str, PickledTensor]) -> dict[str, TensorEntry]:
        return {name: self._entry(name, tensor) for name, tensor in tensors.items()}

    def _entry(self, name: str, tensor: PickledTensor) -> TensorEntry:
        storage = tensor.storage
        member = self.members.get(f"{self.root}/data/{storage.key}")
        if member is None or member.size != storage.size:
            raise ValueError(f"the numbers of {name} are not in the zip, or not {storage.size} bytes")
        if self.dtypes.setdefault(storage.key, tensor.dtype) != tensor.dtype:
            raise ValueError(
                f"{name} is {tensor.dtype} and shares its numbers with a {self.dtypes[storage.key]}"
            )
        size = math.prod(tensor.shape) * storage.width
        first = tensor.offset * storage.width
        if size and not _contiguous(tensor):
            raise ValueError(f"{name} {list(tensor.shape)} is not contiguous")
        if first + size > member.size:
            raise ValueError(f"{name} ends at byte {first + size} of {member.size}")
        return TensorEntry(tensor.dtype, tensor.shape, member.offset + first, size)


def _contiguous(tensor: PickledTensor) -> bool:
    expected = 1
    for length, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if length != 1 and stride != expected:
            return False
        expected *= length
    return True

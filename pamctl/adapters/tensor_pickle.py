"""What a pickled state dict says, read by a machine that knows tensors and plain values and calls nothing."""

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pamctl.adapters.tensor_file import is_shape, shown

Expected = TypeVar("Expected")

MOST_STEPS = 2_000_000
"""Opcodes of one pickle; a tensor takes about 45."""

_BYTE, _SHORT, _INDEX, _LONG = (struct.Struct(layout) for layout in ("<B", "<H", "<I", "<Q"))
_SIGNED, _DOUBLE = struct.Struct("<i"), struct.Struct(">d")

_STORAGES: dict[str, tuple[str | None, int]] = {
    "torch.DoubleStorage": ("F64", 8),
    "torch.FloatStorage": ("F32", 4),
    "torch.HalfStorage": ("F16", 2),
    "torch.BFloat16Storage": ("BF16", 2),
    "torch.LongStorage": ("I64", 8),
    "torch.IntStorage": ("I32", 4),
    "torch.ShortStorage": ("I16", 2),
    "torch.CharStorage": ("I8", 1),
    "torch.ByteStorage": ("U8", 1),
    "torch.BoolStorage": ("BOOL", 1),
    "torch.storage.UntypedStorage": (None, 1),
}
"""A storage's name -> the dtype of its numbers (None: the tensor says) and their width in bytes."""

_UNTYPED_DTYPES = {"torch.float8_e4m3fn": "F8_E4M3", "torch.float8_e5m2": "F8_E5M2"}


@dataclass(frozen=True, slots=True)
class PickledStorage:
    """A storage that a pickle speaks of: the zip's member `data/<key>`, of `size` bytes."""

    key: str
    dtype: str | None
    width: int
    size: int


@dataclass(frozen=True, slots=True)
class PickledTensor:
    """A tensor as its pickle describes it, nothing of it checked but the types.

    Args:
        offset: of its first number in the storage, counted in numbers, as the strides are.
    """

    storage: PickledStorage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Global:
    """One of the few names that a pickle may speak of; it stands for itself and is never looked up."""

    name: str


def unpickled(pickled: bytes) -> Any:
    """The value of a pickle: None, bool, int, float, str, tuples, lists, dicts and `PickledTensor` in them.

    No name is imported and no object of the pickle is called. Time and memory are linear in its length and
    bounded by `MOST_STEPS`; a value may contain itself, so walk it to a fixed depth.

    Raises:
        ValueError: what it holds beside that, in words for a `Refusal`: a global by name, else the opcode.
    """
    machine = _Machine(pickled)
    try:
        return machine.run()
    except (IndexError, KeyError) as fault:
        raise ValueError(f"the pickle takes at byte {machine.at} what was never put") from fault
    except struct.error as fault:
        raise ValueError("the pickle is broken off") from fault


class _Machine:
    def __init__(self, pickled: bytes) -> None:
        self.pickled = pickled
        self.at = 0
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MOST_STEPS):
            opcode = chr(self.number(_BYTE))
            if opcode == ".":
                return self.stack.pop()
            action = _ACTIONS.get(opcode)
            if action is None:
                names = [known.name for known in pickletools.opcodes if known.code == opcode]
                raise ValueError(f"the pickle holds opcode {names[0] if names else ascii(opcode)}")
            action(self)
        raise ValueError(f"the pickle takes more than {MOST_STEPS} steps")

    def number(self, layout: struct.Struct) -> Any:
        (value,) = layout.unpack_from(self.pickled, self.at)
        self.at += layout.size
        return value

    def take(self, length: int) -> bytes:
        if length > len(self.pickled) - self.at:
            raise ValueError("the pickle is broken off")
        self.at += length
        return self.pickled[self.at - length : self.at]

    def line(self) -> str:
        end = self.pickled.find(b"\n", self.at)
        if end < 0:
            raise ValueError("the pickle is broken off")
        text = self.take(end - self.at).decode()
        self.at = end + 1
        return text

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def to_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.outer.pop()
        return items

    def last(self, count: int) -> tuple[Any, ...]:
        return tuple([self.stack.pop() for _ in range(count)][::-1])

    def append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise ValueError(f"the pickle appends to {_kind(self.stack[-1])}")
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        table = self.stack[-1]
        if type(table) is not dict or len(items) % 2:
            raise ValueError(f"the pickle sets items of {_kind(table)}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):
                raise ValueError(f"a key of the pickle is {_kind(key)}")
            if key in table:
                raise ValueError(f"{shown(key)} stands twice in the pickle")
            table[key] = value

    def global_(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if "." in name or not (full in _STORAGES or full in _CALLS or full in _UNTYPED_DTYPES):
            raise ValueError(f"it would run {full if full.isprintable() else ascii(full):.100}")
        self.push(_Global(full))

    def global_from_stack(self) -> None:
        module, name = self.last(2)
        self.global_(_of(str, module), _of(str, name))

    def instance(self) -> None:
        self.global_(self.line(), self.line())
        raise ValueError("the pickle holds opcode INST")

    def reduce(self) -> None:
        function, arguments = self.last(2)
        if type(function) is not _Global or function.name not in _CALLS or type(arguments) is not tuple:
            raise ValueError(f"the pickle would call {_kind(function)}")
        self.push(_CALLS[function.name](*arguments))

    def build(self) -> None:
        # torch pickles a module's state dict with the versions of its layers as an attribute.
        table, state = self.last(2)
        if type(table) is not dict or type(state) is not dict or set(state) != {"_metadata"}:
            raise ValueError(f"the pickle would set the attributes of {_kind(table)}")
        self.push(table)

    def persistent(self) -> None:
        identity = self.stack.pop()
        if type(identity) is not tuple or len(identity) != 5:
            raise ValueError(f"the pickle refers to {_kind(identity)} outside it that is not a storage")
        word, kind, key, _, length = identity
        if (
            type(word) is not str
            or word != "storage"
            or type(kind) is not _Global
            or kind.name not in _STORAGES
        ):
            raise ValueError("the pickle refers to something outside it that is not a storage")
        dtype, width = _STORAGES[kind.name]
        self.push(PickledStorage(_of(str, key), dtype, width, _count(length) * width))


_ACTIONS: dict[str, Callable[[_Machine], Any]] = {
    "\x80": lambda m: m.number(_BYTE),
    "\x95": lambda m: m.number(_LONG),
    "N": lambda m: m.push(None),
    "\x88": lambda m: m.push(True),
    "\x89": lambda m: m.push(False),
    "J": lambda m: m.push(m.number(_SIGNED)),
    "K": lambda m: m.push(m.number(_BYTE)),
    "M": lambda m: m.push(m.number(_SHORT)),
    "G": lambda m: m.push(m.number(_DOUBLE)),
    "\x8a": lambda m: m.push(int.from_bytes(m.take(m.number(_BYTE)), "little", signed=True)),
    "X": lambda m: m.push(m.take(m.number(_INDEX)).decode()),
    "\x8c": lambda m: m.push(m.take(m.number(_BYTE)).decode()),
    ")": lambda m: m.push(()),
    "]": lambda m: m.push([]),
    "}": lambda m: m.push({}),
    "(": lambda m: m.mark(),
    "t": lambda m: m.push(tuple(m.to_mark())),
    "\x85": lambda m: m.push(m.last(1)),
    "\x86": lambda m: m.push(m.last(2)),
    "\x87": lambda m: m.push(m.last(3)),
    "q": lambda m: m.put(m.number(_BYTE)),
    "r": lambda m: m.put(m.number(_INDEX)),
    "\x94": lambda m: m.put(len(m.memo)),
    "h": lambda m: m.push(m.memo[m.number(_BYTE)]),
    "j": lambda m: m.push(m.memo[m.number(_INDEX)]),
    "a": lambda m: m.append([m.stack.pop()]),
    "e": lambda m: m.append(m.to_mark()),
    "s": lambda m: m.set_items([*m.last(2)]),
    "u": lambda m: m.set_items(m.to_mark()),
    "c": lambda m: m.global_(m.line(), m.line()),
    "\x93": lambda m: m.global_from_stack(),
    "i": lambda m: m.instance(),
    "R": lambda m: m.reduce(),
    "b": lambda m: m.build(),
    "Q": lambda m: m.persistent(),
}
"""All that a pickle can do, by pickletools' codes; popping, duplicating and extensions are not in it."""


def _tensor(*arguments: Any) -> PickledTensor:
    """`torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks, bits)`."""
    storage, *place, _, hooks, bits = _fitting(arguments, 6, 7)
    return _placed(storage, _of(PickledStorage, storage).dtype, place, hooks, bits)


def _untyped_tensor(*arguments: Any) -> PickledTensor:
    """`_rebuild_tensor_v3(storage, offset, shape, strides, requires_grad, hooks, dtype, bits)`."""
    storage, *place, _, hooks, dtype, bits = _fitting(arguments, 7, 8)
    if _of(PickledStorage, storage).dtype is not None:
        raise ValueError("a tensor of the pickle has two dtypes")
    return _placed(storage, _UNTYPED_DTYPES.get(_of(_Global, dtype).name), place, hooks, bits)


def _placed(
    storage: PickledStorage, dtype: str | None, place: list[Any], hooks: Any, bits: Any
) -> PickledTensor:
    offset, shape, strides = place
    if dtype is None:
        raise ValueError("a tensor of the pickle has a dtype that pamctl cannot read")
    if hooks or bits:  # hooks would run code, bits would conjugate or negate what is stored
        raise ValueError("a tensor of the pickle has hooks, or is negated or conjugated")
    if not (is_shape(_of(tuple, shape)) and is_shape(_of(tuple, strides)) and len(shape) == len(strides)):
        raise ValueError("a tensor of the pickle has a malformed shape")
    return PickledTensor(storage, dtype, _count(offset), shape, strides)


def _parameter(*arguments: Any) -> PickledTensor:
    """`torch._utils._rebuild_parameter(tensor, requires_grad, hooks)`."""
    tensor, _, hooks = _fitting(arguments, 3, 3)
    if hooks:
        raise ValueError("a tensor of the pickle has hooks")
    return _of(PickledTensor, tensor)


def _ordered(*arguments: Any) -> dict[Any, Any]:
    _fitting(arguments, 0, 0)
    return {}


def _size(*arguments: Any) -> tuple[Any, ...]:
    return _of(tuple, *_fitting(arguments, 1, 1))


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _untyped_tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
"""What stands for each function that a pickle may speak of: one of this file, that makes plain values."""


def _fitting(arguments: tuple[Any, ...], least: int, most: int) -> tuple[Any, ...]:
    """The arguments, with None for each that may be left away."""
    if not least <= len(arguments) <= most:
        raise ValueError(f"the pickle gives {len(arguments)} arguments where {least} are due")
    return arguments + (None,) * (most - len(arguments))


def _of(kind: type[Expected], value: Any) -> Expected:
    if type(value) is not kind:
        raise ValueError(f"the pickle holds {_kind(value)} where {kind.__name__.lstrip('_')} is due")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("the pickle holds a number that is no size")
    return value


def _kind(value: Any) -> str:
    return value.name if isinstance(value, _Global) else type(value).__name__

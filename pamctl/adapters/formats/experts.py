"""pamctl's own format of a mixture of experts: `experts.safetensors`, which no program takes for plain LoRA.

`<id>.a` is (rank, in), `<id>.b` (out, rank) with the scale folded in, `<id>.router` (experts, in), all F32;
ids are canonical. No `adapter_config.json` stands beside it: a program that knows only LoRA would read the
factors and drop the routers. See `pamctl.adapters.routers` for what they compute.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.formats.pairing import FactorPair, paired_modules
from pamctl.adapters.formats.stored import Contents, Stored
from pamctl.adapters.formats.written import WriteOptions, WrittenFactors, factor_shapes, refuse_extras
from pamctl.adapters.provenance import public_name
from pamctl.adapters.routers import misfit
from pamctl.adapters.safetensors_file import write_safetensors
from pamctl.adapters.sources import EXPERTS_NAME
from pamctl.refusal import Refusal, UsageRefusal

_LEAVES = ("a", "b", "router")
_BASE = "base_model"
_WAY_ON = "fetch it again, or train it anew with --method moelora"


def recognises(stored: Stored) -> bool:
    """Whether the file has this format's name, or holds a router."""
    return stored.file.name == EXPERTS_NAME or any(name.endswith(".router") for name in stored.tensors)


def read(stored: Stored) -> Contents:
    """The modules of such a folder, their numbers unread, and the routers, read.

    Raises:
        Refusal: a tensor is none of these, missing, or of a wrong shape or dtype; NaN or Inf in a router.
    """
    modules = _sorted_out(stored)
    pairs = {
        module: FactorPair(module, leaves["a"], leaves["b"], 1.0)
        for module, leaves in modules.items()
        if "a" in leaves
    }
    factors = paired_modules(stored.tensors, pairs)
    routers = {module: leaves["router"] for module, leaves in modules.items() if "router" in leaves}
    lengths = {module: stored.tensors[name].shape for module, name in routers.items()}
    if fault := misfit(factors.shapes, lengths):
        raise Refusal(f"{stored.file}: {fault}", _WAY_ON)
    return Contents(
        factors,
        stored.tensors.metadata.get(_BASE),
        routers={module: stored.tensors.read(name) for module, name in routers.items()},
    )


def refuse_unwritable(adapter: Adapter, options: WriteOptions) -> None:
    """Refuse tensors that are no deltas, and any dtype but F32."""
    refuse_extras(adapter, "a mixture of experts")
    if options.dtype not in (None, "F32"):
        raise UsageRefusal(f"dtype is {options.dtype}", "a mixture of experts is written as F32")


def write(adapter: Adapter, factors: WrittenFactors, draft: Path, options: WriteOptions) -> None:
    """Write the file into a folder. Equal adapters give equal bytes."""
    shapes: dict[str, tuple[int, ...]] = {}
    for module, shape in factors.shapes.items():
        shapes[f"{module}.a"], shapes[f"{module}.b"] = factor_shapes(shape)
    shapes |= {f"{module}.router": router.shape for module, router in adapter.routers.items()}

    def tensors() -> Iterator[tuple[str, NDArray[Any]]]:
        for module, part, values in factors.blocks([*adapter.shapes]):
            yield f"{module}.{part}", values
        for module, router in adapter.routers.items():
            yield f"{module}.router", router

    metadata = {_BASE: public_name(adapter.base_model)} if adapter.base_model else {}
    write_safetensors(draft / EXPERTS_NAME, shapes, tensors(), dict.fromkeys(shapes, "F32"), metadata)


def _sorted_out(stored: Stored) -> Mapping[str, dict[str, str]]:
    """The names of the tensors by module and leaf, both factors or neither."""
    modules: dict[str, dict[str, str]] = {}
    for name, entry in stored.tensors.items():
        module, _, leaf = name.rpartition(".")
        if leaf not in _LEAVES or not module:
            named = ", ".join(f"<module>.{leaf}" for leaf in _LEAVES)
            raise Refusal(f"{stored.file}: {name} is none of {named}", _WAY_ON)
        if entry.dtype != "F32":
            raise Refusal(f"{stored.file}: {name} is {entry.dtype}, not F32", _WAY_ON)
        modules.setdefault(module, {})[leaf] = name
    for module, leaves in modules.items():
        for present, absent in (("a", "b"), ("b", "a")):
            if present in leaves and absent not in leaves:
                raise Refusal(f"{stored.file}: of {module} there is {present}, but no {absent}", _WAY_ON)
    return modules

"""Adapters that name the modules of one model differently, brought to the same ids."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.compatibility import refuse_different_bases, refuse_different_modules
from pamctl.adapters.extra import Extra
from pamctl.adapters.factors import ComputedModules
from pamctl.adapters.flattening import flattened, is_flattened, is_one_name, unflattened
from pamctl.adapters.module_names import (
    SPELLINGS,
    as_bare_text,
    as_text_tower,
    canonical_ids,
    is_bare_text,
    is_text_tower,
    tower,
    written_path,
)
from pamctl.refusal import Refusal


class RenamedAdapter(Adapter):
    """An adapter under other ids, as lazily read as the original and with its identity.

    Its fingerprint is the original's, by which the records of others know it and which its own record holds.
    """

    def __init__(self, original: Adapter, names: Mapping[str, str]) -> None:
        """`names`: id -> other id, for those that change; of a tensor that is no delta, its module's counts.

        Raises:
            Refusal: two modules or two tensors would have one id.
        """
        self._original = original
        self._ids: dict[str, str] = {}
        for module in original.shapes:
            known = self._ids.setdefault(names.get(module, module), module)
            if known != module:
                raise Refusal(f"{original.name}: {known} and {module} are one module", "keep one of them")
        shapes = {new: original.shapes[old] for new, old in self._ids.items()}
        extras: dict[str, Extra] = {}
        for name, extra in original.extras.items():
            module, _, leaf = name.rpartition(".")
            new = f"{names.get(module, module)}.{leaf}"
            if new in extras:
                raise Refusal(f"{original.name} holds two tensors {new}", "keep one of them")
            extras[new] = extra
        super().__init__(
            ComputedModules(
                shapes,
                lambda module: original.modules[self._ids[module]],
                lambda module, part, rows: original.modules.rows(self._ids[module], part, rows),
            ),
            original.provenance,
            original.base_model,
            original.name,
            extras,
            original.origin,
            original.denoiser,
            {new: original.routers[old] for new, old in self._ids.items() if original.routers},
        )

    @property
    def is_checked(self) -> bool:
        return self._original.is_checked

    @cached_property
    def fingerprint(self) -> str:
        return self._original.fingerprint

    def fingerprint_of(self, digests: Mapping[str, bytes]) -> str:
        return self._original.fingerprint_of(
            {self._ids[module]: digest for module, digest in digests.items()}
        )


def brought_together(adapters: Sequence[Adapter]) -> list[Adapter]:
    """The adapters under common ids, checked to be of one base and to have modules in common, of equal sizes.

    Raises:
        Refusal: they are not, or an id fits two modules.
    """
    refuse_different_bases(adapters)
    found = matched(adapters)
    refuse_different_modules(found)
    return found


def matched(adapters: Sequence[Adapter]) -> list[Adapter]:
    """The adapters under common ids, as far as that takes no guess; one that has them is itself given back.

    Flattened ids, as kohya's, become the dotted ids of the others that flatten to them; else they stay. A
    language model's own ids become a text tower's where another adapter of the same base has one.

    Raises:
        Refusal: an id that two different dotted ones flatten to.
    """
    whole = [adapter for adapter in adapters if any(map(is_text_tower, adapter.shapes))]
    adapters = [
        _renamed(adapter, as_text_tower) if any(_same_base(adapter, other) for other in whole) else adapter
        for adapter in adapters
    ]
    dotted_ids = _DottedIds(adapters)
    return [_renamed(adapter, dotted_ids.of) for adapter in adapters]


def renamed_like(adapter: Adapter, other: Adapter) -> Adapter:
    """An adapter under the ids of another of the same model, which the caller vouches for.

    Flattened ids become the other's; those of a language model alone become those of the other's text tower,
    or those of a text tower the other's of a language model alone.

    Raises:
        Refusal: a module for which the other has no name, nothing in common, or modules of other sizes.
    """
    named = _renamed(adapter, _DottedIds([other], (as_bare_text, as_text_tower)).of)
    if any(map(is_text_tower, other.shapes)):
        named = _renamed(named, as_text_tower)
    elif any(map(is_bare_text, other.shapes)):
        named = _renamed(named, as_bare_text)
        for module in named.shapes:
            if tower(module) in ("vision_tower", "multi_modal_projector"):
                raise Refusal(
                    f"{module} of {adapter.name} is no part of the language model that {other.name} adapts",
                    "name an adapter of the whole model",
                )
    way_on = f"give an adapter that adapts this module too, which {other.name} does not"
    known = () if other.origin and other.origin.flattened else other.shapes
    names, origin = _taken_apart(named, way_on, known), named.origin
    if names or (origin and origin.flattened):
        named = RenamedAdapter(named, names)
        named.origin = origin and replace(origin, flattened=False)
    refuse_different_modules((named, other))
    return named


def in_company(adapter: Adapter) -> Adapter:
    """An adapter whose ids were read apart from its full modules, as the projector beside LLaVA's factors.

    They tell whether `model.layers` is a text tower's, as they would if they were in the same file.
    """
    modules = {*adapter.shapes, *(name.rpartition(".")[0] for name in adapter.extras)}
    return _renamed(adapter, canonical_ids(modules, adapter.base_model).__getitem__)


def dotted(adapter: Adapter) -> Adapter:
    """An adapter with flattened ids taken apart, for a format that needs the model's own paths.

    Raises:
        Refusal: an id that the known words of module names do not tell apart in exactly one way.
    """
    way_on = "name an adapter of the same model with --names-from, or write it as kohya"
    names = _taken_apart(adapter, way_on)
    return RenamedAdapter(adapter, names) if names else adapter


def _taken_apart(adapter: Adapter, way_on: str, known: Container[str] = ()) -> dict[str, str]:
    """The dotted id of each module whose own is flattened; one that is `known` is the model's own."""
    if not (adapter.origin and adapter.origin.flattened) and not any(map(is_flattened, adapter.shapes)):
        return {}
    names = {}
    for module in filter(is_one_name, adapter.shapes):
        if module in known and not is_flattened(module):
            continue
        found = unflattened(module)
        if found is None:
            raise Refusal(
                f"{module} of {adapter.name} is a flattened path that cannot be taken apart exactly", way_on
            )
        if found != module:
            names[module] = found
    return names


class _DottedIds:
    """Which id a flattened one stands for among those of some adapters, in any spelling of theirs."""

    def __init__(self, adapters: Sequence[Adapter], also: Iterable[Callable[[str], str]] = ()) -> None:
        self._found: dict[str, set[str]] = {}
        self._names = ", ".join(adapter.name for adapter in adapters)
        for module in {module for adapter in adapters for module in adapter.shapes}:
            if "." in module and not is_flattened(module):
                spelled = {module, *(written_path(module, spelling) for spelling in SPELLINGS)}
                for spelling in spelled | {other(module) for other in also}:
                    self._found.setdefault(flattened(spelling), set()).add(module)

    def of(self, module: str) -> str:
        found = self._found.get(flattened(module)) if is_one_name(module) else None
        if found is None:
            return module
        found = {id for id in found if not is_one_name(id)} or found
        if len(found) > 1:
            one, two, *_ = sorted(found)
            raise Refusal(
                f"{module} is the flattened name of {one} and of {two}, both in {self._names}",
                "leave out the adapter that has both",
            )
        return next(iter(found))


def _same_base(one: Adapter, two: Adapter) -> bool:
    """Whether the bases are the same by fingerprint or, where one has none, by name."""
    if one.base_fingerprint and two.base_fingerprint:
        return one.base_fingerprint == two.base_fingerprint
    return one.base is not None and two.base is not None and one.base.name == two.base.name


def _renamed(adapter: Adapter, rename: Callable[[str], str]) -> Adapter:
    modules = {*adapter.shapes, *(name.rpartition(".")[0] for name in adapter.extras)}
    names = {module: new for module in sorted(modules) if (new := rename(module)) != module}
    return RenamedAdapter(adapter, names) if names else adapter

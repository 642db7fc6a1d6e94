"""Which format an adapter is read from and written in."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pamctl.adapters import card
from pamctl.adapters.adapter import Adapter, Origin
from pamctl.adapters.extra import Extra
from pamctl.adapters.formats import diffusers, experts, kohya, mlx, orbax, peft
from pamctl.adapters.formats.peft_extras import full_modules
from pamctl.adapters.formats.stored import Stored, read_settings
from pamctl.adapters.formats.written import WriteOptions, WrittenFactors
from pamctl.adapters.matching import dotted, in_company
from pamctl.adapters.provenance import Provenance, embedded_provenance, read_provenance, write_provenance
from pamctl.adapters.routers import no_one_delta
from pamctl.adapters.safetensors_file import open_safetensors
from pamctl.adapters.sources import ADAPTER_FILES, CONFIG_NAME, AdapterSource, locate
from pamctl.adapters.tensor_file import TensorFile, shown
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.whole_output import refuse_existing, whole_file, whole_folder

# In the order they are tried: each knows its own by the names of the tensors.
FORMATS = {"peft": peft, "mlx": mlx, "kohya": kohya, "diffusers": diffusers, "orbax": orbax}
"""Those of plain LoRA, of which the user may choose."""

_EXPERTS = "experts"
_KNOWN = {_EXPERTS: experts, **FORMATS}

STREAMED = ("peft", "kohya", "diffusers")
"""Those that are written some rows at a time; mlx transposes and orbax takes arrays whole."""

_SINGLE_FILES = ("kohya", "diffusers")
_OF_DOTTED_PATHS = ("peft", "mlx", "diffusers")


def open_adapter(reference: str | Path, *, allow_pickle: bool = False, routers: bool = False) -> Adapter:
    """Open an adapter: its settings, header and record are read and checked, its numbers only when asked for.

    Args:
        reference: a folder or file in any of `FORMATS`, `hf://org/name[@revision][/subfolder]`, a bare
            `org/name` where no such path exists, or the URL of a file on the Hub.
        allow_pickle: read a legacy `.bin` too, through an unpickler that can build tensors and nothing else.
        routers: open a mixture of experts too, whose routers the caller heeds.

    Raises:
        Refusal: nothing is there, or it is not a plain LoRA whose every tensor is understood.
    """
    source = locate(reference, allow_pickle=allow_pickle)
    with source.refused_by_place():
        return _understood(source, str(reference), routers)


def _understood(source: AdapterSource, name: str, routers: bool) -> Adapter:
    """The adapter that a source's files hold."""
    stored = stored_files(source)
    format = format_of(stored)
    if format == _EXPERTS and not routers:
        raise no_one_delta(name)
    contents = _KNOWN[format].read(stored)
    if not (contents.base_model or "").isprintable():
        raise Refusal(f"{stored.settings_file}: the base model is {shown(contents.base_model)}", "correct it")
    metadata = stored.tensors.metadata
    origin = Origin(
        format,
        source.weights,
        source.repository,
        source.commit,
        stored.settings or metadata,
        (*source.notes, *contents.notes),
        flattened=format == "kohya",
        place=source.inside,
    )
    non_lora = _non_lora(source)
    for extra in sorted(contents.extras.keys() & non_lora):
        raise Refusal(f"{extra} is both in {stored.file} and in {source.non_lora}", "keep one of them")
    extras = {**contents.extras, **non_lora}
    record = _record(source, metadata)
    adapter = Adapter(
        contents.modules,
        record,
        contents.base_model,
        name,
        extras,
        origin,
        contents.denoiser,
        contents.routers,
    )
    return in_company(adapter) if source.non_lora else adapter


def save_adapter(
    adapter: Adapter, draft: Path, format: str | None = None, options: WriteOptions | None = None
) -> None:
    """Write an adapter with its record and its card into an existing folder, module by module.

    Opening it again gives the same fingerprint where the dtype is as wide as the adapter's own, and the same
    factors bit for bit where the scale is 1 and the rank is the same in every module.

    Args:
        draft: a folder, or for kohya and diffusers a file, whose metadata then holds the record.
        format: one of `FORMATS`; None for peft, and for a mixture of experts its own, which is its only one.

    Raises:
        Refusal: a tensor, layer or name for which the format has no place.
    """
    options = options or WriteOptions()
    refuse_unwritable(adapter, draft, format, options)
    _save(adapter, draft, _written_format(adapter, format), options)


def _save(
    adapter: Adapter,
    draft: Path,
    format: str,
    options: WriteOptions,
    beside: Mapping[str, str] | None = None,
    expected: str | None = None,
) -> None:
    adapter = _nameable(adapter, format)
    factors = WrittenFactors(adapter, options)
    _KNOWN[format].write(adapter, factors, draft, options)
    if expected not in (None, factors.fingerprint):
        raise Refusal(
            f"{adapter.name} came out with the fingerprint {factors.fingerprint[:12]}, and "
            f"{(expected or '')[:12]} was expected",
            "use the releases of pamctl and numpy that its record names, on the same kind of processor",
        )
    if draft.is_dir():
        for name, text in (beside or {}).items():
            (draft / name).write_text(text, encoding="utf-8")
        record = adapter.provenance and replace(adapter.provenance, fingerprint=factors.fingerprint)
        if record is not None:
            write_provenance(record, draft)
        (draft / card.FILE_NAME).write_text(card.card(adapter, format), encoding="utf-8")


def refuse_taken(path: Path, *, force: bool = False) -> None:
    """Refuse a path that `write_adapter` could not take, before any adapter is opened."""
    refuse_existing(path, force=force, file=is_one_file(path), known=ADAPTER_FILES.__contains__)


def refuse_unwritable(
    adapter: Adapter, path: Path, format: str | None = None, options: WriteOptions | None = None
) -> None:
    """Refuse what `write_adapter` would refuse, before any number is read."""
    format = _written_format(adapter, format)
    if is_one_file(path) and format not in _SINGLE_FILES:
        raise UsageRefusal(f"{format} is a folder, and {path} is named as a file", "leave .safetensors out")
    _KNOWN[format].refuse_unwritable(_nameable(adapter, format), options or WriteOptions())


def _written_format(adapter: Adapter, asked: str | None) -> str:
    if adapter.routers:
        if asked not in (None, _EXPERTS):
            raise no_one_delta(adapter.name)
        return _EXPERTS
    if asked is not None and asked not in FORMATS:
        raise UsageRefusal(f"format is {asked!r}", f"choose one of {', '.join(FORMATS)}")
    return asked or "peft"


def write_adapter(
    adapter: Adapter,
    path: Path,
    format: str | None = None,
    options: WriteOptions | None = None,
    *,
    force: bool = False,
    beside: Mapping[str, str] | None = None,
    expected: str | None = None,
) -> None:
    """Write an adapter to a path that stands complete afterwards or is not there: see `save_adapter`.

    A path that ends in `.safetensors` becomes a single file, any other a folder.

    Args:
        beside: texts by name that a folder holds too.
        expected: the fingerprint that what is written must have.
    """
    options = options or WriteOptions()
    refuse_unwritable(adapter, path, format, options)
    if is_one_file(path):
        output = whole_file(path, force=force)
    else:
        output = whole_folder(path, force=force, known=ADAPTER_FILES.__contains__)
    with output as draft:
        _save(adapter, draft, _written_format(adapter, format), options, beside, expected)


def _nameable(adapter: Adapter, format: str) -> Adapter:
    """The adapter under ids that the format can spell: flattened ones, as kohya's, have to be taken apart."""
    return dotted(adapter) if format in _OF_DOTTED_PATHS else adapter


def is_one_file(path: Path) -> bool:
    """Whether an output of this name is a single file rather than a folder."""
    return path.suffix == ".safetensors"


def stored_files(source: AdapterSource) -> Stored:
    """The files of a source, checked as files and not yet understood."""
    if source.weights.is_dir():
        return orbax.open_checkpoint(source.weights)
    config = source.folder / CONFIG_NAME
    found = config.is_file()
    tensors = _tensors(source.weights)
    if not tensors:
        raise Refusal(f"{source.weights} holds no tensors", "give an adapter that adapts something")
    by_itself = Stored(source.folder, tensors, {}, source.weights)
    # a file of another name may be one of several in a folder, and the config another's
    if not found or (not source.is_the_folders and kohya.recognises(by_itself)):
        return by_itself
    if not source.is_the_folders and diffusers.recognises(by_itself):
        raise Refusal(
            f"{source.weights} may be diffusers', with scales of its own, or peft's, with those of {config}",
            "put it into a folder of its own, with that config or without",
        )
    return Stored(source.folder, tensors, read_settings(config), config)


def _tensors(file: Path) -> TensorFile:
    if file.suffix == ".safetensors":
        return open_safetensors(file)
    from pamctl.adapters.pickle_file import open_pickle

    return open_pickle(file)


def format_of(stored: Stored) -> str:
    """Which format these files have, told by what they hold."""
    for name, format in _KNOWN.items():
        if format.recognises(stored):
            return name
    example = next(iter(stored.tensors))
    raise Refusal(
        f"{stored.file} is no LoRA that pamctl knows: it holds {example}",
        f"give an adapter in one of the formats {', '.join(FORMATS)}",
    )


def _record(source: AdapterSource, metadata: Mapping[str, str]) -> Provenance | None:
    """The record inside the file, else the one in the folder where the file is that folder's adapter."""
    if (embedded := embedded_provenance(metadata, source.weights)) is not None:
        return embedded
    return read_provenance(source.folder) if source.is_the_folders else None


def _non_lora(source: AdapterSource) -> dict[str, Extra]:
    """The full weights that LLaVA's training leaves beside the adapter."""
    if source.non_lora is None:
        return {}
    return full_modules(_tensors(source.non_lora))

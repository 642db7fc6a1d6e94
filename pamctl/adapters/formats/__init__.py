"""Which format an adapter is read from and written in."""

from pathlib import Path

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.formats import peft
from pamctl.adapters.provenance import read_provenance, write_provenance
from pamctl.adapters.sources import locate


def open_adapter(reference: str | Path) -> Adapter:
    """Open an adapter: its config, header and record are read and checked, its numbers only when asked for.

    Args:
        reference: a PEFT folder, or the `.safetensors` file in one.

    Raises:
        Refusal: nothing is there, or it is not a plain LoRA whose every tensor is understood.
    """
    source = locate(reference)
    modules, base_model = peft.read(source)
    return Adapter(modules, read_provenance(source.folder), base_model, name=str(reference))


def save_adapter(adapter: Adapter, folder: Path) -> None:
    """Write a PEFT folder and `pamctl.json` into an existing folder, module by module.

    Opening it again gives the same fingerprint, and the same factors bit for bit where the scale is 1 and the
    rank is the same in every module.
    """
    peft.write(adapter, folder)
    if adapter.provenance is not None:
        write_provenance(adapter.provenance, folder)

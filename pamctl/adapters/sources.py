"""What a reference to an adapter stands for: the folder and the weights file it names."""

from dataclasses import dataclass
from pathlib import Path

from pamctl.refusal import Refusal

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
PICKLE_NAME = "adapter_model.bin"


@dataclass(frozen=True)
class AdapterSource:
    """The files of one adapter on disk."""

    folder: Path
    config: Path
    weights: Path


def locate(reference: str | Path) -> AdapterSource:
    """The files that a folder or a weights file stands for.

    Raises:
        Refusal: nothing is there, a file is missing, or the weights are a pickle.
    """
    path = Path(reference)
    if not path.exists():
        raise Refusal(
            f"no adapter at {reference}: no such file or folder",
            f"give a folder that holds {CONFIG_NAME} and {WEIGHTS_NAME}",
        )
    folder, weights = (path, path / WEIGHTS_NAME) if path.is_dir() else (path.parent, path)
    if weights.suffix == ".bin" or (not weights.is_file() and (folder / PICKLE_NAME).is_file()):
        raise Refusal(
            f"{folder / PICKLE_NAME if path.is_dir() else path} is a pickle, which can run code when opened",
            "load it with peft where you trust it, then save_pretrained(..., safe_serialization=True)",
        )
    if path.is_file() and weights.suffix != ".safetensors":
        raise Refusal(
            f"{path} is not a .safetensors file", f"give the adapter's folder or its {WEIGHTS_NAME}"
        )
    for file in (folder / CONFIG_NAME, weights):
        if not file.is_file():
            raise Refusal(f"{folder} holds no {file.name}", _way_on(folder))
    return AdapterSource(folder, folder / CONFIG_NAME, weights)


def _way_on(folder: Path) -> str:
    inner = sorted(config.parent for config in folder.glob(f"*/{CONFIG_NAME}"))
    if inner:
        return f"an adapter lies deeper: give {inner[0]}"
    return f"an adapter's folder holds {CONFIG_NAME} and {WEIGHTS_NAME}"

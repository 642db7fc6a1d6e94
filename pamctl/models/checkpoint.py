"""What a reference to a base stands for: a folder in Hugging Face layout or an .npz, its weights unread."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from importlib.resources import files
from pathlib import Path

from pamctl.hub import fetch, hub_reference
from pamctl.models.big_vision import big_vision_model
from pamctl.models.config import PaliGemmaConfig
from pamctl.models.images import ImageProcessor
from pamctl.models.stored import StoredModel
from pamctl.models.tokenizer import Tokenizer
from pamctl.models.weights import stored_weights
from pamctl.refusal import Refusal

EMBEDDED = "tiny-paligemma"
_HUB_FILES = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "preprocessor_config.json",
)


@dataclass(frozen=True)
class Checkpoint:
    """A base on disk.

    Attributes:
        name: as it may be recorded: a Hub name, the embedded base's, a folder's last part or an .npz's stem.
        folder: where the files beside the weights are.
        notes: what the user should know of how it was found.
    """

    name: str
    folder: Path
    config: PaliGemmaConfig
    tokenizer: Tokenizer
    images: ImageProcessor
    weights: StoredModel
    notes: tuple[str, ...] = ()


def open_checkpoint(reference: str | None = None) -> Checkpoint:
    """Open a base; arguments and errors are those of `load_base`, the numbers are not read yet."""
    name, place, notes = _locate(reference)
    big_vision = place.suffix == ".npz"
    folder = place.parent if big_vision else place
    if big_vision:
        config, weights = big_vision_model(place)
        _refuse_no_tokenizer(place)
    else:
        config = PaliGemmaConfig.from_file(folder)
    tokenizer = Tokenizer(folder / "tokenizer.json", config.text.vocab_size)
    if big_vision and not (folder / "preprocessor_config.json").exists():
        images = ImageProcessor(size=config.vision.image_size)
    else:
        images = ImageProcessor.from_file(folder)
    _check_agreement(folder, config, tokenizer, images)
    if not big_vision:
        weights = stored_weights(folder, config)
    return Checkpoint(name, folder, config, tokenizer, images, weights, notes)


def open_tokenizer(reference: str | None = None) -> tuple[str, Tokenizer]:
    """The name of a base and its tokenizer, of which nothing else is read or fetched."""
    name, place, _ = _locate(reference, ("tokenizer.json", "config.json"))
    folder = place.parent if place.suffix == ".npz" else place
    rows = big_vision_model(place)[0] if place.suffix == ".npz" else PaliGemmaConfig.from_file(folder)
    return name, Tokenizer(folder / "tokenizer.json", rows.text.vocab_size)


def _locate(reference: str | None, wanted: Sequence[str] = _HUB_FILES) -> tuple[str, Path, tuple[str, ...]]:
    """Return the name, the folder or .npz file, and notes; of one on the Hub, what is wanted is fetched."""
    if reference is None or reference in ("tiny", EMBEDDED):
        return EMBEDDED, Path(str(files("pamctl") / "assets" / EMBEDDED)), ()
    place = Path(reference)
    if place.is_dir():
        return place.resolve().name, _npz_in(place) or place, ()
    if place.is_file() and place.suffix == ".npz":
        return place.stem, place, ()
    if place.exists():
        raise Refusal(f"{reference} is a file, not a base model's folder", "name the folder it lies in")
    found = hub_reference(reference)
    if found is None or found.path.endswith((".json", ".safetensors")):
        raise Refusal(
            f"there is no base model at {reference}",
            "name a folder in Hugging Face layout, an .npz of big_vision, hf://org/name, "
            "or tiny for the embedded one",
        )
    snapshot = fetch(found, partial(_read_with_it, wanted))
    return f"{found.repository}/{found.path}".rstrip("/"), snapshot.folder, snapshot.notes


def _npz_in(folder: Path) -> Path | None:
    """Return the .npz of a folder that is not in Hugging Face layout."""
    found = sorted(folder.glob("*.npz"))
    if (folder / "config.json").exists() or not found:
        return None
    if len(found) > 1:
        raise Refusal(f"{folder} holds {len(found)} .npz files", f"name one of them, such as {found[0]}")
    return found[0]


def _read_with_it(wanted: Sequence[str], names: Sequence[str]) -> list[str]:
    here = [name for name in names if "/" not in name]
    return [name for name in here if any(fnmatchcase(name, pattern) for pattern in wanted)]


def _refuse_no_tokenizer(place: Path) -> None:
    if not (place.parent / "tokenizer.json").is_file():
        raise Refusal(
            f"{place} has no tokenizer.json beside it",
            "copy it there from the model's repository on the Hub, such as google/paligemma-3b-pt-224",
        )


def _check_agreement(
    folder: Path, config: PaliGemmaConfig, tokenizer: Tokenizer, images: ImageProcessor
) -> None:
    facts = (
        ("pad_token_id", config.pad_token_id, "tokenizer.json", tokenizer.pad),
        ("eos_token_id", config.eos_token_id, "tokenizer.json", tokenizer.eos),
        ("bos_token_id", config.bos_token_id, "tokenizer.json", tokenizer.bos),
        ("image_size", config.vision.image_size, "preprocessor_config.json", images.size),
    )
    for field, said, file, found in facts:
        if said != found:
            raise Refusal(
                f"{folder}: config.json has {field} {said}, {file} has {found}",
                f"use the {file} that belongs to the checkpoint",
            )

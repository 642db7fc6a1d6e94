"""What a reference to an adapter stands for: a file of tensors on disk, fetched from the Hub if need be."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pamctl.refusal import Refusal

CONFIG_NAME = "adapter_config.json"
RECORD_NAME = "pamctl.json"
ORBAX_NAME = "_CHECKPOINT_METADATA"
EXPERTS_NAME = "experts.safetensors"
NON_LORA_NAME = "non_lora_trainables.bin"
PICKLES = (".bin", ".ckpt", ".pt", ".pth")
_FULL_MODELS = ("model.safetensors", "diffusion_pytorch_model.safetensors", "pytorch_model.bin")
_USUAL_NAMES = (
    EXPERTS_NAME,  # before those of plain LoRA, for which nobody is to take it
    "adapter_model.safetensors",
    "adapters.safetensors",
    "pytorch_lora_weights.safetensors",
    "adapter_model.bin",
    "pytorch_lora_weights.bin",
)
CHECKPOINT_FILES = (ORBAX_NAME, "orbax.checkpoint", "commit_success.txt", "state")
TRAINING_FOLDERS = ("replay", "fast")
"""What training leaves beside an adapter for the next task: examples to replay, the fast adapter."""

ADAPTER_FILES = frozenset(
    (
        CONFIG_NAME,
        RECORD_NAME,
        "README.md",
        "recipe.toml",
        "metrics.jsonl",
        *_USUAL_NAMES,
        "lora.safetensors",
        *CHECKPOINT_FILES,
        *TRAINING_FOLDERS,
    )
)
"""What a folder that pamctl wrote an adapter to may hold, in any format: what may be replaced as a whole."""


@dataclass(frozen=True)
class AdapterSource:
    """The files of one adapter on disk.

    Args:
        folder: where its settings and its record lie.
        weights: the file of tensors, or the folder itself for an orbax checkpoint.
        non_lora: a file of full weights beside a LLaVA adapter, which is no LoRA.
        is_the_folders: whether the folder's record is about this file.
        repository: the Hub repository it came from, and the commit.
        notes: what the user should know of how it was found.
        place: the folder on the Hub that `folder` has the files of.
        inside: the path of the folder or file in the repository, None for its root.
    """

    folder: Path
    weights: Path
    non_lora: Path | None = None
    is_the_folders: bool = True
    repository: str | None = None
    commit: str | None = None
    notes: tuple[str, ...] = ()
    place: str | None = None
    inside: str | None = None

    @contextmanager
    def refused_by_place(self) -> Iterator[None]:
        """Name in a refusal the place on the Hub, where its cache would be named."""
        try:
            yield
        except Refusal as refusal:
            if self.place is None:
                raise
            cached = str(self.folder)
            what, way_on = (said.replace(cached, self.place) for said in (refusal.what, refusal.way_on))
            raise type(refusal)(what, way_on) from refusal


def locate(reference: str | Path, *, allow_pickle: bool = False) -> AdapterSource:
    """The files that a folder, a file, or a reference to the Hub stands for.

    From the Hub only the files that make up the adapter are fetched.

    Raises:
        Refusal: nothing is there, no file or several files could be the adapter, it is a pickle and those are
            not allowed, or the Hub refuses.
        UsageRefusal: a malformed `hf://` reference.
    """
    path = Path(reference)
    try:
        here = path.exists()
    except OSError as fault:  # a name too long for the disk, or a folder that may not be looked into
        raise Refusal(f"{str(reference)[:200]}: {fault.strerror}", "check the path") from fault
    if here:
        return _on_disk(path, allow_pickle)
    # A folder that is not there and a name on the Hub can look alike.
    from pamctl.hub import fetch, hub_reference

    found = hub_reference(str(reference))
    if found is None:
        raise Refusal(
            f"no adapter at {reference}: no such file or folder",
            "give an adapter's folder or file, or hf://org/name for one on the Hub",
        )
    name = Path(found.path).name if found.path.endswith((".safetensors", *PICKLES)) else None
    snapshot = fetch(found, lambda names: _wanted(names, name, str(reference), allow_pickle))
    weights = choose_weights(snapshot.files, str(reference)) if name is None else name
    inner = found.path if name is None else found.path.rpartition("/")[0]
    return AdapterSource(
        snapshot.folder,
        snapshot.folder if weights == ORBAX_NAME else snapshot.folder / weights,
        snapshot.folder / NON_LORA_NAME if NON_LORA_NAME in snapshot.files else None,
        name is None or name in _USUAL_NAMES,
        snapshot.repository,
        snapshot.commit,
        snapshot.notes,
        f"{found}/{inner}".rstrip("/"),
        found.path or None,
    )


def choose_weights(names: Sequence[str], where: str) -> str:
    """Which of a folder's files holds the adapter's tensors.

    Raises:
        Refusal: none could, or several.
    """
    if ORBAX_NAME in names:
        return ORBAX_NAME
    for usual in _USUAL_NAMES:
        if usual in names:
            return usual
    for suffixes in ((".safetensors",), PICKLES):
        here = sorted(
            name
            for name in names
            if name.endswith(suffixes) and "/" not in name and name not in (NON_LORA_NAME, *_FULL_MODELS)
        )
        if len(here) > 1:
            raise Refusal(f"{where} holds {len(here)} files that could be the adapter: {', '.join(here[:5])}",
                          "name one of them")  # fmt: skip
        if here:
            return here[0]
    raise Refusal(f"{where} holds no adapter", _deeper(names, where))


def _on_disk(path: Path, allow_pickle: bool) -> AdapterSource:
    if path.is_dir():
        # one level deeper only, for the way on where the adapter is not here
        names = [
            file.relative_to(path).as_posix()
            for file in (*path.iterdir(), *path.glob("*/*"))
            if file.is_file()
        ]
        chosen = choose_weights(names, str(path))
        notes = tuple(
            f"{name} lies beside {chosen} and is not read"
            for name in _USUAL_NAMES
            if name in names and name != chosen
        )
        folder, weights = path, path if chosen == ORBAX_NAME else path / chosen
    elif path.is_file():
        folder, weights, notes = path.parent, path, ()
    else:
        raise Refusal(f"{path} is neither a file nor a folder", "give an adapter's folder or file")
    if path.is_file() and weights.suffix not in (".safetensors", *PICKLES):
        raise Refusal(
            f"{path} is not a .safetensors file", "give the adapter's folder or its .safetensors file"
        )
    non_lora = folder / NON_LORA_NAME
    _refuse_pickles(str(weights), non_lora.is_file(), allow_pickle)
    is_the_folders = path.is_dir() or weights.name in _USUAL_NAMES
    return AdapterSource(
        folder, weights, non_lora if non_lora.is_file() else None, is_the_folders, notes=notes
    )


def _wanted(names: Sequence[str], file: str | None, where: str, allow_pickle: bool) -> Sequence[str]:
    """The files to fetch: the tensors, their settings and their record."""
    weights = file or choose_weights(names, where)
    if weights == ORBAX_NAME:
        return names
    _refuse_pickles(f"{where}: {weights}", NON_LORA_NAME in names, allow_pickle)
    beside = (CONFIG_NAME, RECORD_NAME, NON_LORA_NAME)
    return [weights, *(name for name in beside if name in names)]


def _refuse_pickles(weights: str, has_non_lora: bool, allowed: bool) -> None:
    if allowed:
        return
    if weights.endswith(PICKLES):
        raise Refusal(
            f"{weights} is a pickle, which can run code when others open it",
            "write it anew with pamctl convert --allow-pickle, which can build tensors and nothing else",
        )
    if has_non_lora:
        raise Refusal(
            f"{NON_LORA_NAME} lies beside {weights}: full weights, such as the projector's, without which "
            "the adapter is not whole",
            "carry them along as full modules with pamctl convert --allow-pickle, or move the file away",
        )


def _deeper(names: Sequence[str], where: str) -> str:
    telling = (f"/{CONFIG_NAME}", f"/{EXPERTS_NAME}")
    inner = sorted(name.rsplit("/", 1)[0] for name in names if name.endswith(telling))
    if inner:
        return f"an adapter lies deeper: give {where.rstrip('/')}/{inner[0]}"
    return "an adapter's folder holds a .safetensors file, for peft and mlx with adapter_config.json"

"""What mlx-lm and mlx-vlm ignore or misread of an mlx folder."""

from collections.abc import Iterator, Mapping

from pamctl.adapters.sources import CONFIG_NAME
from pamctl.serving.candidate import LAYER, Candidate, Fault


def parameters(it: Candidate) -> Iterator[Fault]:
    """Fields that mlx-lm needs."""
    said = it.setting("lora_parameters")
    given = said if isinstance(said, Mapping) else {}
    missing = [field for field in ("rank", "scale", "dropout") if field not in given]
    missing += [] if "num_layers" in it.stored.settings else ["num_layers"]
    if missing:
        why = f"mlx-lm needs {', '.join(missing)} in it"
        yield str(it.stored.folder / CONFIG_NAME), why, it.convert("mlx")


def keys(it: Candidate) -> Iterator[Fault]:
    """Names of an older mlx-vlm."""
    leaves = {name: name.rpartition(".")[2] for name in it.stored.tensors}
    if old := [name for name, leaf in leaves.items() if leaf not in ("lora_a", "lora_b", "m")]:
        why = "mlx-lm and mlx-vlm look for lora_a and lora_b"
        yield old[0], why, it.convert("mlx")


def rank(it: Candidate) -> Iterator[Fault]:
    """A rank that is not the config's."""
    said = it.setting("lora_parameters")
    due = said.get("rank") if isinstance(said, Mapping) else None
    for name, entry in it.stored.tensors.items():
        if name.endswith(".lora_a") and len(entry.shape) == 2 and entry.shape[1] != due:
            why = f"its rank is {entry.shape[1]}, and mlx makes all modules of rank {due}"
            yield name, why, it.convert("mlx")
            return


def modules(it: Candidate) -> Iterator[Fault]:
    """mlx-lm adapts the `keys`: paths of the whole model, or within each of its last `num_layers` layers."""
    said, count = it.setting("lora_parameters"), it.setting("num_layers")
    named = said.get("keys") if isinstance(said, Mapping) else None
    keys = frozenset(key for key in named if isinstance(key, str)) if isinstance(named, list) else frozenset()
    paths = dict.fromkeys(name.rpartition(".")[0] for name in it.stored.tensors)
    within = {path: LAYER.fullmatch(path) for path in paths if path not in keys}
    if left := [path for path, layer in within.items() if not layer or (named and layer["kind"] not in keys)]:
        why = "the keys of lora_parameters do not name it, and mlx-lm refuses what they do not"
        yield left[0], why, it.convert("mlx")
        return
    numbers = {int(layer["layer"]) for layer in within.values() if layer}
    if numbers and isinstance(count, int) and 0 < count <= max(numbers) - min(numbers):
        why = f"num_layers is {count}, and mlx-lm adapts only so many, from the last"
        yield f"{it.stored.settings_file}: num_layers", why, it.convert("mlx")

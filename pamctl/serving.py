"""Whether a loader will serve an adapter whole, judged by its files as they are stored.

Each loader ignores or misreads something without a word. The rules are those of vLLM (lora/peft_helper.py and
lora/lora_model.py), LoRAX (adapters/lora.py), peft 0.21, diffusers 0.42 (loaders/peft.py) and mlx-lm 0.32
(tuner/utils.py); which base they load it on is not known here.
"""

import re
import shlex
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import regex

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.formats import format_of, open_adapter, refuse_unwritable, stored_files
from pamctl.adapters.formats.peft_patterns import PREFIX, SECONDS_TO_MATCH, ends
from pamctl.adapters.formats.peft_settings import PeftSettings
from pamctl.adapters.formats.stored import Stored
from pamctl.adapters.module_names import canonical_ids, layout, tower, written_path
from pamctl.adapters.sources import CONFIG_NAME, locate
from pamctl.refusal import Refusal, UsageRefusal

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's --max-lora-rank may be."""

VLLM_DEFAULT_RANK = 16
_FACTOR = re.compile(r"(?P<path>.+)\.(?P<factor>lora_(?:embedding_)?[AB])(?:\.(?!bias$)[^.]+)?(?:\.weight)?")
_PEFT_KEY = re.compile(r"(?P<path>.+)\.(lora_[AB]\.weight|lora_embedding_[AB])")
_BASE_EMBEDDING = (".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")  # which vLLM skips
_LAYER = re.compile(r"(?P<stack>.*[._](?:layers|h|blocks))\.(?P<layer>\d{1,6})\.(?P<kind>.+)")


@dataclass(frozen=True)
class Finding:
    """One reason why an adapter is not served whole.

    Args:
        rule: the id of the rule in `TARGETS`.
        where: the file, field or tensor.
        why: what the loader does with it.
        mend: a command, a flag of the server, or what else to do.
    """

    rule: str
    where: str
    why: str
    mend: str


@dataclass(frozen=True)
class ServingReport:
    """What stands between an adapter and a loader.

    Args:
        format: of the files.
        options: those of the server that were taken into account.
    """

    adapter: str
    target: str
    format: str
    options: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def served(self) -> bool:
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        """The record that `pamctl inspect --target --json` prints."""
        return {"served": self.served, **asdict(self)}


@dataclass(frozen=True)
class Candidate:
    """An adapter as a loader would find it, and the ways to mend it."""

    reference: str
    target: str
    format: str
    stored: Stored
    options: tuple[str, ...]
    allow_pickle: bool

    @cached_property
    def ranks(self) -> dict[str, int]:
        """The rank of each module by its path in the file, of the files that have peft's names."""
        found = {}
        for name, entry in self.stored.tensors.items():
            match = _FACTOR.fullmatch(name)
            if match and match["factor"].endswith("A") and entry.shape:
                found[match["path"].removeprefix(PREFIX)] = entry.shape[0]
        return found

    @cached_property
    def ids(self) -> dict[str, str]:
        base = self.setting("base_model_name_or_path")
        return canonical_ids(self.ranks, base if isinstance(base, str) else None)

    @cached_property
    def others(self) -> list[str]:
        """The tensors that are no factors."""
        return [name for name in self.stored.tensors if not _FACTOR.fullmatch(name)]

    def setting(self, field: str) -> Any:
        return self.stored.settings.get(field)

    def option(self, name: str) -> str | None:
        """What follows an option of the server, empty for a flag; None where it is not given."""
        for at, option in enumerate(self.options):
            if option == name:
                following = self.options[at + 1 : at + 2]
                return following[0] if following and not following[0].startswith("-") else ""
            if option.startswith(f"{name}="):
                return option.partition("=")[2]
        return None

    def convert(self, format: str, *flags: str) -> str:
        """The command that writes the adapter as the loader wants it, or why there is none."""
        opened = self._opened
        name = re.sub(r"\W+", "-", Path(self.reference).name.removesuffix(".safetensors")).strip("-")
        output = f"{name or 'adapter'}-{self.target}"
        try:
            if isinstance(opened, Refusal):
                raise opened
            refuse_unwritable(opened, Path(output), format)
        except Refusal as refusal:
            return f"it cannot be converted ({refusal.what}): {refusal.way_on}"
        words = ["pamctl", "convert", self.reference, "-o", output, "--format", format, *flags]
        return shlex.join([*words, "--allow-pickle"] if self.allow_pickle else words)

    @cached_property
    def _opened(self) -> Adapter | Refusal:
        try:
            return open_adapter(self.reference, allow_pickle=self.allow_pickle)
        except Refusal as refusal:
            return refusal


Rule = Callable[[Candidate], Iterable[tuple[str, str, str]]]


def check_serving(
    reference: str, target: str, *, options: Sequence[str] = (), allow_pickle: bool = False
) -> ServingReport:
    """Whether a loader will serve an adapter whole.

    Args:
        reference: as for `open_adapter`.
        target: one of `TARGETS`.
        options: those that the server will be started with, as `("--max-lora-rank", "32")`.
        allow_pickle: as for `open_adapter`.

    Raises:
        Refusal: nothing is there, or its files are damaged or no LoRA's.
        UsageRefusal: another target.
    """
    if target not in TARGETS:
        raise UsageRefusal(f"target is {target!r}", f"choose one of {', '.join(TARGETS)}")
    formats, rules = TARGETS[target]
    stored = stored_files(locate(reference, allow_pickle=allow_pickle))
    candidate = Candidate(reference, target, format_of(stored), stored, tuple(options), allow_pickle)
    findings = []
    if candidate.format not in formats:
        why = f"it is {candidate.format}, and {target} reads {' or '.join(formats)}"
        findings.append(Finding("format", str(stored.file), why, candidate.convert(formats[0])))
    else:
        findings = [Finding(name, *found) for name, rule in rules.items() for found in rule(candidate)]
    return ServingReport(reference, target, candidate.format, tuple(options), tuple(findings))


def _file_name(*names: str) -> Rule:
    def check(it: Candidate) -> Iterator[tuple[str, str, str]]:
        if it.stored.file.name not in names:
            why = f"the loader looks for {' or '.join(names)}"
            yield str(it.stored.file), why, it.convert(TARGETS[it.target][0][0])

    return check


def _config(*fields: str) -> Rule:
    def check(it: Candidate) -> Iterator[tuple[str, str, str]]:
        where = str(it.stored.folder / CONFIG_NAME)
        if not it.stored.settings:
            yield where, "it is missing, and the loader takes rank and scale from it", it.convert("peft")
        elif missing := [field for field in fields if field not in it.stored.settings]:
            yield where, f"it lacks {', '.join(missing)}, which the loader needs", it.convert("peft")

    return check


def _plain_lora(it: Candidate) -> Iterator[tuple[str, str, str]]:
    """DoRA, changed base weights and other fields that change the delta."""
    try:
        if it.stored.settings:
            PeftSettings(it.stored.settings_file, it.stored.settings)
    except Refusal as refusal:
        yield (
            str(it.stored.settings_file),
            f"{refusal.what}: the loader refuses or ignores it",
            refusal.way_on,
        )
        return
    if magnitudes := [name for name in it.others if "lora_magnitude_vector" in name]:
        why = "DoRA's magnitudes are refused or ignored by the loader"
        yield magnitudes[0], why, "DoRA rescales the base weights: save a plain LoRA"


def _one_scale(it: Candidate) -> Iterator[tuple[str, str, str]]:
    for pattern, field, default in (("rank_pattern", "r", 8), ("alpha_pattern", "lora_alpha", 8)):
        common, own = it.setting(field) or default, it.setting(pattern) or {}
        if isinstance(own, Mapping) and (differing := [key for key, value in own.items() if value != common]):
            yield (
                f"{it.stored.settings_file}: {pattern}",
                f"the loader takes one {field}, {common}, for all modules, and scales {differing[0]} wrongly",
                it.convert("peft"),
            )


def _one_rank(it: Candidate) -> Iterator[tuple[str, str, str]]:
    if len(ranks := set(it.ranks.values())) > 1:
        narrow = min(it.ranks, key=lambda path: it.ranks[path])
        why = f"ranks go from {min(ranks)} ({narrow}) to {max(ranks)}: the loader wants one for all modules"
        yield str(it.stored.file), why, it.convert(it.format)


def _vllm_rank(it: Candidate) -> Iterator[tuple[str, str, str]]:
    rank, given = max(it.ranks.values(), default=0), it.option("--max-lora-rank")
    limit = int(given) if given and given.isdecimal() else VLLM_DEFAULT_RANK
    if rank <= limit:
        return
    enough = next((allowed for allowed in VLLM_RANKS if allowed >= rank), None)
    mend = (
        f"start vLLM with --max-lora-rank {enough}"
        if enough
        else it.convert("peft", "--rank", str(VLLM_RANKS[-1]))
    )
    where = f"{it.stored.settings_file}: rank {rank}"
    whose = "" if given else ", its default"
    yield where, f"vLLM refuses what is above --max-lora-rank {limit}{whose}", mend


def _towers(it: Candidate) -> Iterator[tuple[str, str, str]]:
    flag = "--enable-tower-connector-lora"
    outside = [path for path, id in it.ids.items() if tower(id) in ("vision_tower", "multi_modal_projector")]
    if outside and it.option(flag) is None:
        why = f"vLLM leaves the vision tower and the projector at the base ({len(outside)} modules)"
        yield outside[0], why, f"start vLLM with {flag}, for the models that support it"


def _no_full_modules(it: Candidate) -> Iterator[tuple[str, str, str]]:
    where, named = f"{it.stored.settings_file}: modules_to_save", it.setting("modules_to_save")
    whole = [
        name
        for name in it.others
        if not name.endswith((".bias", *_BASE_EMBEDDING)) and "lora_magnitude_vector" not in name
    ]
    if whole:
        why = "the loader takes factors and nothing else, and this is a full weight"
        yield whole[0], why, "merge the full weights into the base model and serve that"
    elif named:
        yield where, f"it names {named}, which the loader refuses or ignores", it.convert("peft")


def _no_bias(it: Candidate) -> Iterator[tuple[str, str, str]]:
    if biases := [name for name in it.others if name.endswith(".bias")]:
        why = "the loader refuses or ignores biases"
        yield biases[0], why, "train with bias none and without lora_bias, or merge it into the base model"
        return
    for field in ("bias", "lora_bias"):
        if it.setting(field) not in (None, False, "none"):
            why = f"it is {it.setting(field)!r}, which the loader refuses, and the file holds no bias"
            yield f"{it.stored.settings_file}: {field}", why, it.convert("peft")


def _keys(*, default: bool = False) -> Rule:
    """Names as peft saves them; `default` if the loader takes a raw state dict's `lora_A.default`, too."""

    def check(it: Candidate) -> Iterator[tuple[str, str, str]]:
        factors = [name for name in it.stored.tensors if _FACTOR.fullmatch(name)]
        known = {name: name.replace(".default", "") if default else name for name in factors}
        if ending := [name for name in factors if not _PEFT_KEY.fullmatch(known[name])]:
            why = "the loader knows names that end in lora_A.weight or lora_B.weight"
            yield ending[0], why, it.convert("peft")
        if bare := [name for name in factors if not name.startswith(PREFIX)]:
            yield bare[0], f"the loader looks for names that begin with {PREFIX}", it.convert("peft")

    return check


def _linear_only(it: Candidate) -> Iterator[tuple[str, str, str]]:
    if convolutions := [name for name, entry in it.stored.tensors.items() if len(entry.shape) > 2]:
        why = "it is a convolution's or an expert layer's, and the loader adapts linear layers and embeddings"
        yield convolutions[0], why, "train without these modules, or merge it into the base model"


def _no_embeddings(it: Candidate) -> Iterator[tuple[str, str, str]]:
    if embeddings := [name for name in it.stored.tensors if "lora_embedding_" in name]:
        why = "the loader looks for lora_A and lora_B only, and leaves embeddings at the base"
        yield embeddings[0], why, "train without embeddings, or merge it into the base model"


def _spelling(it: Candidate) -> Iterator[tuple[str, str, str]]:
    """Vision-language modules named in a way that some releases do not restore, and only warn of.

    Transformers 4.57 knows nothing of 5's names in the vision tower, and 5 loses 4.51's projector.
    """
    family = layout(it.ids.values())
    for path, id in it.ids.items():
        usual = written_path(id, "4.57", family)
        lost = ("4.51", "5") if tower(id) == "multi_modal_projector" else ("5",)
        if path != usual and path in (written_path(id, release, family) for release in lost):
            why = f"releases that call it {usual} leave it at the base"
            yield path, why, it.convert("peft", "--spelling", "4.57")
            return


def _config_fits(it: Candidate) -> Iterator[tuple[str, str, str]]:
    """A rank in the config that is not the tensors' stops peft with a size mismatch."""
    try:
        settings = PeftSettings(it.stored.settings_file, it.stored.settings)
    except Refusal:
        return  # not a plain LoRA: peft has its own rules for it
    for path, rank in it.ranks.items():
        try:
            settings.scale(path, rank)
        except Refusal as refusal:
            yield path, refusal.what, refusal.way_on
            return


def _targets(it: Candidate) -> Iterator[tuple[str, str, str]]:
    where, said = f"{it.stored.settings_file}: target_modules", it.setting("target_modules")
    if not said:
        why = "without it peft adapts what it takes to be usual for the architecture"
        yield where, why, it.convert("peft")
    elif left := _not_targeted(it.ranks, said, where):
        why = f"it does not name {left[0]}, which peft then leaves at the base ({len(left)} modules)"
        yield where, why, it.convert("peft")


def _not_targeted(paths: Iterable[str], said: Any, where: str) -> list[str]:
    """The modules that `target_modules` leaves out: a name matches a path's end, a pattern all of it."""
    if said == "all-linear":
        return []
    if isinstance(said, list) and all(isinstance(name, str) for name in said):
        names = frozenset(said)
        return [path for path in paths if names.isdisjoint(ends(path))]
    if not isinstance(said, str):
        raise Refusal(f"{where} is {said!r}", "it should be a list of names or a pattern")
    deadline = time.monotonic() + SECONDS_TO_MATCH
    try:
        pattern = regex.compile(said)
        return [
            path
            for path in paths
            if not pattern.fullmatch(path, timeout=max(deadline - time.monotonic(), 1e-3))
        ]
    except (regex.error, RecursionError, OverflowError, TimeoutError) as fault:
        raise Refusal(f"{where} is no pattern that can be matched: {fault}", "correct it") from fault


def _every_layer(it: Candidate) -> Iterator[tuple[str, str, str]]:
    layers: dict[str, set[int]] = defaultdict(set)
    kinds: dict[tuple[str, str], set[int]] = defaultdict(set)
    for path in it.ranks:
        if found := _LAYER.fullmatch(path):
            layers[found["stack"]].add(int(found["layer"]))
            kinds[found["stack"], found["kind"]].add(int(found["layer"]))
    for (stack, kind), present in kinds.items():
        missing = next((number for number in range(max(layers[stack])) if number not in present), None)
        if missing is not None or max(present) < max(layers[stack]):
            yield (
                f"{stack}.{max(layers[stack]) if missing is None else missing}.{kind}",
                f"it is missing, for which LoRAX drops {kind} in all layers",
                "train all layers alike, or serve it with vLLM",
            )


def _diffusers_prefix(it: Candidate) -> Iterator[tuple[str, str, str]]:
    parts = ("unet.", "transformer.", "text_encoder.", "text_encoder_2.", "text_encoder_3.")
    if it.format == "diffusers" and (
        stray := [name for name in it.stored.tensors if not name.startswith(parts)]
    ):
        why = "diffusers loads what stands under unet., transformer. or text_encoder."
        yield stray[0], why, it.convert("diffusers")


def _diffusers_scale(it: Candidate) -> Iterator[tuple[str, str, str]]:
    tensors = it.stored.tensors
    told = "lora_adapter_metadata" in tensors.metadata or any(name.endswith(".alpha") for name in tensors)
    if it.format == "diffusers" and not told and len(set(it.ranks.values())) > 1:
        why = "ranks differ and no alpha is told: older releases scale all by the rank that comes first"
        yield str(it.stored.file), why, it.convert("diffusers")


def _diffusers_alphas(it: Candidate) -> Iterator[tuple[str, str, str]]:
    tensors = it.stored.tensors
    names = [name for name in tensors if name.endswith(".alpha")]
    values = set(tensors.numbers(names).values()) if it.format == "kohya" else set()
    modules = sum(name.endswith(".lora_down.weight") for name in tensors)
    if len(values) > 1 or 0 in values or (values and len(names) < modules):
        why = "alphas differ, lack or are 0, of which diffusers 0.42 makes another scale"
        yield names[0], why, it.convert("diffusers")


def _diffusers_products(it: Candidate) -> Iterator[tuple[str, str, str]]:
    if other := [name for name in it.stored.tensors if "lora_mid" in name or "hada_" in name]:
        yield other[0], "diffusers reads no Tucker cores and no LoHa", it.convert("diffusers")


def _mlx_parameters(it: Candidate) -> Iterator[tuple[str, str, str]]:
    said = it.setting("lora_parameters")
    parameters = said if isinstance(said, Mapping) else {}
    missing = [field for field in ("rank", "scale", "dropout") if field not in parameters]
    missing += [] if "num_layers" in it.stored.settings else ["num_layers"]
    if missing:
        why = f"mlx-lm needs {', '.join(missing)} in it"
        yield str(it.stored.folder / CONFIG_NAME), why, it.convert("mlx")


def _mlx_keys(it: Candidate) -> Iterator[tuple[str, str, str]]:
    leaves = {name: name.rpartition(".")[2] for name in it.stored.tensors}
    if old := [name for name, leaf in leaves.items() if leaf not in ("lora_a", "lora_b", "m")]:
        why = "mlx-lm and mlx-vlm look for lora_a and lora_b"
        yield old[0], why, it.convert("mlx")


def _mlx_rank(it: Candidate) -> Iterator[tuple[str, str, str]]:
    said = it.setting("lora_parameters")
    rank = said.get("rank") if isinstance(said, Mapping) else None
    for name, entry in it.stored.tensors.items():
        if name.endswith(".lora_a") and len(entry.shape) == 2 and entry.shape[1] != rank:
            why = f"its rank is {entry.shape[1]}, and mlx makes all modules of rank {rank}"
            yield name, why, it.convert("mlx")
            return


def _mlx_modules(it: Candidate) -> Iterator[tuple[str, str, str]]:
    """mlx-lm adapts the `keys`: paths of the whole model, or within each of its last `num_layers` layers."""
    said, count = it.setting("lora_parameters"), it.setting("num_layers")
    named = said.get("keys") if isinstance(said, Mapping) else None
    keys = frozenset(key for key in named if isinstance(key, str)) if isinstance(named, list) else frozenset()
    paths = dict.fromkeys(name.rpartition(".")[0] for name in it.stored.tensors)
    within = {path: _LAYER.fullmatch(path) for path in paths if path not in keys}
    if left := [path for path, layer in within.items() if not layer or (named and layer["kind"] not in keys)]:
        why = "the keys of lora_parameters do not name it, and mlx-lm refuses what they do not"
        yield left[0], why, it.convert("mlx")
        return
    numbers = {int(layer["layer"]) for layer in within.values() if layer}
    if numbers and isinstance(count, int) and 0 < count <= max(numbers) - min(numbers):
        why = f"num_layers is {count}, and mlx-lm adapts only so many, from the last"
        yield f"{it.stored.settings_file}: num_layers", why, it.convert("mlx")


TARGETS: dict[str, tuple[tuple[str, ...], dict[str, Rule]]] = {
    "vllm": (
        ("peft",),
        {
            "file-name": _file_name("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt"),
            "config": _config("r", "lora_alpha", "target_modules"),
            "plain-lora": _plain_lora,
            "config-fits": _config_fits,
            "one-scale": _one_scale,
            "full-modules": _no_full_modules,
            "bias": _no_bias,
            "keys": _keys(),
            "spelling": _spelling,
            "linear-only": _linear_only,
            "rank": _vllm_rank,
            "towers": _towers,
        },
    ),
    "peft": (
        ("peft",),
        {
            "file-name": _file_name("adapter_model.safetensors", "adapter_model.bin"),
            "config": _config("peft_type"),
            "config-fits": _config_fits,
            "targets": _targets,
            "keys": _keys(default=True),
            "spelling": _spelling,
        },
    ),
    "diffusers": (
        ("diffusers", "kohya"),
        {
            "prefix": _diffusers_prefix,
            "scale": _diffusers_scale,
            "alphas": _diffusers_alphas,
            "products": _diffusers_products,
        },
    ),
    "mlx": (
        ("mlx",),
        {
            "file-name": _file_name("adapters.safetensors"),
            "config": _mlx_parameters,
            "keys": _mlx_keys,
            "one-rank": _mlx_rank,
            "modules": _mlx_modules,
        },
    ),
    "lorax": (
        ("peft",),
        {
            "file-name": _file_name("adapter_model.safetensors"),
            "config": _config("peft_type"),
            "plain-lora": _plain_lora,
            "config-fits": _config_fits,
            "one-scale": _one_scale,
            "one-rank": _one_rank,
            "full-modules": _no_full_modules,
            "bias": _no_bias,
            "keys": _keys(),
            "embeddings": _no_embeddings,
            "linear-only": _linear_only,
            "every-layer": _every_layer,
        },
    ),
}
"""For each loader the formats that it reads, the one to convert to first, and its rules by id."""

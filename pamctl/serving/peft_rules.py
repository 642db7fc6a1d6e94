"""What vLLM, LoRAX and peft ignore or misread of a peft folder."""

import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import regex

from pamctl.adapters.formats.peft_patterns import PREFIX, SECONDS_TO_MATCH, ends
from pamctl.adapters.formats.peft_settings import PeftSettings
from pamctl.adapters.module_names import layout, tower, written_path
from pamctl.adapters.sources import CONFIG_NAME
from pamctl.refusal import Refusal
from pamctl.serving.candidate import FACTOR, LAYER, Candidate, Fault, Rule

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's --max-lora-rank may be."""

VLLM_DEFAULT_RANK = 16
_PEFT_KEY = re.compile(r"(?P<path>.+)\.(lora_[AB]\.weight|lora_embedding_[AB])")
_BASE_EMBEDDING = (".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")  # which vLLM skips


def config(*fields: str) -> Rule:
    """The loader needs a config with these fields."""

    def check(it: Candidate) -> Iterator[Fault]:
        where = str(it.stored.folder / CONFIG_NAME)
        if not it.stored.settings:
            yield where, "it is missing, and the loader takes rank and scale from it", it.convert("peft")
        elif missing := [field for field in fields if field not in it.stored.settings]:
            yield where, f"it lacks {', '.join(missing)}, which the loader needs", it.convert("peft")

    return check


def plain_lora(it: Candidate) -> Iterator[Fault]:
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


def one_scale(it: Candidate) -> Iterator[Fault]:
    """A scale for all modules that is not all modules'."""
    for pattern, field, default in (("rank_pattern", "r", 8), ("alpha_pattern", "lora_alpha", 8)):
        common, own = it.setting(field) or default, it.setting(pattern) or {}
        if isinstance(own, Mapping) and (differing := [key for key, value in own.items() if value != common]):
            yield (
                f"{it.stored.settings_file}: {pattern}",
                f"the loader takes one {field}, {common}, for all modules, and scales {differing[0]} wrongly",
                it.convert("peft"),
            )


def one_rank(it: Candidate) -> Iterator[Fault]:
    """Ranks of their own."""
    if len(ranks := set(it.ranks.values())) > 1:
        narrow = min(it.ranks, key=lambda path: it.ranks[path])
        why = f"ranks go from {min(ranks)} ({narrow}) to {max(ranks)}: the loader wants one for all modules"
        yield str(it.stored.file), why, it.convert(it.format)


def vllm_rank(it: Candidate) -> Iterator[Fault]:
    """A rank above the server's limit."""
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


def towers(it: Candidate) -> Iterator[Fault]:
    """Modules outside the language model."""
    flag = "--enable-tower-connector-lora"
    outside = [path for path, id in it.ids.items() if tower(id) in ("vision_tower", "multi_modal_projector")]
    if outside and it.option(flag) is None:
        why = f"vLLM leaves the vision tower and the projector at the base ({len(outside)} modules)"
        yield outside[0], why, f"start vLLM with {flag}, for the models that support it"


def no_full_modules(it: Candidate) -> Iterator[Fault]:
    """Full weights, or a config that names some."""
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


def no_bias(it: Candidate) -> Iterator[Fault]:
    """Biases, or a config that speaks of some."""
    if biases := [name for name in it.others if name.endswith(".bias")]:
        why = "the loader refuses or ignores biases"
        yield biases[0], why, "train with bias none and without lora_bias, or merge it into the base model"
        return
    for field in ("bias", "lora_bias"):
        if it.setting(field) not in (None, False, "none"):
            why = f"it is {it.setting(field)!r}, which the loader refuses, and the file holds no bias"
            yield f"{it.stored.settings_file}: {field}", why, it.convert("peft")


def keys(*, default: bool = False) -> Rule:
    """Names as peft saves them; `default` if the loader takes a raw state dict's `lora_A.default`, too."""

    def check(it: Candidate) -> Iterator[Fault]:
        factors = [name for name in it.stored.tensors if FACTOR.fullmatch(name)]
        known = {name: name.replace(".default", "") if default else name for name in factors}
        if ending := [name for name in factors if not _PEFT_KEY.fullmatch(known[name])]:
            why = "the loader knows names that end in lora_A.weight or lora_B.weight"
            yield ending[0], why, it.convert("peft")
        if bare := [name for name in factors if not name.startswith(PREFIX)]:
            yield bare[0], f"the loader looks for names that begin with {PREFIX}", it.convert("peft")

    return check


def linear_only(it: Candidate) -> Iterator[Fault]:
    """Convolutions and layers of experts."""
    if convolutions := [name for name, entry in it.stored.tensors.items() if len(entry.shape) > 2]:
        why = "it is a convolution's or an expert layer's, and the loader adapts linear layers and embeddings"
        yield convolutions[0], why, "train without these modules, or merge it into the base model"


def no_embeddings(it: Candidate) -> Iterator[Fault]:
    """Embeddings that are adapted."""
    if embeddings := [name for name in it.stored.tensors if "lora_embedding_" in name]:
        why = "the loader looks for lora_A and lora_B only, and leaves embeddings at the base"
        yield embeddings[0], why, "train without embeddings, or merge it into the base model"


def spelling(it: Candidate) -> Iterator[Fault]:
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


def config_fits(it: Candidate) -> Iterator[Fault]:
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


def targets(it: Candidate) -> Iterator[Fault]:
    """Modules that the config does not name."""
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


def every_layer(it: Candidate) -> Iterator[Fault]:
    """Modules that are in some layers only."""
    layers: dict[str, set[int]] = defaultdict(set)
    kinds: dict[tuple[str, str], set[int]] = defaultdict(set)
    for path in it.ranks:
        if found := LAYER.fullmatch(path):
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

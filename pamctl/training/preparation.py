"""How a task, a base and a global adapter become a run: what is adapted, from where, and held to what."""

import re
from dataclasses import dataclass

import jax

from pamctl.adapters import Adapter
from pamctl.models.base import Base
from pamctl.models.lora import adapts_vision, chosen, init_lora, lora_from_adapter
from pamctl.refusal import Refusal
from pamctl.tasks.task import Task
from pamctl.training.batches import EncodedSplit, encode_split
from pamctl.training.configuration import (
    Configuration,
    Settings,
    check_settings,
    resolve_alignment,
    resolve_method,
    resolve_recipe,
)
from pamctl.training.loop import Run
from pamctl.training.realignment import anchor_of

TRAIN = "train"


@dataclass(frozen=True)
class Prepared:
    """A run and where it comes from.

    Attributes:
        notes: what the user should know before trusting the result.
    """

    run: Run
    task: Task
    global_adapter: Adapter | None
    notes: tuple[str, ...]


def prepare(
    task: Task,
    base: Base,
    global_adapter: Adapter | None,
    settings: Settings,
    split: EncodedSplit | None = None,
) -> Prepared:
    """Resolve every setting, read and check every input, and put the start on the device.

    Args:
        split: the training split if it is encoded already, by `encode_split` with the vision tower frozen;
            passed over where the adapter changes what the tower sees.

    Raises:
        Refusal: an example cannot be used, or the global adapter is of another base, rank or other modules.
        UsageRefusal: a setting is out of range, two of them exclude each other, or devices do not divide the
            batch.
    """
    check_settings(settings)
    method, start = resolve_method(settings, has_global=global_adapter is not None)
    alignment = resolve_alignment(settings, method, task.recipe)
    rank, alpha, targets = _lora_settings(settings, base, global_adapter)
    seed = settings.get("seed", 0)
    everywhere = base.devices.replicated
    reference = None
    if global_adapter is not None:
        reference = jax.device_put(lora_from_adapter(global_adapter, base.config), everywhere)
    lora = reference
    if lora is None or start == "fresh":
        lora = jax.device_put(init_lora(base.config, rank, targets, seed), everywhere)
    vision = adapts_vision(lora)
    if split is None or vision:
        split = encode_split(base, task.split(TRAIN), task.text_length, vision_adapted=vision)
    recipe = resolve_recipe(settings, task.recipe, len(split))
    base.devices.local_rows(recipe["batch_size"] // recipe["accumulate"])
    configuration = Configuration(
        task=task.name,
        method=method.name,
        start=start,
        alignment=alignment,
        rank=rank,
        alpha=alpha,
        targets=targets,
        seed=seed,
        base=base.fingerprint,
        global_adapter=None if global_adapter is None else global_adapter.fingerprint,
        dtype=base.dtype,
        quantize=base.quantize,
        data=split.fingerprint,
        **recipe,
    )
    anchor = None
    if alignment is not None and global_adapter is not None and reference is not None:
        anchor = anchor_of(global_adapter, reference, alignment, base.config)
    found = global_adapter.notes if global_adapter else ()
    notes = (*task.notes, *base.notes, *found, *_notes(settings, configuration))
    return Prepared(Run(base, split, configuration, lora, anchor), task, global_adapter, notes)


def _lora_settings(settings: Settings, base: Base, global_adapter: Adapter | None) -> tuple[int, float, str]:
    """Rank, alpha and targets: the global adapter's, or else of flags and the base's defaults."""
    defaults = base.lora_defaults
    targets = settings.get("targets") or defaults.targets
    if global_adapter is None:
        rank, alpha = settings.get("rank") or defaults.rank, settings.get("alpha")
        # A rank of one's own keeps the base's alpha / rank, so that the rate need not be tuned again.
        return rank, alpha or defaults.alpha * rank / defaults.rank, targets
    _refuse_other_base(global_adapter, base)
    rank = _uniform_rank(global_adapter)
    for option, found, wanted in (
        ("rank", settings.get("rank"), rank),
        ("alpha", settings.get("alpha"), rank),
    ):
        if found is not None and found != wanted:
            raise Refusal(
                f"--{option} is {found}, {global_adapter.name} has {option} {wanted}",
                f"leave --{option} out: a task adapter has the shape of the global adapter",
            )
    return (
        rank,
        float(rank),
        _targets_of(global_adapter, base, targets, explicit=bool(settings.get("targets"))),
    )


def _refuse_other_base(adapter: Adapter, base: Base) -> None:
    if adapter.base_fingerprint not in (None, base.fingerprint):
        raise Refusal(
            f"{adapter.name} was trained on {adapter.base_model} ({str(adapter.base_fingerprint)[:12]}), "
            f"the base is {base.name} ({base.fingerprint[:12]})",
            "name the base it was trained on with --base",
        )


def _uniform_rank(adapter: Adapter) -> int:
    ranks = {shape.rank: module for module, shape in adapter.shapes.items()}
    if len(ranks) > 1:
        (low, module), *_, (high, other) = sorted(ranks.items())
        raise Refusal(
            f"{adapter.name} has rank {low} in {module} and {high} in {other}",
            "start from an adapter with one rank: `pamctl merge` writes such ones",
        )
    return adapter.rank


def _targets_of(adapter: Adapter, base: Base, targets: str, *, explicit: bool) -> str:
    """A regex for the modules of an adapter: `targets` if it picks them, else refused or spelled out."""
    adapted = set(adapter.shapes)
    picked = {module for kind in chosen(base.config, targets) for module in kind.modules()}
    if picked == adapted:
        return targets
    if explicit:
        module = min(picked ^ adapted)
        here, there = ("picks", "does not adapt") if module in picked else ("does not pick", "adapts")
        raise Refusal(
            f"--targets {targets!r} {here} {module}, which {adapter.name} {there}",
            "leave --targets out: a task adapter has the shape of the global adapter",
        )
    return "|".join(re.escape(module) for module in sorted(adapted))


def _notes(settings: Settings, config: Configuration) -> list[str]:
    asked, notes = settings.get("method", "pam"), []
    if asked != config.method:
        notes.append(
            f"no --global adapter: this is a first task, so {asked} is plain fine-tuning from fresh LoRA"
        )
    alignment = config.alignment
    if alignment is not None and config.steps < alignment.align_every:
        notes.append(
            f"{config.steps} steps are fewer than --align-every {alignment.align_every}: nothing is realigned"
        )
    return notes

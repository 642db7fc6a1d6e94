"""Whether a loader will serve an adapter whole, judged by its files as they are stored.

Each loader ignores or misreads something without a word. The rules are those of vLLM (lora/peft_helper.py and
lora/lora_model.py), LoRAX (adapters/lora.py), peft 0.21, diffusers 0.42 (loaders/peft.py) and mlx-lm 0.32
(tuner/utils.py); which base they load it on is not known here.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pamctl.adapters.formats import format_of, stored_files
from pamctl.adapters.sources import locate
from pamctl.refusal import UsageRefusal
from pamctl.serving import diffusers_rules, mlx_rules, peft_rules
from pamctl.serving.candidate import Candidate, Rule, file_name


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
    source = locate(reference, allow_pickle=allow_pickle)
    with source.refused_by_place():
        stored = stored_files(source)
        format = format_of(stored)
    candidate = Candidate(reference, target, format, formats[0], stored, tuple(options), allow_pickle)
    findings = []
    if candidate.format not in formats:
        why = f"it is {candidate.format}, and {target} reads {' or '.join(formats)}"
        findings.append(Finding("format", str(stored.file), why, candidate.convert(candidate.wanted)))
    else:
        findings = [Finding(name, *found) for name, rule in rules.items() for found in rule(candidate)]
    return ServingReport(reference, target, candidate.format, tuple(options), tuple(findings))


TARGETS: dict[str, tuple[tuple[str, ...], dict[str, Rule]]] = {
    "vllm": (
        ("peft",),
        {
            "file-name": file_name("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt"),
            "config": peft_rules.config("r", "lora_alpha", "target_modules"),
            "plain-lora": peft_rules.plain_lora,
            "config-fits": peft_rules.config_fits,
            "one-scale": peft_rules.one_scale,
            "full-modules": peft_rules.no_full_modules,
            "bias": peft_rules.no_bias,
            "keys": peft_rules.keys(),
            "spelling": peft_rules.spelling,
            "linear-only": peft_rules.linear_only,
            "rank": peft_rules.vllm_rank,
            "towers": peft_rules.towers,
        },
    ),
    "peft": (
        ("peft",),
        {
            "file-name": file_name("adapter_model.safetensors", "adapter_model.bin"),
            "config": peft_rules.config("peft_type"),
            "config-fits": peft_rules.config_fits,
            "targets": peft_rules.targets,
            "keys": peft_rules.keys(default=True),
            "spelling": peft_rules.spelling,
        },
    ),
    "diffusers": (
        ("diffusers", "kohya"),
        {
            "prefix": diffusers_rules.prefix,
            "scale": diffusers_rules.scale,
            "alphas": diffusers_rules.alphas,
            "names": diffusers_rules.names,
            "products": diffusers_rules.products,
        },
    ),
    "mlx": (
        ("mlx",),
        {
            "file-name": file_name("adapters.safetensors"),
            "config": mlx_rules.parameters,
            "keys": mlx_rules.keys,
            "one-rank": mlx_rules.rank,
            "modules": mlx_rules.modules,
        },
    ),
    "lorax": (
        ("peft",),
        {
            "file-name": file_name("adapter_model.safetensors"),
            "config": peft_rules.config("peft_type"),
            "plain-lora": peft_rules.plain_lora,
            "config-fits": peft_rules.config_fits,
            "one-scale": peft_rules.one_scale,
            "one-rank": peft_rules.one_rank,
            "full-modules": peft_rules.no_full_modules,
            "bias": peft_rules.no_bias,
            "keys": peft_rules.keys(),
            "embeddings": peft_rules.no_embeddings,
            "linear-only": peft_rules.linear_only,
            "every-layer": peft_rules.every_layer,
        },
    ),
}
"""For each loader the formats that it reads, the one to convert to first, and its rules by id."""

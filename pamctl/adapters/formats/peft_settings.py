"""What an `adapter_config.json` of peft means for the deltas: each module's scale, and what is refused."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import regex

from pamctl.refusal import Refusal

DEFAULT_RANK = DEFAULT_ALPHA = 8
SECONDS_TO_MATCH = 5.0  # for all patterns of a config against all modules: a hostile one would take years

# Fields with which the delta is no longer scale · B @ A on the base as published, by what to do about them.
_CHANGES_THE_DELTA = {
    "use_dora": "DoRA rescales the base weights: save a plain LoRA",
    "trainable_token_indices": "it carries token embeddings: train without trainable_token_indices",
    "target_parameters": "factors of whole parameters are not supported: target modules instead",
    "layer_replication": "it belongs to a base with repeated layers",
    "alora_invocation_tokens": "it acts after certain tokens only (aLoRA): save a plain LoRA",
    "use_qalora": "QA-LoRA pools its input: save a plain LoRA",
    "use_bdlora": "block-diagonal factors are not plain factors: save a plain LoRA",
    "kasa_config": "KaSA puts a diagonal between the factors: save a plain LoRA",
    "arrow_config": "Arrow routes between adapters: save a plain LoRA",
}
_KNOWN_FIELDS = {
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_bias",
    "lora_dropout",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "modules_to_save",
    "monteclora_config",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_rslora",
    "velora_config",
}
_PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True)
class PeftSettings:
    """A config that has been checked to be a plain LoRA's.

    Raises:
        Refusal: when it is made, for a field that says otherwise or that is not known; when it is asked for a
            module, for a value that is not a number.
    """

    file: Path
    fields: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.fields.get("peft_type") != "LORA":
            raise Refusal(
                f"{self.file}: peft_type is {self.fields.get('peft_type')!r}",
                "only peft_type LORA can be used",
            )
        for field, value in self.fields.items():
            if value and value != "none":
                self._refuse_if_not_plain(field, value)
        if self.fields.get("init_lora_weights") not in _PLAIN_STARTS:
            raise Refusal(
                f"{self.file}: init_lora_weights is {self.fields['init_lora_weights']!r}, "
                "which changes the base weights",
                "save it with peft's path_initial_model_for_weight_conversion, which gives a plain LoRA",
            )

    @property
    def base_model(self) -> str | None:
        name = self.fields.get("base_model_name_or_path")
        return name if isinstance(name, str) and name else None

    def scale(self, path: str, rank: int) -> float:
        """alpha / rank, or alpha / √rank under rsLoRA, of the module that the model calls `path`.

        Args:
            rank: that of its tensors, which the config has to agree with.
        """
        said = self._number("rank_pattern", "r", DEFAULT_RANK, path)
        if said != rank:
            raise Refusal(
                f"{self.file} gives {path} rank {said:g}, but its lora_A has {rank} rows",
                "the config and the weights are of different adapters, or r or rank_pattern was edited",
            )
        alpha = self._number("alpha_pattern", "lora_alpha", DEFAULT_ALPHA, path)
        return alpha / (math.sqrt(rank) if self.fields.get("use_rslora") else rank)

    def saves_whole(self, path: str) -> bool:
        """Whether `modules_to_save` names the module `path`, as peft matches it: by the end of its name."""
        named = self.fields.get("modules_to_save") or ()
        if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
            raise Refusal(f"{self.file}: modules_to_save is {named!r}", "it should be a list of names")
        return any(f".{path}".endswith(f".{name}") or f".{name}." in f".{path}" for name in named)

    def _refuse_if_not_plain(self, field: str, value: Any) -> None:
        if field in _CHANGES_THE_DELTA:
            raise Refusal(f"{self.file}: {field} is {value!r}", _CHANGES_THE_DELTA[field])
        if field not in _KNOWN_FIELDS:
            raise Refusal(
                f"{self.file}: {field} is {value!r}: an unknown field, which may change the delta",
                f"remove {field} from the config if it only concerns training",
            )

    def _number(self, patterns: str, field: str, default: int, path: str) -> float:
        """The value for one module: of the first pattern that matches its path's end, else the field's."""
        place, value = field, self.fields.get(field, default)
        for pattern, compiled in self._patterns[patterns].items():
            if self._matches(compiled, path, f"{patterns}[{pattern!r}]"):
                place, value = f"{patterns}[{pattern!r}]", self.fields[patterns][pattern]
                break
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
            or value == 0
        ):
            raise Refusal(f"{self.file}: {place} is {value!r}", "it should be a number other than 0")
        return value

    def _matches(self, pattern: Any, path: str, place: str) -> bool:
        try:
            return bool(pattern.match(path, timeout=max(self._deadline - time.monotonic(), 1e-3)))
        except TimeoutError as fault:
            raise Refusal(
                f"{self.file}: {place} takes longer than {SECONDS_TO_MATCH:g} s to match",
                "simplify the pattern",
            ) from fault

    @cached_property
    def _deadline(self) -> float:
        return time.monotonic() + SECONDS_TO_MATCH

    @cached_property
    def _patterns(self) -> dict[str, dict[str, Any]]:
        return {field: self._compiled(field) for field in ("rank_pattern", "alpha_pattern")}

    def _compiled(self, field: str) -> dict[str, Any]:
        found = self.fields.get(field) or {}
        if not isinstance(found, dict):
            raise Refusal(f"{self.file}: {field} is {found!r}", "it should be an object of pattern to number")
        try:
            return {pattern: regex.compile(rf"(.*\.)?({pattern})$") for pattern in found}
        except (regex.error, RecursionError, OverflowError) as fault:
            raise Refusal(
                f"{self.file}: {field} holds a pattern that is none: {fault}", "correct it"
            ) from fault

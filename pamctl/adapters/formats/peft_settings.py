"""What an `adapter_config.json` of peft means for the deltas: each module's scale, and what is refused."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pamctl.adapters.formats.pairing import LEAST_SCALE, MOST_SCALE
from pamctl.adapters.formats.peft_patterns import PeftNames, PeftPatterns
from pamctl.refusal import Refusal

DEFAULT_RANK = DEFAULT_ALPHA = 8

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
_SWITCHES = ("fan_in_fan_out", "lora_bias", "use_rslora")
_BIASES = (None, "none", "all", "lora_only")


@dataclass(frozen=True)
class PeftSettings:
    """A config that has been checked to be a plain LoRA's.

    Raises:
        Refusal: when it is made, for a field that says otherwise, is not known or is not of its type; when it
            is asked for a module, for a value that is not a number or a pattern that takes too long.
    """

    file: Path
    fields: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.fields.get("peft_type") != "LORA":
            raise Refusal(
                f"{self.file}: peft_type is {_shown(self.fields.get('peft_type'))}",
                "only peft_type LORA can be used",
            )
        for field, value in self.fields.items():
            self._refuse_if_not_plain(field, value)
        for field in _SWITCHES:
            self._refuse_unless(
                field, lambda value: value is None or isinstance(value, bool), "true or false"
            )
        self._refuse_unless("bias", lambda value: value in _BIASES, "none, all or lora_only")
        self._refuse_unless(
            "base_model_name_or_path", lambda value: value is None or isinstance(value, str), "a name"
        )
        self._refuse_unless("modules_to_save", _are_names, "a list of names")
        for field in ("rank_pattern", "alpha_pattern"):
            self._refuse_unless(
                field,
                lambda value: value is None or isinstance(value, dict),
                "an object of pattern to number",
            )

    @property
    def base_model(self) -> str | None:
        return self.fields.get("base_model_name_or_path") or None

    @property
    def saves_biases(self) -> bool:
        """Whether biases of the base are saved as trained."""
        return self.fields.get("bias") in ("all", "lora_only")

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
        scale = alpha / (math.sqrt(rank) if self.fields.get("use_rslora") else rank)
        if not LEAST_SCALE <= abs(scale) <= MOST_SCALE:
            raise Refusal(f"{self.file} gives {path} a scale of {scale:g}", "correct lora_alpha in it")
        return scale

    def saves_whole(self, path: str) -> bool:
        """Whether `modules_to_save` names the module `path` or one it lies in, as peft does: by the end."""
        return self._names.match(path)

    def _refuse_if_not_plain(self, field: str, value: Any) -> None:
        if field in _CHANGES_THE_DELTA and value not in (None, False, []):
            raise Refusal(f"{self.file}: {field} is {_shown(value)}", _CHANGES_THE_DELTA[field])
        if field == "init_lora_weights" and value not in _PLAIN_STARTS:
            raise Refusal(
                f"{self.file}: init_lora_weights is {_shown(value)}, which changes the base weights",
                "save it with peft's path_initial_model_for_weight_conversion, which gives a plain LoRA",
            )
        if value and field not in _KNOWN_FIELDS and field not in _CHANGES_THE_DELTA:
            raise Refusal(
                f"{self.file}: {_shown(field)} is {_shown(value)}: "
                "an unknown field, which may change the delta",
                "remove it from the config if it only concerns training",
            )

    def _refuse_unless(self, field: str, fits: Callable[[Any], bool], due: str) -> None:
        value = self.fields.get(field)
        if not fits(value):
            raise Refusal(f"{self.file}: {field} is {_shown(value)}", f"it should be {due}")

    def _number(self, patterns: str, field: str, default: int, path: str) -> float:
        """The value for one module: of the first pattern that matches its path's end, else the field's."""
        place, value = field, self.fields.get(field, default)
        if (pattern := self._patterns[patterns].first(path)) is not None:
            place, value = f"{patterns}[{_shown(pattern)}]", self.fields[patterns][pattern]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < abs(value) <= MOST_SCALE:
            raise Refusal(
                f"{self.file}: {place} is {_shown(value)}",
                f"it should be a finite number other than 0, in magnitude up to {MOST_SCALE:.2g}",
            )
        return float(value)

    @cached_property
    def _names(self) -> PeftNames:
        return PeftNames(self.file, "modules_to_save", self.fields.get("modules_to_save") or ())

    @cached_property
    def _patterns(self) -> dict[str, PeftPatterns]:
        return {
            field: PeftPatterns(self.file, field, self.fields.get(field) or ())
            for field in ("rank_pattern", "alpha_pattern")
        }


def _are_names(value: Any) -> bool:
    return value is None or (
        isinstance(value, list) and all(name and isinstance(name, str) for name in value)
    )


def _shown(value: Any) -> str:
    """A value for a message, of a length that leaves room for the message."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

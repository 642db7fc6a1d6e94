"""What diffusers ignores or misreads of a file in its own format or in kohya's."""

from collections.abc import Iterator

from pamctl.serving.candidate import Candidate, Fault

_OF_A_TRANSFORMER = (
    "lora_transformer_",
    "lora_unet_double_blocks_",
    "lora_unet_joint_blocks_",
    "lora_unet_single_blocks_",
)


def prefix(it: Candidate) -> Iterator[Fault]:
    """Names under no component of a pipeline."""
    parts = ("unet.", "transformer.", "text_encoder.", "text_encoder_2.", "text_encoder_3.")
    if it.format == "diffusers" and (
        stray := [name for name in it.stored.tensors if not name.startswith(parts)]
    ):
        why = "diffusers loads what stands under unet., transformer. or text_encoder."
        yield stray[0], why, it.convert("diffusers")


def scale(it: Candidate) -> Iterator[Fault]:
    """Ranks that differ with no scale told."""
    tensors = it.stored.tensors
    told = "lora_adapter_metadata" in tensors.metadata or any(name.endswith(".alpha") for name in tensors)
    if it.format == "diffusers" and not told and len(set(it.ranks.values())) > 1:
        why = "ranks differ and no alpha is told: older releases scale all by the rank that comes first"
        yield str(it.stored.file), why, it.convert("diffusers")


def alphas(it: Candidate) -> Iterator[Fault]:
    """Alphas of which diffusers makes another scale."""
    tensors = it.stored.tensors
    names = [name for name in tensors if name.endswith(".alpha")]
    values = set(tensors.numbers(names).values()) if it.format == "kohya" else set()
    modules = sum(name.endswith(".lora_down.weight") for name in tensors)
    if len(values) > 1 or 0 in values or (values and len(names) < modules):
        why = "alphas differ, lack or are 0, of which diffusers 0.42 makes another scale"
        yield names[0], why, it.convert("diffusers")


def names(it: Candidate) -> Iterator[Fault]:
    """Names of kohya's that diffusers takes for others."""
    modules = sorted({name.partition(".")[0] for name in it.stored.tensors}) if it.format == "kohya" else []
    for module in modules:
        if module.startswith("lora_unet_add_embedding_linear_"):
            why = "diffusers 0.42 takes it for add.embedding.linear, which is not there, and goes on without"
            yield module, why, it.convert("diffusers")
    if any(module.startswith(_OF_A_TRANSFORMER) for module in modules):
        return  # whose text encoders are read by other code
    for encoder in ("lora_te_", "lora_te1_", "lora_te2_"):
        attention = [module for module in modules if module.startswith(encoder) and "_self_attn_" in module]
        if attention and not any(module.endswith("_out_proj") for module in attention):
            why = "of a text encoder's attention without any out_proj diffusers 0.42 reads nothing"
            yield attention[0], why, it.convert("diffusers")


def products(it: Candidate) -> Iterator[Fault]:
    """Factors of other products than b @ a."""
    if other := [name for name in it.stored.tensors if "lora_mid" in name or "hada_" in name]:
        yield other[0], "diffusers reads no Tucker cores and no LoHa", it.convert("diffusers")

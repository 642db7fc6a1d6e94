"""The scale that an `.alpha` beside two factors stands for, as the trainers of diffusion LoRAs write it."""

from collections.abc import Mapping

from pamctl.adapters.formats.pairing import LEAST_SCALE, MOST_SCALE
from pamctl.adapters.tensor_file import TensorFile
from pamctl.refusal import Refusal


def alpha_scales(
    tensors: TensorFile, alphas: Mapping[str, str], factors: Mapping[str, str]
) -> dict[str, float]:
    """The scale of each module: alpha / rank; 1 where there is no alpha, or where it is 0.

    The trainers take a network alpha of 0 for "as the rank". A negative one subtracts, as it does for them.

    Args:
        alphas: module -> the name of its alpha, where there is one.
        factors: module -> the name of its first factor, (rank, ...).

    Raises:
        Refusal: an alpha that is not one finite number, or gives a scale that float32 does not hold.
    """
    found = tensors.numbers(alphas.values())
    scales = dict.fromkeys(factors, 1.0)
    for module, name in alphas.items():
        shape = tensors[factors[module]].shape
        if not found[name] or not shape or not shape[0]:
            continue
        scales[module] = found[name] / shape[0]
        if not LEAST_SCALE <= abs(scales[module]) <= MOST_SCALE:
            raise Refusal(f"{tensors.path}: {name} is {found[name]:g}", "take an undamaged file")
    return scales


def without_alpha(without: int, modules: int) -> tuple[str, ...]:
    """The note that some modules have no alpha, if any has none."""
    if not without:
        return ()
    return (f"{without} of {modules} modules have no alpha: their scale is 1, as the trainers take it",)


def named_base(metadata: Mapping[str, str]) -> str | None:
    """The base model as the trainers name it in a file's metadata, such as `sdxl_base_v1-0`."""
    for field in ("ss_base_model_version", "modelspec.architecture"):
        if (name := metadata.get(field, "").strip()) not in ("", "None"):
            return name
    return None

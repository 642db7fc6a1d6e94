"""Which path in a UNet of diffusers a path in the same UNet as its authors published it (SGM's layout) is."""

from collections.abc import Collection
from functools import cache

from pamctl.adapters.flattening import flattened

# The UNets that are published so, all with two resnets a level on the way down and three on the way up: how
# many transformer blocks each attention of a level has, 0 where it has no attention, and that of the middle.
_DEPTHS = {
    "Stable Diffusion 1 and 2": ((1, 1, 1, 0), 1),
    "SDXL": ((0, 2, 10), 10),
    "SDXL refiner": ((0, 4, 4, 0), 4),
}
_LISTS = ("input_blocks", "middle_block", "output_blocks")
_RESNETS = 2

_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.2": "conv_out",
}
_OF_SDXL = {"label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2"}
_OF_A_RESNET = {
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_OF_A_TRANSFORMER_BLOCK = (
    *(
        f"{attention}.{name}"
        for attention in ("attn1", "attn2")
        for name in ("to_q", "to_k", "to_v", "to_out.0")
    ),
    "ff.net.0.proj",
    "ff.net.2",
)


def diffusers_paths(paths: Collection[str]) -> dict[str, str]:
    """The path in diffusers' UNet of each of an adapter's paths in SGM's, dotted or flattened as they are.

    They are read together: none is renamed unless one of the published UNets has every one of them, under
    one name or the other. Which one it is, they need not tell: all have the same names for what they share.

    Args:
        paths: all those of the adapter's denoiser, without a prefix: `input_blocks.4.1.proj_in`, or
            `input_blocks_4_1_proj_in`.

    Returns:
        path -> path, of those alone that change.

    The layout is that of `openaimodel.py` in Stability-AI/generative-models, and the correspondence that of
    `convert_ldm_unet_checkpoint` in diffusers 0.42.
    """
    if not any(path.startswith(_LISTS) for path in paths):
        return {}
    for table, known in map(_names, _DEPTHS):
        if known.issuperset(paths):
            return {path: table[path] for path in paths if path in table}
    return {}


@cache
def _names(unet: str) -> tuple[dict[str, str], frozenset[str]]:
    """The table of a UNet, dotted and flattened, and every name in it on either side."""
    table = sgm_table(unet)
    table |= {flattened(path): flattened(other) for path, other in table.items()}
    return table, frozenset(table) | frozenset(table.values())


def sgm_table(unet: str) -> dict[str, str]:
    """SGM's path -> diffusers' of every linear and convolution in one of the published UNets.

    Every resnet has a shortcut here; in the model, only where the number of channels changes.
    """
    depths, middle = _DEPTHS[unet]
    last = len(depths) - 1
    table = _ENDS | (_OF_SDXL if "SDXL" in unet else {})
    table |= _resnet("middle_block.0", "mid_block.resnets.0")
    table |= _attention("middle_block.1", "mid_block.attentions.0", middle)
    table |= _resnet("middle_block.2", "mid_block.resnets.1")
    for level, depth in enumerate(depths):
        down, up = f"down_blocks.{level}", f"up_blocks.{last - level}"
        first = 1 + level * (_RESNETS + 1)  # after the block that is conv_in
        table |= _level("input_blocks", first, down, _RESNETS, depth)
        if level < last:
            table[f"input_blocks.{first + _RESNETS}.0.op"] = f"{down}.downsamplers.0.conv"
        first = (last - level) * (_RESNETS + 1)
        table |= _level("output_blocks", first, up, _RESNETS + 1, depth)
        if level > 0:
            place = 2 if depth else 1  # after the resnet and the attention
            table[f"output_blocks.{first + _RESNETS}.{place}.conv"] = f"{up}.upsamplers.0.conv"
    return table


def _level(blocks: str, first: int, level: str, resnets: int, depth: int) -> dict[str, str]:
    """A level's resnets with the attention after each, which SGM numbers through all levels."""
    table: dict[str, str] = {}
    for index in range(resnets):
        block = f"{blocks}.{first + index}"
        table |= _resnet(f"{block}.0", f"{level}.resnets.{index}")
        table |= _attention(f"{block}.1", f"{level}.attentions.{index}", depth)
    return table


def _resnet(sgm: str, diffusers: str) -> dict[str, str]:
    return {f"{sgm}.{name}": f"{diffusers}.{other}" for name, other in _OF_A_RESNET.items()}


def _attention(sgm: str, diffusers: str, depth: int) -> dict[str, str]:
    """An attention of some transformer blocks; none where the depth is 0."""
    blocks = [
        f"transformer_blocks.{index}.{name}" for index in range(depth) for name in _OF_A_TRANSFORMER_BLOCK
    ]
    return {f"{sgm}.{name}": f"{diffusers}.{name}" for name in ("proj_in", *blocks, "proj_out") if depth}

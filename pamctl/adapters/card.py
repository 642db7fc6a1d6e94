"""The model card of a written adapter: what it is, how it was made, how to load it, as the Hub shows it."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.module_names import tower
from pamctl.adapters.provenance import Parent, Provenance, public_name
from pamctl.hub import is_repository_name

FILE_NAME = "README.md"
_LIBRARIES = {
    "peft": "peft",
    "diffusers": "diffusers",
    "kohya": "diffusers",
    "mlx": "mlx",
    "orbax": "pamctl",
    "experts": "pamctl",
}
_VISION_LANGUAGE = ("language_model.", "vision_tower.", "visual.", "multi_modal_projector")
_UNET = re.compile(r"(down_blocks|mid_block|up_blocks)[._].*attn2")
_LONGEST = 500
_NAMES = "`ORG/NAME` is this repository, or a local folder"

_PEFT = """\
```python
from peft import PeftModel
from transformers import {model_class}

model = {model_class}.from_pretrained("{base}")
model = PeftModel.from_pretrained(model, "ORG/NAME")
```
"""
_DIFFUSERS = """\
```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("{base}")
pipeline.load_lora_weights("ORG/NAME")
```
"""
_MLX = """\
```bash
hf download ORG/NAME --local-dir adapter
{program}.generate --model {base} --adapter-path adapter --prompt "..."
```
"""
_PAMCTL = """\
```bash
pamctl convert ORG/NAME -o adapter --format peft
```
"""
_EXPERTS = """\
Only pamctl reads it: each token's update is its own mixture of the experts, which plain LoRA cannot hold.

```bash
pamctl eval ORG/NAME --task TASK
pamctl train-task TASK --global ORG/NAME --method moelora -o next
```
"""
_LOADING = {"peft": _PEFT, "diffusers": _DIFFUSERS, "mlx": _MLX, "pamctl": _PAMCTL}
_MODEL_CLASSES = {
    "image-text-to-text": "AutoModelForImageTextToText",
    "text-generation": "AutoModelForCausalLM",
}


def card(adapter: Adapter, format: str) -> str:
    """The README.md of an adapter written in a format. It holds no times and no paths.

    Text that comes from outside stands in it only as code, so that it can break neither YAML nor Markdown.

    Args:
        format: a name in `pamctl.adapters.formats.FORMATS`, or `experts`.
    """
    base = adapter.base.name if adapter.base else None
    hub_base = base if base and is_repository_name(base) else None
    pipeline = _pipeline(adapter)
    recipe = adapter.provenance
    library = _library(format, pipeline)
    parts = [
        _front_matter(hub_base, library, pipeline, _kind_tags(adapter)),
        f"# {_title(adapter)} for {code(public_name(base))}\n" if base else f"# {_title(adapter)}\n",
        "\n".join(_facts(adapter, format, base)) + "\n",
        "" if recipe is None else "## Recipe\n\n" + "\n".join(_recipe(recipe)) + "\n",
        _loading_experts() if adapter.routers else _loading(hub_base, library, pipeline),
    ]
    return "\n".join(part for part in parts if part)


def code(text: str) -> str:
    """Any text as code in Markdown, on one line, with no character that does not print."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    line = line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    padding = " " if line.startswith("`") or line.endswith("`") or not line.strip() else ""
    return f"{fence}{padding}{line}{padding}{fence}"


def _title(adapter: Adapter) -> str:
    return "Mixture of LoRA experts" if adapter.routers else "LoRA adapter"


def _kind_tags(adapter: Adapter) -> list[str]:
    merged = adapter.provenance is not None and adapter.provenance.kind == "merged"
    return [*([] if adapter.routers else ["lora"]), *(["merge"] if merged else [])]


def _front_matter(base: str | None, library: str, pipeline: str | None, kinds: Sequence[str]) -> str:
    lines = [f"base_model: {base}", "base_model_relation: adapter"] if base else []
    lines.append(f"library_name: {library}")
    if pipeline:
        lines.append(f"pipeline_tag: {pipeline}")
    tags = [*kinds, "pamctl"]
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in tags), "---", ""])


def _facts(adapter: Adapter, format: str, base: str | None) -> Iterator[str]:
    if base:
        known = f", fingerprint {code(adapter.base_fingerprint)}" if adapter.base_fingerprint else ""
        yield f"- base model: {code(public_name(base))}{known}"
    towers = Counter(tower(module) for module in adapter.shapes)
    each = ", ".join(f"{count} {name}" for name, count in sorted(towers.items()))
    yield f"- modules: {len(adapter.shapes)} ({each})"
    ranks = sorted({shape.rank for shape in adapter.shapes.values()})
    yield f"- rank: {ranks[0]}" if len(ranks) == 1 else f"- rank: up to {adapter.rank}"
    if adapter.routers:
        yield f"- experts: {adapter.experts}, which share the rank, and a router in each module"
    yield f"- numbers: {adapter.parameters:,}"
    if adapter.extras:
        yield f"- tensors that are no LoRA factors: {len(adapter.extras)}"
    yield f"- format: {format}"


def _recipe(recipe: Provenance) -> Iterator[str]:
    yield f"- kind: {recipe.kind}"
    if recipe.method:
        yield f"- method: {code(recipe.method)}"
    for name, value in sorted(recipe.parameters.items()):
        yield f"- {code(name)}: {code(json.dumps(value, sort_keys=True, ensure_ascii=False))}"
    if recipe.seed is not None:
        yield f"- seed: {recipe.seed}"
    if recipe.tasks:
        yield f"- tasks: {', '.join(code(task) for task in recipe.tasks)}"
    for number, parent in enumerate(recipe.parents, 1):
        yield f"- parent {number}: {_parent(parent)}"
    for name, version in sorted(recipe.versions.items()):
        yield f"- made with {code(name)}: {code(version)}"
    yield "- the whole record is in `pamctl.json`, or in the metadata of a single file"


def _parent(parent: Parent) -> str:
    place = f"/{parent.path}" if parent.path else ""
    where = f"{code(parent.name + place)}, " if parent.name else ""
    commit = f"commit {code(parent.commit)}, " if parent.commit else ""
    return f"{where}{commit}fingerprint {code(parent.fingerprint)}"


def _loading(base: str | None, library: str, pipeline: str | None) -> str:
    how = _LOADING[library].format(
        base=base or "BASE",
        model_class=_MODEL_CLASSES.get(pipeline or "", "AutoModel"),
        program="mlx_vlm" if pipeline == "image-text-to-text" else "mlx_lm",
    )
    names = _NAMES + ("." if base else "; `BASE` the base model.")
    commands = ["pamctl inspect ORG/NAME", "pamctl merge ORG/NAME OTHER -o merged"]
    if pipeline == "image-text-to-text":
        commands.append("pamctl train-task TASK --global ORG/NAME -o next")
    with_pamctl = "\n".join(["```bash", *commands, "```", ""])
    return f"## How to load it\n\n{names}\n\n{how}\nWith pamctl:\n\n{with_pamctl}"


def _loading_experts() -> str:
    return f"## How to load it\n\n{_NAMES}.\n\n{_EXPERTS}"


def _library(format: str, pipeline: str | None) -> str:
    """The library that loads the files as they are: a language model in kohya's spelling, none but pamctl."""
    library = _LIBRARIES[format]
    return "pamctl" if library == "diffusers" and pipeline in _MODEL_CLASSES else library


def _pipeline(adapter: Adapter) -> str | None:
    """The Hub's name for what the base does, where the modules or the task type tell."""
    if any(module.startswith(_VISION_LANGUAGE) for module in adapter.shapes):
        return "image-text-to-text"
    if any(_UNET.match(module) for module in adapter.shapes):
        return "text-to-image"
    said = adapter.origin.settings.get("task_type") if adapter.origin else None
    text = said == "CAUSAL_LM" or any(tower(module) == "language_model" for module in adapter.shapes)
    return "text-generation" if text else None

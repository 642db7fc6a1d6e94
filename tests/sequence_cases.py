"""A sequence that trains in seconds, as a file with its tasks and base."""

from pathlib import Path

from tests.training_cases import write_base, write_task

WEIGHTS = "adapter_model.safetensors"
TASKS = ("colours", "shapes", "sizes")
TWO_ORDERS = 'one = ["colours", "shapes"]\ntwo = ["shapes", "colours"]'
SETTINGS = "steps = 6\nbatch_size = 4\nlr = 0.5\nalign_every = 2"


def write_inputs(folder: Path) -> Path:
    """The folder with a base and three tasks."""
    write_base(folder / "base")
    for seed, name in enumerate(TASKS):
        write_task(folder / name, name, seed)
    return folder


def write_sequence(
    folder: Path,
    methods: str = '["average", "pam"]',
    orders: str = 'one = ["colours", "shapes"]',
    more: str = "",
    settings: str = SETTINGS,
) -> Path:
    """A sequence file beside these inputs; each task is told by its path."""
    paths = "\n".join(f'{name} = {{ path = "{name}/{name}.jsonl" }}' for name in TASKS if name in orders)
    file = folder / "sequence.toml"
    file.write_text(
        f'base = "{folder / "base"}"\nmethods = {methods}\n{more}\n'
        f"[orders]\n{orders}\n[settings]\n{settings}\n[tasks]\n{paths}\n"
    )
    return file


def based_on(inputs: Path, file: Path) -> Path:
    """A sequence file that lies elsewhere than its base."""
    text = file.read_text()
    file.write_text(text.replace(f'"{file.parent / "base"}"', f'"{inputs / "base"}"'))
    return file


def adapters(folder: Path) -> dict[str, bytes]:
    """The bytes of every adapter in a folder, by path."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob(WEIGHTS)}


def results(folder: Path) -> list[str]:
    """The results of a run, whatever their order."""
    return sorted((folder / "results.jsonl").read_text().splitlines())


def predictions(folder: Path) -> list[str]:
    """The predictions that a run keeps, whatever their order."""
    return sorted((folder / "predictions.jsonl").read_text().splitlines())

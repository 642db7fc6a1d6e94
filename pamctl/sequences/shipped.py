"""The sequence files that come with the package, by name."""

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "assets" / "sequences"


def names() -> list[str]:
    """Their names, as `pamctl run` takes them."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def file_named(reference: str) -> Path | None:
    """The shipped file of that name, None where there is none."""
    return FOLDER / f"{reference}.toml" if reference in names() else None

"""How a number of things is told: 1 task, 2 tasks."""


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """The number with its noun; `plural` is for one that takes more than an s."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"

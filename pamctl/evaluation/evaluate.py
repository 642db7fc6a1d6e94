"""How an adapter answers: every example of a split decoded greedily, and each answer scored."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import jax
import numpy as np

from pamctl.distributed import gathered
from pamctl.evaluation.predictions import Prediction
from pamctl.evaluation.scoring import scored
from pamctl.models.base import Base
from pamctl.models.decoding import greedy
from pamctl.models.lora import adapts_vision
from pamctl.models.paligemma import Lora, image_features
from pamctl.models.text import bucket
from pamctl.refusal import UsageRefusal
from pamctl.tasks.task import Example, Task
from pamctl.training.batches import load_pixels
from pamctl.training.prefetching import made_ahead

BATCH_SIZE = 64
FEW = 8


def evaluate(
    base: Base,
    lora: Lora,
    scale: float,
    task: Task,
    split: str = "test",
    limit: int | None = None,
    max_new_tokens: int | None = None,
    features: np.ndarray | None = None,
    *,
    batch_size: int = BATCH_SIZE,
    on_examples: Callable[[int], None] | None = None,
) -> list[Prediction]:
    """Predict and score the examples of a split, in their order.

    Args:
        limit: only the first so many examples.
        max_new_tokens: most tokens of an answer; None takes the task's.
        features: (examples, n, d) of the frozen vision tower, from `image_features_of`, for several adapters
            to share; refused for a lora that changes what the tower sees.
        on_examples: told after each batch how many examples are done.

    Raises:
        Refusal: an image cannot be read, or the split is absent or empty.
    """
    examples = task.split(split)[:limit]
    if features is not None and adapts_vision(lora):
        raise UsageRefusal(
            "the lora adapts the vision tower, so features of the frozen one are not its own", "pass none"
        )
    prefixes = [base.tokenizer.encode_prefix(example.prefix) for example in examples]
    longest = task.max_new_tokens if max_new_tokens is None else max_new_tokens
    answers: dict[int, str] = {}
    groups = list(_batches(prefixes, batch_size))
    # Rows repeat up to a full batch, because every new shape is a new compilation.
    devices = base.devices
    rows_at_once = min(batch_size, len(examples) if len(examples) < FEW else bucket(len(examples)))
    size = -(-rows_at_once // devices.mesh.size) * devices.mesh.size
    mine = devices.local_rows(size)

    def inputs(number: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        rows = np.resize(groups[number], size)
        tokens, lengths = _padded([prefixes[row] for row in rows], base.config.pad_token_id)
        seen = _images(base, examples, rows[mine]) if features is None else features[rows[mine]]
        batch: tuple[jax.Array, jax.Array, jax.Array] = devices.put_batch((seen, tokens[mine], lengths[mine]))
        return batch

    with closing(made_ahead(inputs, range(len(groups)))) as batches:
        for rows, (seen, tokens, lengths) in zip(groups, batches, strict=True):
            if features is None:
                seen = image_features(base.config, base.parameters, lora, scale, seen)
            decoded = gathered(
                greedy(
                    base.config, base.parameters, lora, scale, seen, tokens, lengths, max_new_tokens=longest
                )
            )
            answers |= {row: base.tokenizer.decode(ids) for row, ids in zip(rows, decoded, strict=False)}
            if on_examples:
                on_examples(len(answers))
    return scored(task, split, examples, [answers[row] for row in range(len(examples))])


def _batches(prefixes: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Row numbers by length, so that short prompts are not padded to the longest."""
    rows = sorted(range(len(prefixes)), key=lambda row: len(prefixes[row]))
    for first in range(0, len(rows), batch_size):
        yield rows[first : first + batch_size]


def _images(base: Base, examples: Sequence[Example], rows: np.ndarray) -> np.ndarray:
    """The pixels of some examples, each read once though it may stand in several rows."""
    once, places = np.unique(rows, return_inverse=True)
    return load_pixels(base, [examples[row] for row in once])[places]


def _padded(prefixes: Sequence[Sequence[int]], pad: int) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(prefix) for prefix in prefixes], np.int32)
    tokens = np.full((len(prefixes), bucket(int(lengths.max()))), pad, np.int32)
    for row, prefix in enumerate(prefixes):
        tokens[row, : len(prefix)] = prefix
    return tokens, lengths

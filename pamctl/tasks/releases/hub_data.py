"""Tables of the Hub, or of parquet files, loaded by Hugging Face's `datasets`.

What is loaded stays in the cache of that library. HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean what
they mean to every Hugging Face program.
"""

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from pamctl.hub.refusals import refuse_bad_endpoint, without_tokens
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks.releases.table import Table

EXTRA = "pip install 'pamctl[hub-data]'"


def hub_table(dataset: str, config: str | None, revision: str | None, split: str) -> Table:
    """A split of a set of data on the Hub; all of its splits are downloaded, once.

    Raises:
        Refusal: it cannot be had, or `datasets` is not installed.
        UsageRefusal: it has no such split.
    """
    builder = _on_hub(dataset, config, revision)
    with _told(dataset):
        _prepare(builder)
        rows = builder.as_dataset(split=_known(split, list(builder.info.splits), dataset))
    return Table(f"{dataset} {split}", rows.with_format("arrow"))


def commit_of(dataset: str, config: str | None, revision: str | None) -> str:
    """The commit that a branch or tag stands for now."""
    return str(_on_hub(dataset, config, revision).hash)


def parquet_table(files: Mapping[str, Sequence[Path]], split: str, place: str) -> Table:
    """A split of parquet files on disk, given those of every split."""
    paths = [str(path) for path in files[_known(split, list(files), place)]]
    with _told(place):
        from datasets import load_dataset_builder

        builder = load_dataset_builder("parquet", data_files={split: paths})
        _prepare(builder)
        rows = builder.as_dataset(split=split)
    return Table(f"{place} {split}", rows.with_format("arrow"))


@cache
def _on_hub(dataset: str, config: str | None, revision: str | None) -> Any:
    refuse_bad_endpoint()
    with _told(dataset):
        from datasets import load_dataset_builder

        return load_dataset_builder(dataset, config, revision=revision)


def _known(split: str, splits: Sequence[str], place: str) -> str:
    if split not in splits:
        raise UsageRefusal(
            f"{place} has no split {split!r}",
            f"tell in [splits] which of its own are train and test: {', '.join(splits)}",
        )
    return split


def _prepare(builder: Any) -> None:
    """Download what is not in the cache, with bars on a terminal alone."""
    import datasets

    hides = not sys.stderr.isatty() and not datasets.are_progress_bars_disabled()
    if hides:
        datasets.disable_progress_bars()
    try:
        builder.download_and_prepare()
    finally:
        if hides:
            datasets.enable_progress_bars()


@contextmanager
def _told(place: str) -> Iterator[None]:
    """Turn the faults of `datasets` into two lines."""
    try:
        from datasets.exceptions import DatasetGenerationError, DatasetsError
    except ImportError as fault:
        raise Refusal(f"{place} needs the library datasets, which is not installed", EXTRA) from fault
    from huggingface_hub.errors import HTTPError

    try:
        with _errors_once():
            yield
    except ConnectionError as fault:
        raise Refusal(
            f"{place}: {without_tokens(fault)}", "check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
        ) from fault
    except (DatasetsError, HTTPError, OSError, ValueError, RuntimeError) as fault:
        # A fault of generation says only that there is one.
        said = fault.__cause__ or fault if isinstance(fault, DatasetGenerationError) else fault
        raise Refusal(
            f"{place}: {without_tokens(said)}",
            "check dataset, config, revision and files; for what is private run hf auth login",
        ) from fault


@contextmanager
def _errors_once() -> Iterator[None]:
    """Keep `datasets` from logging the errors that it raises; what it warns of is still told."""
    handlers = [*logging.getLogger("datasets").handlers]

    def passes(record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR

    for handler in handlers:
        handler.addFilter(passes)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(passes)

"""Times `pamctl report` on a large made-up run, and measures its memory and its page (--help: options).

python tests/bench/report.py
python tests/bench/report.py --keep big   (leaves the run and its report in a folder)
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from pamctl.training.methods import METHODS, Method

LEARN_IN_TURN = [method for method in METHODS.values() if method.continues]
LAYERS = 18
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ANSWERS = ("yes", "no", "two", "red", "left")
EXAMPLES = 8
"""Predictions of each state on each task, as `pamctl run` keeps them."""


@dataclass(frozen=True)
class Size:
    """How large a run is; `steps` of each training are logged."""

    tasks: int = 10
    orders: int = 3
    seeds: int = 5
    methods: int = 12
    steps: int = 100


@dataclass(frozen=True)
class State:
    """An adapter on the way of one sequence."""

    method: str
    stage: str
    learned: tuple[str, ...]
    adapter: str
    parents: tuple[str, ...]
    seed: int | None
    order: str


def write_run(folder: Path, size: Size) -> list[Path]:
    """Write what `pamctl run` leaves of a run of that size, but for adapters; returns its tasks' files."""
    names = [f"task-{number:02d}" for number in range(1, size.tasks + 1)]
    draws = np.random.default_rng(0)
    orders = {f"order-{number}": tuple(draws.permutation(names)) for number in range(1, size.orders + 1)}
    known: set[str] = set()
    """Adapters that are written: methods share the first task of an order and seed."""
    folder.mkdir(parents=True)
    with (
        (folder / "results.jsonl").open("w") as results,
        (folder / "predictions.jsonl").open("w") as predictions,
        (folder / "diagnostics.jsonl").open("w") as diagnostics,
    ):
        base = State("", "base", (), "", (), None, "")
        _score(base, names, [20.0] * size.tasks, results, predictions)
        for method, (order, tasks), seed in product(
            LEARN_IN_TURN[: size.methods], orders.items(), range(size.seeds)
        ):
            for state, scores, evaluated in _sequence(method, order, tuple(map(str, tasks)), seed, draws):
                if state.adapter in known:
                    continue
                known.add(state.adapter)
                _score(state, evaluated, scores, results, predictions)
                if state.stage == "trained":
                    _write_log(folder, method, state, seed, size.steps, draws)
                if len(state.learned) > 1 and state.stage == "trained":
                    diagnostics.write(json.dumps(_diagnosis(method, state, seed, draws)) + "\n")
    return [_write_task(folder.parent / "tasks" / name, name) for name in names]


def _sequence(
    method: Method, order: str, tasks: tuple[str, ...], seed: int, draws: np.random.Generator
) -> Iterator[tuple[State, list[float], list[str]]]:
    """Every state of a sequence with its scores: what was learned is lost bit by bit."""
    merge = method.merge and str(method.merge["method"])
    lost, before = draws.uniform(1, 5) if merge else draws.uniform(3, 9), ""
    for t, task in enumerate(tasks):
        learned = tasks[: t + 1]
        name = method.name if t else "finetune"
        place = f"{order}/{seed}/{method.name if t else 'first'}/{t}"
        trained = State(name, "trained", learned, _digest(f"{place}/t"), (before,) * bool(t), seed, order)
        expected = [75 - lost * (t - i) if i <= t else 25 for i in range(len(tasks))]
        noisy = np.clip(expected + draws.normal(0, 2, len(tasks)), 0, 90)
        scores = [float(score) for score in noisy.round(2)]
        if not (merge and t):
            yield trained, scores, list(tasks)
            before = trained.adapter
            continue
        yield trained, [scores[t] + 8], [task]
        adapter = _digest(f"{place}/m")
        yield (
            State(merge, "merged", learned, adapter, (before, trained.adapter), None, order),
            scores,
            list(tasks),
        )
        before = adapter


def _score(
    state: State, tasks: Sequence[str], scores: Sequence[float], results: Any, predictions: Any
) -> None:
    place: dict[str, Any] = {
        "stage": state.stage,
        "tasks": state.learned,
        "adapter": state.adapter or None,
        "parents": state.parents,
        "base": _digest("base"),
        "method": state.method or None,
        "seed": state.seed,
        "order": state.order or None,
        "run": None,
    }
    common = {"split": "test", "metric": "exact", **place}
    for task, score in zip(tasks, scores, strict=True):
        result = {"schema": "pamctl.result/1", "task": task, "score": score, "n": 400, "examples": "0" * 16}
        results.write(json.dumps(result | common | {"types": None, "unread": None}) + "\n")
        for number in range(EXAMPLES):
            right = (number + 0.5) / EXAMPLES < score / 100
            gold = ANSWERS[number % len(ANSWERS)]
            answer = {
                "schema": "pamctl.prediction/1",
                "task": task,
                "id": f"{task}-{number}",
                "prefix": f"answer en what is shown in picture {number} of {task}?",
                "prediction": gold if right else "unanswerable",
                "answers": [gold],
                "score": 100.0 * right,
                "type": None,
            }
            predictions.write(json.dumps(answer | common) + "\n")


def _diagnosis(method: Method, state: State, seed: int, draws: np.random.Generator) -> dict[str, Any]:
    level = 1.5 * len(method.name) if method.aligns else 22.0 + len(method.name)
    modules = {}
    for layer, module in product(range(LAYERS), MODULES):
        important, conflicts = 32000, int(320 * max(0.0, level + layer / 3 + draws.normal(0, 1)))
        counts = {"weights": 65536, "differ": conflicts * 2, "important": important, "conflicts": conflicts}
        modules[f"language_model.layers.{layer}.self_attn.{module}"] = {"a": counts, "b": counts}
    return {
        "schema": "pamctl.diagnostics/1",
        "order": state.order,
        "seed": seed,
        "system": method.name,
        "task": state.learned[-1],
        "top_p": 50.0,
        "scope": "global",
        "conflicts": {"important": {"modules": modules}, "all": {"modules": modules}},
    }


def _write_log(
    folder: Path, method: Method, state: State, seed: int, steps: int, draws: np.random.Generator
) -> None:
    count, task = len(state.learned), state.learned[-1]
    system = method.name if count > 1 else "first"
    out = folder / state.order / f"seed-{seed}" / system / f"{count}-{task}" / "trained"
    if out.exists():
        return
    out.mkdir(parents=True)
    start = {"event": "start", "schema": "pamctl.training/1", "task": task, "method": state.method}
    lines = [
        json.dumps(start | {"global_adapter": state.parents[0] if state.parents else None, "seed": seed})
    ]
    speed = 0.1 + 0.02 * len(system)
    losses = 3 * np.exp(-np.arange(steps) / (speed * steps)) + 0.3 + draws.uniform(0, 0.2, steps)
    lines += [
        json.dumps({"event": "step", "step": step, "loss": round(float(loss), 6), "learning_rate": 5e-4})
        for step, loss in enumerate(losses, start=1)
    ]
    (out / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def _write_task(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True)
    draws = np.random.default_rng(len(name))
    lines = []
    for number in range(EXAMPLES):
        pixels = draws.integers(0, 256, (14, 14, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((224, 224)).save(folder / f"{number}.png")
        answer = ANSWERS[number % len(ANSWERS)]
        told = {"image": f"{number}.png", "question": f"what is picture {number}?", "answer": answer}
        lines.append(json.dumps(told | {"id": f"{name}-{number}", "split": "test"}))
    file = folder / f"{name}.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def measured(run: Path, tasks: Sequence[Path], out: Path) -> tuple[float, float, float]:
    """Seconds, seconds of a processor, and peak megabytes of `pamctl report` as a process of its own."""
    named = [word for task in tasks for word in ("--task", str(task))]
    started = time.perf_counter()
    arguments = [sys.executable, "-m", "pamctl", "report", str(run), "-o", str(out), *named]
    with Path(os.devnull).open("w") as nowhere:
        child = os.posix_spawn(
            sys.executable,
            arguments,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, nowhere.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, nowhere.fileno(), 2),
            ],
        )
        _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"pamctl report left with {os.waitstatus_to_exitcode(status)}")
    seconds = time.perf_counter() - started
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Write the run, report on it twice, print what that took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in vars(Size()).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a folder for the run and its report")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    size = Size(**{name: getattr(options, name) for name in vars(Size())})
    with tempfile.TemporaryDirectory() as folder:
        place = options.keep or Path(folder)
        tasks = write_run(place / "run", size)
        found = [measured(place / "run", tasks, place / name) for name in ("report", "again")]
        read = sum(file.stat().st_size for file in (place / "run").rglob("*.jsonl"))
        pages = [(place / name / "index.html").read_bytes() for name in ("report", "again")]
    numbers = {
        "read_megabytes": read / 1e6,
        "seconds": [seconds for seconds, _, _ in found],
        "processor_seconds": [seconds for _, seconds, _ in found],
        "peak_megabytes": max(peak for _, _, peak in found),
        "page_megabytes": len(pages[0]) / 1e6,
        "same_bytes": pages[0] == pages[1],
    }
    if options.json:
        print(json.dumps(numbers))
        return
    print(f"{size}: {read / 1e6:.0f} MB read")
    print(f"seconds: {', '.join(f'{seconds:.1f}' for seconds, _, _ in found)} (20 asked)")
    print(f"of a processor: {', '.join(f'{seconds:.1f}' for _, seconds, _ in found)}")
    print(f"peak memory: {numbers['peak_megabytes']:.0f} MB")
    print(
        f"index.html: {numbers['page_megabytes']:.2f} MB (3 asked), same bytes again: {pages[0] == pages[1]}"
    )


if __name__ == "__main__":
    main()

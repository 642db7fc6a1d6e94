"""Mutated adapters of every format: each is refused or read whole, never another error, a gigabyte or a hang.

python tests/bench/mutated_files.py --count 200000 --seed 0
"""

import argparse
import contextlib
import io
import json
import math
import multiprocessing
import os
import random
import re
import shutil
import signal
import struct
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load

sys.path.insert(0, str(Path(__file__).parents[2]))

from pamctl.adapters import Adapter, open_adapter, save_adapter
from pamctl.adapters.formats import FORMATS
from pamctl.refusal import Refusal
from tests.adapter_cases import random_adapter
from tests.pickle_cases import write_torch

MOST_SECONDS = 5
MOST_MEMORY = 1 << 30
Files = dict[str, bytes]
Read = Mapping[str, tuple[float, bytes, bytes]]

EXTREMES: list[Any] = [
    *(0, -1, 1, 2, 3, 8, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**400, True, None),
    *(0.5, 1e-320, 1e308, -0.0, float("nan"), float("inf"), float("-inf")),
    *(
        "",
        "a" * 1000,
        "\0",
        "\x1b[31m",
        "../../x",
        ".*",
        "(" * 50,
        "(a+)+$",
        "F16",
        "BF16",
        "I64",
        "F4",
        "lora_A",
    ),
    *([], {}, [[]], [0] * 20, {"a": {}}, [1, [2, [3]]]),
]


class TooSlow(BaseException):
    """Processor time ran out; no code under test can catch it by accident."""


@dataclass(frozen=True)
class Seed:
    """A valid adapter as files of one folder, and what it is when read."""

    name: str
    files: Files
    reference: str
    modules: "Read"


@dataclass(frozen=True)
class Outcome:
    """What became of one mutated adapter; `fault` is empty where that is as it should be."""

    case: str
    refused: bool
    fault: str = ""


def seeds(folder: Path) -> list[Seed]:
    """One adapter in every format that pamctl writes, as experts, with patterns, and that as a pickle."""
    adapter = random_adapter(3, rank=2, scale=2.0)
    for format in FORMATS:
        single = format in ("kohya", "diffusers")
        path = folder / format / ("lora.safetensors" if single else "")
        (path.parent if single else path).mkdir(parents=True)
        save_adapter(adapter, path, format)
    (folder / "experts").mkdir()
    routers = {module: np.ones((2, shape.inputs), np.float32) for module, shape in adapter.shapes.items()}
    save_adapter(Adapter(adapter.modules, routers=routers), folder / "experts")
    patterned = shutil.copytree(folder / "peft", folder / "patterned")
    (patterned / "pamctl.json").unlink(missing_ok=True)
    config = json.loads((patterned / "adapter_config.json").read_text())
    config |= {"lora_alpha": 3, "use_rslora": True, "alpha_pattern": {r"layers\.0.*q_proj": 8, "fc1": 1}}
    (patterned / "adapter_config.json").write_text(json.dumps(config))
    pickled = shutil.copytree(patterned, folder / "pickle")
    write_torch(pickled / "adapter_model.bin", load((pickled / "adapter_model.safetensors").read_bytes()))
    (pickled / "adapter_model.safetensors").unlink()
    return [_seed(case) for case in sorted(folder.iterdir())]


def _seed(folder: Path) -> Seed:
    files = {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }
    reference = "lora.safetensors" if "lora.safetensors" in files else ""
    opened = open_adapter(folder / reference, allow_pickle=True, routers=True)
    return Seed(folder.name, files, reference, read_whole(opened))


def read_whole(adapter: Adapter) -> Read:
    """Every module's scale and factors, every router and extra, as bytes, each checked as it is read."""
    read: dict[str, tuple[float, bytes, bytes]] = {}
    for module, factors in adapter.modules.items():
        shape = adapter.shapes[module]
        assert factors.a.dtype == factors.b.dtype == np.float32, f"{module} is not float32"
        assert (shape.rank, shape.inputs) == factors.a.shape, f"{module} has another shape than it says"
        assert (shape.outputs, shape.rank) == factors.b.shape, f"{module} has another shape than it says"
        assert np.isfinite(factors.a).all(), f"{module} is not finite"
        assert np.isfinite(factors.b).all(), f"{module} is not finite"
        assert np.isfinite(factors.scale), f"{module} has the scale {factors.scale}"
        read[module] = (float(factors.scale), factors.a.tobytes(), factors.b.tobytes())
    for module, router in adapter.routers.items():
        assert router.shape == (adapter.experts, adapter.shapes[module].inputs), (
            f"{module} has another router"
        )
        assert np.isfinite(router).all(), f"{module} has a router that is not finite"
        read[f"router {module}"] = (1.0, router.tobytes(), b"")
    for name, extra in adapter.extras.items():
        values = extra.read()
        assert values.shape == extra.shape, f"{name} has another shape than it says"
        read[f"extra {name}"] = (1.0, values.tobytes(), b"")
    return read


def mutated(seed: Seed, rng: random.Random) -> tuple[str, Files]:
    """One file of a seed changed in one way, named."""
    name = rng.choice(sorted(seed.files))
    raw = seed.files[name]
    ways: list[Callable[[bytes, random.Random], bytes]] = [
        flip,
        insert,
        delete,
        truncate,
        splice,
        extreme_bytes,
    ]
    if name.endswith(".safetensors"):
        ways += [
            in_header(change_node),
            in_header(change_node),
            in_header(rename),
            in_header(respell),
            in_header(flip_text),
        ]
    elif name.endswith(".json"):
        ways += [in_json(change_node), in_json(change_node), in_json(rename), in_json(respell)]
    elif name.endswith(".bin"):
        ways += [in_pickle(way) for way in (flip, flip, delete, splice, extreme_bytes)]
    way = rng.choice(ways)
    return f"{name} by {way.__name__}", {**seed.files, name: way(raw, rng)}


def flip(raw: bytes, rng: random.Random) -> bytes:
    changed = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def insert(raw: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(raw) + 1)
    return raw[:at] + rng.randbytes(rng.choice((1, 2, 8, 300))) + raw[at:]


def delete(raw: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(raw) + 1)
    return raw[:at] + raw[at + rng.choice((1, 2, 4, 8, 100)) :]


def truncate(raw: bytes, rng: random.Random) -> bytes:
    return raw[: rng.randrange(len(raw) + 1)]


def splice(raw: bytes, rng: random.Random) -> bytes:
    start, to = rng.randrange(len(raw) + 1), rng.randrange(len(raw) + 1)
    length = rng.choice((1, 4, 16, 64, 500))
    return raw[:to] + raw[start : start + length] + raw[to + rng.choice((0, length)) :]


def extreme_bytes(raw: bytes, rng: random.Random) -> bytes:
    layout = rng.choice(("<B", "<H", "<I", "<Q"))
    bits = 8 * struct.calcsize(layout)
    value = struct.pack(layout, rng.choice((0, 1, 2 ** (bits - 1) - 1, 2 ** (bits - 1), 2**bits - 1)))
    at = rng.choice((0, rng.randrange(len(raw) + 1), rng.randrange(len(raw) + 1)))
    return raw[:at] + value + raw[at + len(value) :]


def in_json(change: Callable[[Any, random.Random], str]) -> Callable[[bytes, random.Random], bytes]:
    """A change of a JSON value, of which it gives the new text, as a change of a file."""

    def way(raw: bytes, rng: random.Random) -> bytes:
        return change(json.loads(raw), rng).encode("utf-8", "surrogatepass")

    way.__name__ = change.__name__
    return way


def in_header(change: Callable[[Any, random.Random], str]) -> Callable[[bytes, random.Random], bytes]:
    """The same in the header of a safetensors file, its length made right again."""

    def way(raw: bytes, rng: random.Random) -> bytes:
        (length,) = struct.unpack_from("<Q", raw)
        text = in_json(change)(raw[8 : 8 + length], rng)
        return struct.pack("<Q", len(text)) + text + raw[8 + length :]

    way.__name__ = f"header {change.__name__}"
    return way


def in_pickle(change: Callable[[bytes, random.Random], bytes]) -> Callable[[bytes, random.Random], bytes]:
    """A change of the pickle in a zip that is whole again afterwards."""

    def way(raw: bytes, rng: random.Random) -> bytes:
        written = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(written, "w") as new:
            for member in old.namelist():
                content = old.read(member)
                new.writestr(
                    zipfile.ZipInfo(member), change(content, rng) if member.endswith(".pkl") else content
                )
        return written.getvalue()

    way.__name__ = f"pickle {change.__name__}"
    return way


def change_node(value: Any, rng: random.Random) -> str:
    """Some value of the tree made another: an extreme, another node, or nothing."""
    nodes = list(_nodes(value))
    if nodes:
        parent, key = rng.choice(nodes)
        other, other_key = rng.choice(nodes)
        match rng.randrange(4):
            case 0:
                del parent[key]
            case 1:
                parent[key] = json.loads(json.dumps(other[other_key]))
            case _:
                parent[key] = rng.choice(EXTREMES)
    return json.dumps(value)


def rename(value: Any, rng: random.Random) -> str:
    """Some key of the tree changed, or standing twice."""
    tables = [value, *(parent[key] for parent, key in _nodes(value))]
    table = rng.choice([table for table in tables if isinstance(table, dict) and table])
    old = rng.choice(sorted(table))
    at = rng.randrange(len(old) + 1)
    new = rng.choice((old[:at] + rng.choice(("x", ".", "\0", "A", "")) + old[at + 1 :], old.upper(), ""))
    text = json.dumps(value)
    return text.replace(
        json.dumps(old) + ":", json.dumps(rng.choice((new, rng.choice(sorted(table))))) + ":", 1
    )


def respell(value: Any, rng: random.Random) -> str:
    """The same JSON value in another order, with other space."""
    if isinstance(value, dict):
        value = {key: value[key] for key in rng.sample(sorted(value), len(value))}
    return " " * rng.randrange(3) + json.dumps(
        value, indent=rng.choice((None, 1)), ensure_ascii=rng.random() < 0.5
    )


def flip_text(value: Any, rng: random.Random) -> str:
    text = json.dumps(value)
    at = rng.randrange(len(text))
    return text[:at] + chr(rng.randrange(32, 127)) + text[at + 1 :]


def _nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every value in a tree, as the table or list that holds it and its key there."""
    for key in sorted(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _nodes(value[key])


def meaning(files: Files) -> dict[str, Any]:
    """What the files say, apart from order and space in their JSON."""
    said: dict[str, Any] = {}
    for name, raw in files.items():
        said[name] = raw
        with contextlib.suppress(ValueError, RecursionError, struct.error):
            if name.endswith(".json"):
                said[name] = _unique(raw)
            elif name.endswith(".safetensors"):
                (length,) = struct.unpack_from("<Q", raw)
                said[name] = (_unique(raw[8 : 8 + length]), raw[8 + length :])
    return said


def _unique(raw: bytes) -> str:
    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("twice")
        return dict(pairs)

    return json.dumps(json.loads(raw, object_pairs_hook=table), sort_keys=True)


def tensors_changed(before: Files, after: Files) -> int | None:
    """How many tensors' bytes differ where nothing else does; else None."""
    changed = [name for name in before if before[name] != after[name]]
    if len(changed) != 1 or not changed[0].endswith(".safetensors"):
        return None
    old, new = before[changed[0]], after[changed[0]]
    (length,) = struct.unpack_from("<Q", old)
    start = 8 + length
    if len(old) != len(new) or old[:start] != new[:start]:
        return None
    header = json.loads(old[8:start])
    places = [fields["data_offsets"] for name, fields in header.items() if name != "__metadata__"]
    return sum(old[start + begin : start + end] != new[start + begin : start + end] for begin, end in places)


def as_peft_says(before: Files, after: Files) -> list[tuple[bytes, bytes, float]] | None:
    """Every module's factors and scale where only a PEFT config differs, by peft's own rule; else None.

    Source: peft `LoraConfig` (r and lora_alpha default to 8), `get_pattern_key`, `LoraLayer.update_layer`.
    """
    weights = "adapter_model.safetensors"
    if [name for name in before if before[name] != after[name]] != [
        "adapter_config.json"
    ] or weights not in before:
        return None
    config = json.loads(after["adapter_config.json"])
    tensors = load(before[weights])
    said = []
    for key, a in tensors.items():
        if key.endswith(".lora_A.weight"):
            path = key.removesuffix(".lora_A.weight").removeprefix("base_model.model.")
            rank = _by_pattern(config.get("rank_pattern"), path, config.get("r", 8))
            alpha = _by_pattern(config.get("alpha_pattern"), path, config.get("lora_alpha", 8))
            if rank != a.shape[0]:
                raise ValueError(f"peft would make {path} of rank {rank}, its tensors are {a.shape[0]}")
            scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
            said.append((a.tobytes(), tensors[key.replace("lora_A", "lora_B")].tobytes(), scale))
    return sorted(said)


def _by_pattern(patterns: Any, path: str, otherwise: Any) -> Any:
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", path):
            return value
    return otherwise


def judge(seed: Seed, files: Files, folder: Path) -> tuple[bool, str]:
    """Whether mutated files are refused, and what is wrong with that, or with what is read from them."""
    for name, raw in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    same = meaning(files) == meaning(seed.files)
    try:
        read = read_whole(open_adapter(folder / seed.reference, allow_pickle=True, routers=True))
    except Refusal as refusal:
        said = refusal.what + refusal.way_on
        if not said.isprintable() or len(said) > 3000 + 2 * len(str(folder)):
            return True, f"said {said[:500]!r}"
        return True, "refused, though only order and space differ" if same else ""
    if same and read != seed.modules:
        return False, "read otherwise, though only order and space differ"
    by_peft = as_peft_says(seed.files, files) if seed.name in ("peft", "patterned") else None
    if by_peft is not None:
        found = sorted((a, b, scale) for scale, a, b in read.values())
        if len(found) != len(by_peft) or not all(
            one[:2] == other[:2] and math.isclose(one[2], other[2], rel_tol=1e-6)
            for one, other in zip(found, by_peft, strict=True)
        ):
            return (
                False,
                f"peft scales by {[scale for *_, scale in by_peft]}, not {[scale for *_, scale in found]}",
            )
    changed = tensors_changed(seed.files, files)
    if changed is not None and sum(read.get(name) != old for name, old in seed.modules.items()) > changed:
        return False, f"{changed} tensors changed, and more modules"
    return False, ""


def try_one(given: list[Seed], seed: int, index: int) -> Outcome:
    """One mutated adapter, the same for the same seed and index."""
    rng = random.Random(f"{seed} {index}")
    chosen = rng.choice(given)
    way, files = mutated(chosen, rng)
    case = f"{index}: {chosen.name}, {way}"

    def too_slow(*_: Any) -> None:
        raise TooSlow

    signal.signal(signal.SIGVTALRM, too_slow)
    before = peak_memory()
    folder = Path(tempfile.mkdtemp(prefix="mutated-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_SECONDS)
    try:
        refused, fault = judge(chosen, files, folder)
    except TooSlow:
        refused, fault = False, f"took more than {MOST_SECONDS} s"
    except Exception as error:
        refused, fault = False, f"{type(error).__name__}: {error}"[:500]
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        shutil.rmtree(folder)
    if not fault and peak_memory() > before + MOST_MEMORY:
        fault = f"took {peak_memory() - before >> 20} MB"
    return Outcome(case, refused, fault)


def peak_memory() -> int:
    """The most memory that this process has held, in bytes; 0 where /proc does not say."""
    try:
        return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    except OSError:
        return 0


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--count", type=int, default=20_000, help="how many mutated adapters")
    options.add_argument(
        "--first", type=int, default=0, help="the index to begin at; with --count 1, one case again"
    )
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--processes", type=int, default=os.cpu_count())
    options.add_argument("--format", action="append", help="only seeds of this name (repeats)")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        given = [seed for seed in seeds(Path(folder)) if not chosen.format or seed.name in chosen.format]
    counts: Counter[str] = Counter()
    start = time.perf_counter()
    indices = range(chosen.first, chosen.first + chosen.count)
    with multiprocessing.get_context("spawn").Pool(chosen.processes) as pool:
        for outcome in pool.imap_unordered(partial(try_one, given, chosen.seed), indices, chunksize=100):
            name = outcome.case.split(": ")[1].split(",")[0]
            counts[
                f"{name}: {'fault' if outcome.fault else 'refused' if outcome.refused else 'read whole'}"
            ] += 1
            if outcome.fault:
                print(f"{outcome.case}: {outcome.fault}", flush=True)
    for line, count in sorted(counts.items()):
        print(f"{line:40} {count:9}")
    print(f"{chosen.count} mutated adapters in {time.perf_counter() - start:.0f} s")
    return 1 if any(line.endswith("fault") for line in counts) else 0


if __name__ == "__main__":
    sys.exit(main())

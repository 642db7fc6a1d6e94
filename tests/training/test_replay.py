"""Experience replay: which examples are kept, what becomes of them on disk, and how they are seen again."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pamctl.adapters import open_adapter, save_adapter
from pamctl.cli.errors import exit_code_of
from pamctl.cli.main import pamctl
from pamctl.merging import merge
from pamctl.models.base import Base
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks import open_task
from pamctl.tasks.task import Task
from pamctl.training.epochs import Visits
from pamctl.training.inheritance import Inheritance, inherited
from pamctl.training.preparation import Prepared, prepare
from pamctl.training.replay import Replay, kept_of, resolved_replay, shares_of
from pamctl.training.replay_buffer import ReplayBuffer, buffer_after, read_buffer, write_buffer
from tests.training.method_cases import Bench
from tests.training_cases import EXAMPLES, write_task

IDS = st.lists(st.text(max_size=6), min_size=1, max_size=40, unique=True)
RECORD: dict[str, Any] = {
    "schema": "pamctl.replay/1",
    "task": "colours",
    "id": "colours-0",
    "prefix": "a a",
    "answer": "a",
    "pixels": "0" * 64,
    "text_length": 128,
    "label_smoothing": 0.0,
    "path": "../../data/colours.jsonl",
    "image": None,
}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("on", Replay(1000, None, "reference")),
        ("buffer=7", Replay(7, None, "reference")),
        ("on,batch=2", Replay(1000, 2, "reference")),
        ("buffer=5,batch=3,images=copy", Replay(5, 3, "copy")),
        ("off", None),
        ("buffer=0", None),
    ],
)
def test_replay_as_it_is_asked_for(given: str, expected: Replay | None) -> None:
    assert resolved_replay(given) == expected
    assert resolved_replay(given, replays=True) == expected


def test_replay_where_nothing_is_asked_for() -> None:
    assert resolved_replay(None) is None
    assert resolved_replay(None, replays=True) == Replay(1000, None, "reference")


@pytest.mark.parametrize(
    "text", ["buffer=-1", "buffer=many", "batch=0", "images=links", "size=3", "yes", "²"]
)
def test_replay_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageRefusal, match="says nothing"):
        resolved_replay(text)


def test_shares_by_hand() -> None:
    assert shares_of(1000, 1) == [1000]
    assert shares_of(1000, 3) == [334, 333, 333]
    assert shares_of(2, 4) == [1, 1, 0, 0]


@given(st.integers(0, 5000), st.integers(1, 30))
def test_shares_fill_the_buffer_and_differ_by_one_at_most(buffer: int, tasks: int) -> None:
    shares = shares_of(buffer, tasks)
    assert (len(shares), sum(shares)) == (tasks, buffer)
    assert max(shares) - min(shares) <= 1


@given(IDS, st.integers(0, 50), st.integers(0, 50), st.integers(0, 2**32 - 1))
def test_fewer_are_a_part_of_more(ids: list[str], some: int, more: int, seed: int) -> None:
    fewer, larger = sorted((some, more))
    kept, among = (kept_of(ids, "task", count, seed) for count in (fewer, larger))
    assert set(kept) <= set(among)
    assert len(kept) == min(fewer, len(ids))
    assert kept == sorted(set(kept))
    # Kept of what was kept before, as in a chain, or at once: the same.
    assert [among[place] for place in kept_of([ids[place] for place in among], "task", fewer, seed)] == kept


@given(IDS, st.integers(0, 50), st.randoms())
def test_the_order_of_examples_does_not_matter(ids: list[str], count: int, draws: Any) -> None:
    shuffled = draws.sample(ids, len(ids))
    one, other = ({of[place] for place in kept_of(of, "task", count, 3)} for of in (ids, shuffled))
    assert one == other


def test_what_is_kept_depends_on_seed_and_task() -> None:
    ids = [str(number) for number in range(100)]
    found = {tuple(kept_of(ids, task, 10, seed)) for task, seed in (("a", 0), ("b", 0), ("a", 1))}
    assert len(found) == 3


class Data:
    """Tasks on disk, and folders with a buffer as `train-task` leaves them."""

    def __init__(self, folder: Path, first: Path) -> None:
        self.folder, self.first = folder, first

    def task(self, name: str, seed: int = 0) -> Task:
        file = self.folder / "data" / f"{name}.jsonl"
        return open_task(file if file.exists() else write_task(file.parent, name, seed))

    def after(
        self, task: Task, before: Path | None = None, smoothing: float = 0.0, name: str = "", **how: Any
    ) -> Path:
        """A folder with the adapter `first` and the buffer after a task."""
        replay = Replay(**{"buffer": 12, **how})
        out = self.folder / "adapters" / (name or task.name)
        shutil.copytree(self.first, out)
        buffer = buffer_after(read_buffer(before) if before else None, task, replay, 0, smoothing)
        write_buffer(buffer, out, out, replay, open_task)
        return out


@pytest.fixture
def data(tmp_path: Path, inputs: Path) -> Data:
    return Data(tmp_path, inputs / "first")


def buffer_in(folder: Path) -> ReplayBuffer:
    found = read_buffer(folder)
    assert found is not None
    return found


def prepared(base: Base, task: Task, before: Path, **settings: Any) -> Prepared:
    given: Any = {"method": "er", "batch_size": 4, "steps": 6, **settings}
    return prepare([task], base, Inheritance(open_adapter(before)), given)


def test_the_buffer_is_shared_by_tasks_and_counts_an_example_once(data: Data) -> None:
    before, counts = None, []
    for number, name in enumerate(("colours", "shapes", "sizes", "shapes")):
        before = data.after(data.task(name, number), before, name=str(number))
        kept = buffer_in(before).kept
        counts.append(dict(Counter(of.task for of in kept)))
        assert len({(of.task, of.id) for of in kept}) == len(kept)
    assert counts == [
        {"colours": 10},
        {"colours": 6, "shapes": 6},
        {"colours": 4, "shapes": 4, "sizes": 4},
        # Learned again, it is the newest.
        {"colours": 4, "sizes": 4, "shapes": 4},
    ]


def test_the_buffer_is_a_function_of_its_inputs(data: Data) -> None:
    one, other = (data.after(data.task("colours"), name=name, buffer=4) for name in ("a", "b"))
    assert (one / "replay" / "buffer.jsonl").read_bytes() == (other / "replay" / "buffer.jsonl").read_bytes()
    assert buffer_in(one).kept == buffer_in(other).kept
    assert str(data.folder) not in (one / "replay" / "buffer.jsonl").read_text()


def test_a_step_has_new_and_kept_examples(data: Data, base: Base) -> None:
    before = data.after(data.task("colours"), buffer=5)
    run = prepared(base, data.task("shapes", 1), before).run
    alone = prepared(base, data.task("shapes", 1), before, method="finetune").run
    replayed = []
    for step in range(1, 11):
        new, kept = np.split(run.order(step).examples, [4])
        np.testing.assert_array_equal(new, alone.order(step).examples)
        assert len(kept) == 4
        assert set(kept) <= set(range(EXAMPLES, EXAMPLES + 5))
        replayed += kept.tolist()
    assert Counter(replayed) == dict.fromkeys(range(EXAMPLES, EXAMPLES + 5), 8)
    smaller = prepared(base, data.task("shapes", 1), before, replay="batch=1").run
    assert [len(smaller.order(step)) for step in (1, 2)] == [5, 5]


def test_kept_examples_are_what_they_were(data: Data, base: Base) -> None:
    task = data.task("colours")
    before = data.after(task, buffer=5, smoothing=0.2)
    split = prepared(base, data.task("shapes", 1), before, label_smoothing=0.1).run.split
    np.testing.assert_array_equal(split.smoothing, np.array([0.1] * EXAMPLES + [0.2] * 5, np.float32))
    whole = prepare(
        [task], base, Inheritance(), {"method": "finetune", "batch_size": 4, "steps": 6}
    ).run.split
    for row, of in enumerate(buffer_in(before).kept):
        here, there = split.batch(Visits.first([EXAMPLES + row])), whole.batch(Visits.first([int(of.id[-1])]))
        np.testing.assert_array_equal(here.texts.tokens, there.texts.tokens)
        np.testing.assert_array_equal(here.texts.prefix_length, there.texts.prefix_length)
        np.testing.assert_allclose(here.images, there.images, rtol=1e-5)


def test_kept_texts_may_be_longer_than_the_new_task_s(data: Data, base: Base) -> None:
    task = data.task("colours")
    long = [replace(of, prefix=" ".join("abcdefgh" * 3)) for of in task.split("train")]
    file = data.folder / "data" / "colours.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps({**line, "question": long[0].prefix}) + "\n" for line in lines))
    before = data.after(open_task(file))
    short = replace(data.task("shapes", 1), text_length=8)
    split = prepared(base, short, before).run.split
    lengths = np.asarray(split.texts.length)
    assert lengths[:EXAMPLES].max() <= 8
    # <bos>, 24 letters, the separator, the answer and <eos>.
    assert set(lengths[EXAMPLES:]) == {28}
    assert split.batch(Visits.first([0, EXAMPLES])).texts.tokens.shape == (2, 32)


def test_copies_outlive_the_data(data: Data, base: Base) -> None:
    before = data.after(data.task("colours"), images="copy")
    shutil.rmtree(data.folder / "data")
    shapes = data.task("shapes", 1)
    assert len(prepared(base, shapes, before).run.split) == 2 * EXAMPLES
    shutil.copytree(before, data.folder / "elsewhere")
    shutil.rmtree(before)
    after = data.after(shapes, data.folder / "elsewhere", images="reference", name="second")
    assert [Path(str(of.image)).parent.parent.parent.name for of in buffer_in(after).kept if of.image] == (
        ["elsewhere"] * 6
    )
    assert len(prepared(base, shapes, after).run.split) == EXAMPLES + 12


def remove_image(file: Path) -> str:
    (file.parent / "colours-3.png").unlink()
    return "colours-3.png does not exist"


def change_image(file: Path) -> str:
    Image.new("RGB", (6, 9), "red").save(file.parent / "colours-3.png")
    return "the image of example colours-3 of colours is not the one that was kept"


def remove_example(file: Path) -> str:
    lines = file.read_text().splitlines()
    file.write_text("".join(line + "\n" for line in lines if "colours-3" not in line))
    return "example colours-3 is gone from"


def change_question(file: Path) -> str:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[3]["question"] = "h h h"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return "example colours-3 has another question or answer now in"


def remove_task(file: Path) -> str:
    file.unlink()
    return "colours.jsonl"


@pytest.mark.parametrize("harm", [remove_image, change_image, remove_example, change_question, remove_task])
def test_what_is_gone_or_changed_is_refused_in_two_lines(
    data: Data, inputs: Path, capsys: pytest.CaptureFixture[str], harm: Callable[[Path], str]
) -> None:
    before = data.after(data.task("colours"))
    told = harm(data.folder / "data" / "colours.jsonl")
    task = inputs / "shapes.jsonl"
    flags = f"train-task {task} --base {inputs / 'base'} --global {before} --method er --steps 2 --dry-run"
    command = [*flags.split(), "-o", str(data.folder / "out")]
    assert exit_code_of(lambda: pamctl(command, standalone_mode=False)) in (1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 2
    assert told in err.splitlines()[0]
    assert not (data.folder / "out").exists()


def test_data_and_adapters_move_together(data: Data, base: Base, inputs: Path) -> None:
    before = data.after(data.task("colours"))
    moved = data.folder.with_name(data.folder.name + "-moved")
    shutil.move(data.folder, moved)
    found = moved / before.relative_to(data.folder)
    shapes = open_task(inputs / "shapes.jsonl")
    assert len(prepared(base, shapes, found).run.split) == 2 * EXAMPLES
    shutil.move(moved / "data", moved / "other")
    with pytest.raises(Refusal, match=r"colours\.jsonl"):
        prepared(base, shapes, found)


HOSTILE = {
    "truncated": json.dumps(RECORD)[:-20],
    "no object": "[1, 2]",
    "a number": "7",
    "blank": "",
    "not UTF-8": b"\xff\xfe",
    "nested": "[" * 100_000,
    "other schema": json.dumps({**RECORD, "schema": "pamctl.replay/9"}),
    "unknown field": json.dumps({**RECORD, "weights": "x"}),
    "without id": json.dumps({name: value for name, value in RECORD.items() if name != "id"}),
    **{
        f"{name} is {value!r}": json.dumps({**RECORD, name: value})
        for name, value in (
            ("task", 3),
            ("id", None),
            ("prefix", ["a"]),
            ("answer", {}),
            ("pixels", 0),
            ("text_length", "128"),
            ("text_length", True),
            ("text_length", 0),
            ("label_smoothing", "0"),
            ("label_smoothing", float("nan")),
            ("label_smoothing", 1.0),
            ("label_smoothing", -0.1),
            ("path", 3),
            ("image", False),
        )
    },
}


@pytest.mark.parametrize("line", HOSTILE.values(), ids=HOSTILE)
def test_a_line_at_fault_is_named(tmp_path: Path, line: str | bytes) -> None:
    (tmp_path / "replay").mkdir()
    file = tmp_path / "replay" / "buffer.jsonl"
    content = line if isinstance(line, bytes) else line.encode()
    file.write_bytes(json.dumps(RECORD).encode() + b"\n" + content + b"\n")
    with pytest.raises(Refusal) as refused:
        read_buffer(tmp_path)
    assert refused.value.what.startswith(f"{file} line 2: ")
    assert len(refused.value.what) < 1000


@pytest.mark.parametrize(
    "image", ["../../../secret.png", "images/../../../../secret.png", "/etc/passwd", "x\0y"]
)
def test_a_path_that_leads_elsewhere_is_not_trained_on(data: Data, base: Base, image: str) -> None:
    before = data.after(data.task("colours"), images="copy", buffer=3)
    Image.new("RGB", (9, 6), "red").save(data.folder / "secret.png")
    file = before / "replay" / "buffer.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    records[0]["image"] = image
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(Refusal, match="image of example"):
        prepared(base, data.task("shapes", 1), before)


def test_a_chain_of_merged_adapters_replays_through_previous(
    inputs: Path, base: Base, tmp_path: Path
) -> None:
    write_task(tmp_path, "sizes", 2)
    bench = Bench(inputs, tmp_path, replay="buffer=12")
    first = bench("er+pam", "colours", global_adapter=None)
    second = bench("er+pam", global_adapter=first)
    merged = tmp_path / "merged"
    merged.mkdir()
    save_adapter(merge([open_adapter(first), open_adapter(second)], space="factor"), merged)
    assert Counter(of.task for of in buffer_in(second).kept) == {"colours": 6, "shapes": 6}
    sizes = open_task(tmp_path / "sizes.jsonl")
    given: Any = {"method": "er+pam", "batch_size": 4, "steps": 6, "replay": "buffer=12"}
    third = prepare([sizes], base, inherited(merged, second), given)
    assert len(third.run.split) == EXAMPLES + 12
    assert third.run.configuration.start == "global"
    assert third.run.configuration.previous == open_adapter(second).fingerprint
    with pytest.raises(Refusal, match=r"is merged, and --method er\+pam needs the examples kept beside"):
        prepare([sizes], base, inherited(merged), given)

"""What is drawn at a visit depends on (seed, id, epoch) alone; nothing comes again before all has come."""

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pamctl.tasks.task import Example, Text, first_answer
from pamctl.tasks.visits import images_at, sampled_answer, shuffled, subsample


def example(*answers: str, identity: str = "q1") -> Example:
    return Example(identity, "answer en what ?", answers, lambda: [Image.new("RGB", (1, 1))])


@given(st.integers(1, 12), st.integers(0, 5), st.text(max_size=5), st.integers(0, 4))
def test_a_shuffle_is_a_permutation_that_its_key_alone_decides(
    count: int, seed: int, identity: str, epoch: int
) -> None:
    order = shuffled(count, seed, identity, epoch)
    assert sorted(order) == list(range(count))
    assert shuffled(count, seed, identity, epoch) == order


def test_another_key_is_another_shuffle() -> None:
    keys = [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1)]
    assert len({tuple(shuffled(10, *key)) for key in keys}) == len(keys)


def test_every_answer_comes_once_in_as_many_epochs() -> None:
    asked = example(*"abcdefghij")
    for seed in (0, 1):
        turns = [[sampled_answer(asked, seed, 10 * turn + at).suffix for at in range(10)] for turn in (0, 1)]
        assert [sorted(turn) for turn in turns] == [list("abcdefghij")] * 2
        assert turns[0] != turns[1]
    assert sampled_answer(asked, 0, 3).prefix == "answer en what ?"


def test_a_blank_answer_is_never_drawn() -> None:
    drawn = {sampled_answer(example("red", " ", "blue", ""), 0, epoch).suffix for epoch in range(8)}
    assert drawn == {"red", "blue"}


def test_an_answer_given_by_many_is_drawn_by_as_many() -> None:
    asked = example("yes", "yes", "yes", "no")
    drawn = [sampled_answer(asked, 7, epoch).suffix for epoch in range(8)]
    assert drawn.count("yes") == 6


def test_the_first_answer_is_the_same_at_every_visit() -> None:
    assert {first_answer(example("a", "b"), 0, epoch) for epoch in range(5)} == {
        Text("answer en what ?", "a")
    }


class Counting:
    """A clip that remembers where it was started."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def __call__(self) -> list[Image.Image]:
        return [Image.new("L", (1, 1))]

    def at(self, start: float) -> list[Image.Image]:
        self.starts.append(start)
        return self()


def test_a_clip_starts_elsewhere_at_each_visit_and_where_its_key_says() -> None:
    clip = Counting()
    moving = Example("v1", "q", ("a",), clip)
    visits = [(0, 0), (0, 1), (1, 0), (0, 0)]
    for seed, epoch in visits:
        images_at(moving, seed, epoch)
    first, later, other, again = clip.starts
    assert first == again
    assert len({first, later, other}) == 3
    assert all(0 <= start < 1 for start in clip.starts)
    starts = Counting()
    for number in range(200):
        images_at(Example(str(number), "q", ("a",), starts), 0, 0)
    assert 0.4 < sum(starts.starts) / 200 < 0.6


@given(st.lists(st.text(max_size=4), unique=True, max_size=30), st.integers(0, 10), st.integers(0, 3))
def test_a_smaller_subsample_is_part_of_a_larger_in_the_ids_order(
    ids: list[str], count: int, seed: int
) -> None:
    small, large = subsample(ids, count, seed), subsample(ids, count + 5, seed)
    assert small == sorted(small)
    assert len(small) == min(count, len(ids))
    assert set(small) <= set(large)


def test_what_else_is_in_the_file_changes_no_choice() -> None:
    ids = [f"q{number}" for number in range(100)]
    kept = {ids[place] for place in subsample(ids, 50, 3)}
    fewer = ids[:60]
    still = {fewer[place] for place in subsample(fewer, 50, 3)}
    assert {name for name in kept if name in fewer} <= still
    assert subsample(ids, 50, 3) != subsample(ids, 50, 4)

"""Reading a JSON document element by element gives what `json.load` does, and names the line of a fault."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks import json_stream
from pamctl.tasks.json_stream import read_elements

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "release.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@given(st.lists(values, max_size=6), st.sampled_from([None, 0, 2]), st.integers(1, 40))
def test_a_list_in_blocks_of_any_size_is_the_list(
    tmp_path_factory: pytest.TempPathFactory, elements: list[object], indent: int | None, block: int
) -> None:
    text = json.dumps(elements, indent=indent, ensure_ascii=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "BLOCK", block)
        read = list(read_elements(written(tmp_path_factory.mktemp("json"), text)))
    assert [element.value for element in read] == elements
    assert [element.key for element in read] == list(range(len(elements)))


@given(st.dictionaries(st.text(max_size=4), values, max_size=5), st.sampled_from([None, 1]))
def test_an_object_is_read_name_by_name(
    tmp_path_factory: pytest.TempPathFactory, members: dict[str, object], indent: int | None
) -> None:
    path = written(tmp_path_factory.mktemp("json"), json.dumps(members, indent=indent))
    assert {element.key: element.value for element in read_elements(path)} == members


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_elements_of_a_member_tell_their_lines(tmp_path: Path, newline: str, mark: str) -> None:
    lines = ['{"info": {"data": [1]},', '"data": [', '{"a":', '"ü"}', ",", '{"b": 2}],', '"more": 3}']
    path = written(tmp_path, mark + newline.join(lines))
    read = list(read_elements(path, "data"))
    assert [(element.line, element.value) for element in read] == [(3, {"a": "ü"}), (6, {"b": 2})]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"data": [{"a": 1},\n{"b": "cut', "line 2 is not JSON: it is cut off"),
        ('{"data": [{"a": 1},\n{"b": 2}', "line 2 is not JSON: it is cut off"),
        ('{"data": [{"a": 1}\n{"b": 2}]}', "line 2 is not JSON: , is missing"),
        ('{"data": [{"a": 1},\n{b: 2}]}', "line 2 is not JSON: Expecting property name"),
        ('{"data": 3}', "line 1 is not JSON: [ or { is missing"),
        ("[1]", "line 1 is not JSON: { is missing"),
        ("", "line 1 is not JSON: it is cut off"),
        ('{"other": []}', "has no member `data`"),
        ("{3: []}", "line 1 is not JSON: a name in quotes is missing"),
        (b'{"data": ["\xff"]}', "is not UTF-8 near line 1"),
        ('{"data": [' + "[" * 100_000, "line 1 is not JSON: it is nested too deeply"),
        ('{"data": [' + "1" * 5000 + "]}", "line 1 is not JSON: a number has too many digits"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(tmp_path: Path, text: str | bytes, fault: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(Refusal) as refused:
        list(read_elements(path, "data"))
    assert refused.value.what.startswith(str(path))
    assert fault in refused.value.what


def test_what_stands_before_a_fault_is_read(tmp_path: Path) -> None:
    elements = read_elements(written(tmp_path, "[1, 2, oops]"))
    assert [next(elements).value, next(elements).value] == [1, 2]
    with pytest.raises(Refusal, match="line 1 is not JSON: Expecting value"):
        next(elements)


def test_an_element_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "MOST_CHARACTERS", 1000)
    monkeypatch.setattr(json_stream, "BLOCK", 100)
    with pytest.raises(Refusal, match="more than 1000 characters"):
        list(read_elements(written(tmp_path, '["' + "x" * 5000)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageRefusal, match=r"nowhere\.json does not exist"):
        list(read_elements(tmp_path / "nowhere.json"))

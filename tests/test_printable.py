"""Text from files is printed so that it commands no terminal and keeps to its lines."""

import pytest

from pamctl.printable import harmless, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Größe 評価", "Größe 評価"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\rb\0", "a\\rb\\x00"),
        ("\u202eevil\u2028", "\\u202eevil\\u2028"),
        ("\ud800", "\\ud800"),
        ("a\n\tb", "a\n\tb"),
    ],
)
def test_controls_are_escaped_and_lines_kept(text: str, shown: str) -> None:
    assert harmless(text) == shown
    assert "\n" not in printable(text)


def test_a_long_word_is_cut_in_a_message() -> None:
    assert printable("a\nb " + "x" * 1000) == f"a b {'x' * 100}…{'x' * 100}"

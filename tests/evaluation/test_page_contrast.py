"""Colours of the page: text has a contrast of 4.5 to 1 on what is behind it, marks 3 to 1 (WCAG AA)."""

import re
from importlib.resources import files

import pytest

STYLE = (files("pamctl") / "assets" / "report" / "style.css").read_text(encoding="utf-8")
COLOURS = {
    name: (found[0], found[-1])
    for name, value in re.findall(r"--([\w]+): ([^;]+);", STYLE)
    if (found := re.findall(r"#[0-9a-f]{6}", value))
}
THEMES = ("light", "dark")
SHADES = {
    shade: re.search(rf"\.{shade}\b[^{{]*\{{ color: var\(--(\w+)\)", STYLE)
    for shade in (f"h{n}" for n in range(11))
}


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2.2."""
    shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_the_formula_is_the_one_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("behind", ["page", "panel"])
@pytest.mark.parametrize("text", ["ink", "soft", "link", "right", "wrong"])
def test_text_can_be_read(text: str, behind: str, theme: str) -> None:
    place = THEMES.index(theme)
    assert contrast(COLOURS[text][place], COLOURS[behind][place]) >= 4.5


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("shade", SHADES)
def test_scores_can_be_read_in_a_heat_map(shade: str, theme: str) -> None:
    place = THEMES.index(theme)
    text = SHADES[shade]
    assert text is not None
    assert contrast(COLOURS[text.group(1)][place], COLOURS[shade][place]) >= 4.5


@pytest.mark.parametrize("theme", THEMES)
def test_heat_maps_go_one_way(theme: str) -> None:
    found = [luminance(COLOURS[shade][THEMES.index(theme)]) for shade in SHADES]
    assert found == sorted(found, reverse=theme == "light")


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("drawn", ["edge", *(f"c{number}" for number in range(8))])
def test_lines_marks_and_borders_can_be_seen(drawn: str, theme: str) -> None:
    place = THEMES.index(theme)
    for behind in ("page", "panel"):
        assert contrast(COLOURS[drawn][place], COLOURS[behind][place]) >= 3


def test_every_colour_of_the_page_is_one_of_these() -> None:
    rules = STYLE[STYLE.index("\n}\n") :]
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b(?![^{]*\{)", rules) == []
    assert set(re.findall(r"var\(--(\w+)\)", rules)) <= COLOURS.keys()

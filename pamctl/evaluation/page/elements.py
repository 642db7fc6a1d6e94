"""How the page is written: elements of HTML and SVG, whose text and attributes are escaped."""

import re
from collections.abc import Iterable
from html import escape
from typing import TypeAlias

VOID = frozenset({"br", "col", "img", "input", "link", "meta"})
UNCLOSED = frozenset({"dd", "dt", "li", "option", "tbody", "td", "th", "thead", "tr"})
"""Elements whose end HTML leaves to what follows: a page has tens of thousands of cells."""
_BARE = re.compile(r"[A-Za-z0-9_.-]+")
"""Values of attributes that need no quotes."""


class Html(str):
    """Text that is markup already, which `element` leaves as it is."""

    __slots__ = ()


Content: TypeAlias = "str | int | float | Iterable[Content] | None"
Attribute: TypeAlias = str | int | float | bool | None


def element(name: str, /, *children: Content, **attributes: Attribute) -> Html:
    """One element.

    Args:
        children: text, which is escaped, markup, or any nesting of these; None is nothing.
        attributes: `class_` is class and `aria_label` aria-label; True is an attribute without a value, False
            and None are left out.
    """
    opening = f"<{name}{''.join(_attribute(*pair) for pair in attributes.items())}>"
    if name in VOID:
        return Html(opening)
    return Html(f"{opening}{joined(*children)}{'' if name in UNCLOSED else f'</{name}>'}")


def joined(*children: Content) -> Html:
    """Several pieces as one."""
    return Html("".join(map(_markup, children)))


def number(value: float) -> str:
    """A length or place in a drawing, to a tenth of a pixel."""
    return f"{round(value, 1) + 0.0:g}"


def identifier(*parts: object) -> str:
    """An id made of our own words and numbers."""
    return "-".join(str(part) for part in parts if part not in ("", None))


def _markup(child: Content) -> str:
    if isinstance(child, Html):
        return child
    if child is None:
        return ""
    if isinstance(child, str | int | float):
        return escaped(str(child))
    return "".join(map(_markup, child))


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    told = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {told}"
    text = str(value)
    return f" {told}={text}" if _BARE.fullmatch(text) else f' {told}="{escaped(text)}"'


def escaped(text: str) -> str:
    """Text as it stands in a page; halves of surrogate pairs, which no file can hold, become `?`."""
    return escape(text.encode("utf-8", "replace").decode("utf-8"))

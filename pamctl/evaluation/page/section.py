"""What the page is made of: sections under headings, one within another, which the contents list."""

from collections.abc import Sequence
from dataclasses import dataclass

from pamctl.evaluation.page.elements import Content, Html, element

TOP = 2
"""The level of the headings below the page's own."""


@dataclass(frozen=True)
class Section:
    """A section.

    Attributes:
        id: unique in the page.
        content: what stands under the heading.
        parts: the sections within it, after its content.
        kind: the class that the style sheet knows it by.
    """

    id: str
    title: str
    content: Content = None
    parts: "Sequence[Section]" = ()
    kind: str | None = None

    def shown(self, level: int = TOP) -> Html:
        """The section with its heading."""
        return element(
            "section",
            element(f"h{level}", self.title, id=self.id),
            self.content,
            [part.shown(level + 1) for part in self.parts],
            aria_labelledby=self.id,
            class_=self.kind,
        )

    def link(self) -> Html:
        """An entry of the contents, with those of the sections within."""
        within = element("ul", [part.link() for part in self.parts]) if self.parts else None
        return element("li", element("a", self.title, href=f"#{self.id}"), within)

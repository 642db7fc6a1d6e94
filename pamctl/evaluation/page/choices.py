"""Panels of which one is shown, chosen by lists; without the page's script each can be opened by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pamctl.evaluation.page.elements import Content, Html, element, identifier


@dataclass(frozen=True)
class Lists:
    """What can be chosen.

    Attributes:
        id: that no other element of the page has.
        values: what each list offers, by its label.
    """

    id: str
    values: Mapping[str, Sequence[str]]

    def around(self, *panels: Content) -> Html:
        """The lists, and below them what holds the panels of which they show some."""
        told = element("p", role="status")
        controls = element("div", map(self._list, self.values), told, class_="controls", hidden=True)
        return element("div", controls, panels, class_="choices", id=self.id)

    def panel(self, content: Content, *chosen: str) -> Html:
        """A panel that is shown where these are the values chosen, one a list; open if they are the first."""
        places = [values.index(value) for value, values in zip(chosen, self.values.values(), strict=True)]
        return element(
            "details",
            element("summary", ", ".join(chosen)),
            content,
            class_="choice",
            data_chosen=" ".join(map(str, places)),
            open=not any(places),
        )

    def _list(self, label: str) -> Html:
        name = identifier(self.id, list(self.values).index(label))
        options = [element("option", value, value=place) for place, value in enumerate(self.values[label])]
        return element("label", element("span", label), element("select", options, id=name), for_=name)

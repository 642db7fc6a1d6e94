"""Questions with their options in the prompt, of which the right one is answered word for word.

Source: google-research/big_vision, configs/proj/paligemma/transfers/ai2d.py and aokvqa_mc.py.
"""

from collections.abc import Sequence

from pamctl.tasks.releases.record import Record

TEMPLATE = "answer en  {question} choose from: {options}"
"""With two spaces, as PaliGemma was trained."""


def options_text(options: Sequence[str]) -> str:
    """The options as they stand in the prompt."""
    return " \t ".join(options)


def right_option(record: Record, options: Sequence[str], index: str) -> str:
    """The option whose place, counted from 0, is the field `index` of the record.

    Raises:
        Refusal: there is no such option.
    """
    by_place = {str(place): option for place, option in enumerate(options)}
    place = record.name(index)
    if place not in by_place:
        raise record.fault(f"has {place} as `{index}`, and {len(options)} options counted from 0")
    return by_place[place]

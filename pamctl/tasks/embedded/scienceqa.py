"""tiny-scienceqa: charts and scenes with lettered options, after ScienceQA."""

from pamctl.tasks.embedded.canvas import CELL, COLORS, SIDE, finished, plain, put_bars
from pamctl.tasks.embedded.drawn import Drawn, lettered_options
from pamctl.tasks.embedded.draws import Draws
from pamctl.tasks.embedded.scene import put_things, scattered

DESCRIPTION = "bar charts on a light grid and scenes; three options, the answer is a letter"


def draw(draws: Draws) -> Drawn:
    """One question with three lettered options."""
    canvas = plain((110, 110, 110))
    canvas[:: CELL // 2] = 95
    canvas[:, :: CELL // 2] = 95
    known_words = draws.chance(35)
    if draws.chance(50):
        colors = draws.sample(tuple(COLORS), 4)
        heights = draws.sample(range(6, SIDE - 1, 6), 4)
        put_bars(canvas, heights, [COLORS[color] for color in colors])
        most = draws.chance(50)
        right = colors[heights.index(max(heights) if most else min(heights))]
        wrong = draws.sample([color for color in colors if color != right], 2)
        known = f"pick the {'tallest' if most else 'shortest'} bar :"
        question = f"question : which bar is {'highest' if most else 'lowest'} ? options :"
    else:
        things = scattered(draws, 3)
        put_things(canvas, draws, things)
        asked, *others = things
        right, wrong = asked.color, [thing.color for thing in others]
        known = f"pick the color of the {asked.shape} :"
        question = f"question : which color is the {asked.shape} ? options :"
    options, letter = lettered_options(draws, right, wrong)
    return Drawn(finished(canvas, draws, 6), f"{known if known_words else question} {options}", letter)

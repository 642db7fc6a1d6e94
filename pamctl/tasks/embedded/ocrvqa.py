"""tiny-ocrvqa: title, author and genre of a book from its cover, after OCR-VQA."""

from pamctl.tasks.embedded.canvas import COLORS, LETTERS, finished, plain, put_shape, put_text
from pamctl.tasks.embedded.drawn import Drawn, yes_no
from pamctl.tasks.embedded.draws import Draws

DESCRIPTION = "book covers; title, author, genre by the icon, yes or no"
GENRES = {"circle": "travel", "triangle": "history", "ring": "music", "cross": "health"}


def draw(draws: Draws) -> Drawn:
    """One question about a cover."""
    ground = draws.pick(((30, 30, 30), (60, 30, 30), (30, 60, 30), (30, 30, 70)))
    canvas = plain(ground)
    title, author = "".join(draws.sample(LETTERS, 3)), "".join(draws.sample(LETTERS, 2))
    icon = draws.pick(tuple(GENRES))
    put_text(canvas, title, 0, COLORS["white"])
    put_shape(canvas, draws, icon, (1 + draws.below(2), draws.below(4)), COLORS[draws.pick(tuple(COLORS))])
    put_text(canvas, author, 3, COLORS["white"], draws.below(3))
    kind = draws.pick((0, 0, 1, 1, 2, 3))
    if kind == 0:
        prefix = draws.pick(("what is the title of this book ?", "what does the top say ?"))
        answer = title
    elif kind == 1:
        prefix = draws.pick(("who is the author of this book ?", "what does the bottom say ?"))
        answer = author
    elif kind == 2:
        prefix, answer = "what is the genre of this book ?", GENRES[icon]
    else:
        named = GENRES[icon] if draws.chance(50) else draws.pick(tuple(GENRES.values()))
        prefix, answer = f"is this a {named} book ?", yes_no(named == GENRES[icon])
    return Drawn(finished(canvas, draws, 90), prefix, answer)

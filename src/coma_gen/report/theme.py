"""The colors that the piano rolls, the charts and the page share, by day and by night.

Vermilion is what the model made, blue is what it was given, grays are everything else: the same three in
every picture. Vermilion and blue stay apart under the common color-vision deficiencies.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Theme:
    """One set of colors, each as #rrggbb.

    Attributes:
        paper: behind everything.
        panel: behind a table, a chart or a sample.
        ink: text.
        muted: lesser text, axis labels; at least 4.5:1 on paper and panel.
        line: rules and grid lines.
        shade: behind the black keys of a piano roll.
        made: what the model made.
        made_soft: the same for a note hardly touched.
        given: what the model was given.
        given_soft: the same for a note hardly touched.
        plain: the baselines' bars.
        plain_soft: the same for the lesser of two.
    """

    paper: str
    panel: str
    ink: str
    muted: str
    line: str
    shade: str
    made: str
    made_soft: str
    given: str
    given_soft: str
    plain: str
    plain_soft: str


LIGHT = Theme(
    paper="#faf8f4",
    panel="#ffffff",
    ink="#1b2130",
    muted="#5d6676",
    line="#e2ded5",
    shade="#f4f1ea",
    made="#b8321c",
    made_soft="#f2bda9",
    given="#1c5586",
    given_soft="#abcbe3",
    plain="#7c8595",
    plain_soft="#c3c8d0",
)

DARK = Theme(
    paper="#11141b",
    panel="#181c25",
    ink="#ebe8e1",
    muted="#9ba4b4",
    line="#2c3240",
    shade="#14171f",
    made="#ffa183",
    made_soft="#8a4a38",
    given="#8fcbff",
    given_soft="#35607f",
    plain="#8a93a4",
    plain_soft="#4a5262",
)


def css_variables() -> str:
    """Both themes as CSS custom properties (`--ink` and so on); the reader's system chooses."""
    light, dark = (
        "".join(f"--{field.name.replace('_', '-')}:{getattr(theme, field.name)};" for field in fields(Theme))
        for theme in (LIGHT, DARK)
    )
    return (
        f":root{{color-scheme:light dark;{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
    )


def blend(soft: str, loud: str, share: float) -> str:
    """The color `share` of the way from `soft` to `loud`, 0 to 1."""
    pairs = ((int(soft[i : i + 2], 16), int(loud[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)

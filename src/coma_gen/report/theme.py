"""The light and dark color themes shared by the piano rolls, the charts and the pages.

In every picture, vermilion is generated music, blue is the prompt, and everything else is gray. Vermilion and
blue remain distinguishable under the common color-vision deficiencies.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Theme:
    """One set of colors, each as #rrggbb.

    Attributes:
        paper: Page background.
        panel: Background of tables, charts and samples.
        ink: Text.
        muted: Secondary text and axis labels; contrast of at least 4.5:1 on paper and panel.
        line: Rules and grid lines.
        shade: Rows of the black keys in a piano roll.
        made: Generated notes at full velocity, and figures of the model.
        made_soft: Generated notes at the lowest velocity.
        given: Prompt notes at full velocity.
        given_soft: Prompt notes at the lowest velocity.
        plain: Bars of baselines.
        plain_soft: Bars of baselines on the secondary split.
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
    """Both themes as CSS custom properties (`--ink` etc.), selected by the system's color scheme."""
    light, dark = (
        "".join(f"--{field.name.replace('_', '-')}:{getattr(theme, field.name)};" for field in fields(Theme))
        for theme in (LIGHT, DARK)
    )
    return (
        f":root{{color-scheme:light dark;{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
    )


def blend(soft: str, loud: str, weight: float) -> str:
    """Interpolates linearly between two colors; `weight` 0 gives `soft`, 1 gives `loud`."""
    pairs = ((int(soft[i : i + 2], 16), int(loud[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(a + (b - a) * weight):02x}" for a, b in pairs)

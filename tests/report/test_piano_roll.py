"""Piano rolls: notes at their positions and in their colors, and reproducible bytes."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
import pytest
from PIL import Image

from coma_gen.midi.notes import Notes
from coma_gen.report.layout import LEFT, MAX_SYSTEMS, PEDAL_GAP, PEDAL_HEIGHT, RIGHT, WIDTH, compute_layout
from coma_gen.report.piano_roll import roll_png, write_roll
from coma_gen.report.theme import DARK, LIGHT, Theme


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def leans(color: np.ndarray) -> str:
    """Which of the two hues a pixel has, if any."""
    red, _, blue = color
    return "made" if red - blue > 30 else "given" if blue - red > 30 else "none"


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize("title", ["A title", None])
def test_notes_are_drawn_where_they_sound(theme: Theme, title: str | None) -> None:
    notes = Notes.of([0.5, 3.0, 6.0], [1.0, 2.0, 0.5], [60, 73, 45], [90, 100, 110])
    image = pixels(roll_png(notes, title=title, prompt_seconds=2.0, theme=theme))
    layout = compute_layout(notes, prompt_seconds=2.0, heading=title is not None)
    for onset, duration, pitch, who in (
        (0.5, 1.0, 60, "given"),
        (3.0, 2.0, 73, "made"),
        (6.0, 0.5, 45, "made"),
    ):
        for share in (0.05, 0.5, 0.9):
            x, y = layout.pixel(onset + share * duration, pitch)
            assert leans(image[y, x]) == who
            assert leans(image[y - 2 * layout.pitch_height, x]) == "none"
        x, y = layout.pixel(onset - 0.1, pitch)
        assert leans(image[y, x]) == "none"


def test_the_last_note_of_the_prompt_is_the_prompts() -> None:
    """The splice is where it begins, rounded as JSON and ticks round."""
    notes = Notes.of([0.0, 7.9986712, 8.2], [0.5, 0.1, 0.5], [60, 62, 64], [90, 90, 90])
    image = pixels(roll_png(notes, title="t", prompt_seconds=7.99867))
    layout = compute_layout(notes, prompt_seconds=7.99867)
    found = []
    for seconds, pitch in ((0.2, 60), (8.04, 62), (8.4, 64)):
        x, y = layout.pixel(seconds, pitch)
        found.append(leans(image[y, x]))
    assert found == ["given", "given", "made"]


def test_the_picture_has_the_size_of_its_layout() -> None:
    notes = Notes.of([0.0], [1.0], [60], [64])
    assert pixels(roll_png(notes, title="t")).shape == (compute_layout(notes).height, WIDTH, 3)


def test_louder_notes_are_deeper() -> None:
    notes = Notes.of([0.0, 2.0, 4.0], [1.0, 1.0, 1.0], [60, 60, 60], [30, 64, 100])
    image, layout = pixels(roll_png(notes, title="t")), compute_layout(notes)
    points = (layout.pixel(onset + 0.5, 60) for onset in (0, 2, 4))
    brightness = [image[y, x].sum() for x, y in points]
    assert brightness == sorted(brightness, reverse=True)
    assert len(set(brightness)) == 3


def test_the_pedal_is_a_band_while_it_is_down() -> None:
    notes = Notes.of([0.0], [10.0], [60], [64], [(2.0, 4.0)])
    image, layout = pixels(roll_png(notes, title="t")), compute_layout(notes)
    y = layout.top(0) + layout.keys_height + PEDAL_GAP + PEDAL_HEIGHT // 2
    down, up = (image[y, int(layout.x(seconds, 0))].sum() for seconds in (3.1, 7.1))
    assert down < up - 60
    assert not compute_layout(Notes.of([0.0], [10.0], [60], [64])).pedal


@pytest.mark.parametrize(
    "notes", [Notes.empty(), Notes.of([0.0], [0.0], [0], [1]), Notes.of([1.0], [0.5], [127], [127])]
)
def test_silence_and_single_notes(notes: Notes) -> None:
    assert pixels(roll_png(notes, title="", prompt_seconds=None)).shape[1] == WIDTH


def test_long_music_wraps_into_systems() -> None:
    index = np.arange(6_000)
    notes = Notes.of(index * 0.6, np.full(6_000, 0.5), 40 + index % 40, 30 + index % 90, [(0.0, 3_000.0)])
    layout = compute_layout(notes)
    assert layout.systems == MAX_SYSTEMS
    assert layout.systems * layout.system_seconds >= notes.end
    image = pixels(roll_png(notes, title="An hour"))
    assert image.shape == (layout.height, WIDTH, 3)
    for number in (0, 1_234, 5_999):
        x, y = layout.pixel(float(notes.onset[number]) + 0.25, int(notes.pitch[number]))
        assert leans(image[y, x]) == "made"


@pytest.mark.parametrize(("seconds", "prompt_end"), [(20.0, 8.0), (300.0, 60.0), (300.0, 59.9)])
def test_no_line_is_cut_where_its_band_ends(seconds: float, prompt_end: float) -> None:
    """The picture is drawn in bands; between two of them there is nothing but the background."""
    index = np.arange(int(seconds))
    notes = Notes.of(
        index * 1.0, np.full(len(index), 0.9), 21 + index % 88, 30 + index % 90, [(0.0, seconds)]
    )
    image, layout = pixels(roll_png(notes, title="t", prompt_seconds=prompt_end)), compute_layout(notes)
    bands = [(0, layout.band(0)[0]), *(layout.band(system) for system in range(layout.systems))]
    assert [above[1] for above in bands] == [below[0] for below in bands[1:]] + [layout.height]
    for top, _ in bands[1:]:
        assert (image[top - 1 : top + 1] == image[0, 0]).all()


def test_a_note_across_two_systems_is_on_both() -> None:
    notes = Notes.of([0.0, 119.0], [118.0, 2.0], [60, 72], [100, 100])
    image, layout = pixels(roll_png(notes, title="t")), compute_layout(notes)
    assert layout.systems > 1
    for system in range(layout.systems):
        y = int(layout.y(60, system) + layout.pitch_height / 2)
        assert leans(image[y, LEFT + 200]) == ("made" if system * layout.system_seconds < 110 else "none")
    assert int(layout.x(1e9, 0)) == WIDTH - RIGHT


def test_no_metadata_and_strange_titles() -> None:
    png = roll_png(
        Notes.of([0], [1], [60], [64]), title="$\\frac{$ 月光\n<b> " + "long " * 99, prompt_seconds=0.0
    )
    assert b"tEXt" not in png
    assert b"atplotlib" not in png
    assert set(Image.open(io.BytesIO(png)).info) <= {"dpi"}


@pytest.mark.parametrize("prompt", [None, 0.5])
def test_a_long_heading_ends_before_the_legend(prompt: float | None) -> None:
    """What stands right of the gap is the same under any heading, and the end of the detail is still told."""
    notes = Notes.of([0], [1], [60], [64])
    long = "continues 8 s of " + "Franz Schubert · Der Erlkönig,\n" * 40

    def heading(text: str, end: str = " · 1,265 notes · 1:08", title: str = "t") -> np.ndarray:
        picture = pixels(roll_png(notes, title=title, prompt_seconds=prompt, detail=(text, end)))
        return picture[: compute_layout(notes, prompt_seconds=prompt).margin - 14]

    short, cut = heading("x", ""), heading(long)
    ends = np.flatnonzero((cut != short).any(axis=(0, 2)))[-1]
    begins = np.flatnonzero((short[50:] != short[0, 0]).any(axis=(0, 2)) & (np.arange(WIDTH) > 300))[0]
    assert begins > 600
    assert begins - 70 < ends < begins
    other = heading(long, " · 1,265 notes · 1:09")
    assert (cut != other).any() and (cut[:, : ends - 250] == other[:, : ends - 250]).all()
    title = heading("x", "", title="t" * 5000)
    assert (title[:, WIDTH - RIGHT + 1 :] == short[:, WIDTH - RIGHT + 1 :]).all() and (title != short).any()


def test_a_matplotlibrc_changes_nothing() -> None:
    notes = Notes.of([0, 100.0], [1, 1], [60, 90], [64, 99])
    expected = roll_png(notes, title="t", theme=DARK)
    own = {
        "figure.frameon": False,
        "figure.constrained_layout.use": True,
        "font.size": 30,
        "axes.linewidth": 9,
    }
    with matplotlib.rc_context(own):
        assert roll_png(notes, title="t", theme=DARK) == expected


def test_written_file_is_the_picture(tmp_path) -> None:
    notes = Notes.of([0], [1], [60], [64])
    write_roll(tmp_path / "roll.png", notes, title="t")
    assert (tmp_path / "roll.png").read_bytes() == roll_png(notes, title="t")
    assert [path.name for path in tmp_path.iterdir()] == ["roll.png"]

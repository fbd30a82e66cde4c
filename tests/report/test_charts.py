"""Charts: proportions, descriptions in words, and contrast in the light and dark theme."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest

from coma_gen.report.charts import Bar, bits_by_composer, bits_per_note, nll_by_type, window_shares
from coma_gen.report.curves import learning_curve, nll_by_context
from coma_gen.report.svg import Drawing, figure, spread, ticks
from coma_gen.report.theme import DARK, LIGHT, Theme, blend

SVG = "{http://www.w3.org/2000/svg}"


def tree(drawing: Drawing | None) -> ElementTree.Element:
    assert drawing is not None
    return ElementTree.fromstring(drawing.to_file('a <chart> & "more"'))


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def widths(root: ElementTree.Element, kind: str) -> list[float]:
    return [float(bar.attrib["width"]) for bar in root.iter(f"{SVG}rect") if bar.get("class") == kind]


def test_learning_curve_shows_both_losses_and_the_baselines() -> None:
    train = [(float(step), 6.0 - step / 100) for step in range(0, 301, 10)]
    root = tree(learning_curve(train, [(100.0, 5.2), (200.0, 3.1), (300.0, 3.4)], {"bigram": 3.3}))
    assert {"training", "validation", "bigram", "optimizer step", "300"} <= set(texts(root))
    lines = {line.get("class"): line.attrib["points"].split() for line in root.iter(f"{SVG}polyline")}
    assert (len(lines["given"]), len(lines["made"])) == (31, 3)
    heights = [float(point.split(",")[1]) for point in lines["made"]]
    assert heights[1] > heights[2] > heights[0]
    (ring,) = (dot for dot in root.iter(f"{SVG}circle") if dot.get("class") == "best")
    assert float(ring.attrib["cy"]) == heights[1]


def test_bars_are_in_proportion_and_the_whisker_spans_the_interval() -> None:
    bars = [Bar("bigram", "test", 25.0), Bar("conformer", "test", 20.0, 18.0, 23.0, is_ours=True)]
    root = tree(bits_per_note(bars))
    (plain,) = (width for width in widths(root, "plain") if width != 12)
    (ours,) = widths(root, "made")
    assert ours / plain == pytest.approx(20 / 25, abs=0.01)
    across = [line for line in root.iter(f"{SVG}line") if line.get("class") == "whisker"]
    ends = sorted(float(line.attrib[name]) for line in across for name in ("x1", "x2"))
    assert (ends[-1] - ends[0]) / ours == pytest.approx(5 / 20, abs=0.01)
    assert {"bigram", "conformer", "25.0", "20.0", "test"} <= set(texts(root))


def test_token_types_are_sorted_by_what_they_cost() -> None:
    root = tree(
        nll_by_type({"Bar": {"nll_per_token": 0.1}, "Pitch": {"nll_per_token": 2.0, "bits_per_note": 3.0}})
    )
    names = [text for text in texts(root) if text in ("Bar", "Pitch")]
    assert names == ["Pitch", "Bar"]
    assert "3.00 bits/note" in texts(root)


def test_contexts_double_from_left_to_right() -> None:
    curves = {
        "carried": [(1.0, 5.0), (2.0, 4.0), (4.0, 3.5), (1024.0, 3.0)],
        "windowed": [(1.0, 4.5), (32.0, 3.2)],
    }
    root = tree(nll_by_context(curves))
    lines = {line.get("class"): line.attrib["points"].split() for line in root.iter(f"{SVG}polyline")}
    across = [float(point.split(",")[0]) for point in lines["made"]]
    assert across[1] - across[0] == pytest.approx(across[2] - across[1], abs=0.11)
    assert across[3] - across[0] == pytest.approx(10 * (across[1] - across[0]), rel=0.02)
    heights = [float(point.split(",")[1]) for point in lines["made"]]
    assert heights == sorted(heights)
    assert {"carried", "windowed", "context tokens", "1", "1,024"} <= set(texts(root))


def test_composers_are_in_proportion_and_in_order() -> None:
    bars = [Bar("Chopin", "test", 24.0, 20.0, 26.0), Bar("A very long name of a composer", "test", 12.0)]
    root = tree(bits_by_composer(bars, ["3 performances", "1 performance"]))
    shorter, longer = widths(root, "made")
    assert shorter / longer == pytest.approx(0.5, abs=0.01)
    told = texts(root)
    assert told.index("12.0") < told.index("24.0")
    assert {"3 performances", "1 performance"} <= set(told)
    assert max(len(text) for text in told if text.startswith("A very")) == 24


def test_windows_are_in_proportion_and_equal_shares_are_marked() -> None:
    shares = {
        "layer 1": {"32": 0.25, "128": 0.75},
        "layer 2": {"32": 0.5, "128": 0.5},
    }
    root = tree(window_shares(shares))
    drawn = widths(root, "made")
    assert len(drawn) == 4
    assert drawn[0] / drawn[2] == pytest.approx(1 / 3, abs=0.01)
    bars = [bar for bar in root.iter(f"{SVG}rect") if bar.get("class") == "made"]
    dashes = [
        float(line.attrib["x1"]) for line in root.iter(f"{SVG}line") if line.get("class") == "reference"
    ]
    ends = [float(bar.attrib["x"]) + float(bar.attrib["width"]) for bar in bars]
    assert dashes == pytest.approx([ends[1], ends[3]], abs=0.2)
    assert {"layer 1", "layer 2", "tokens", "32", "128", "25%", "75%"} <= set(texts(root))


def test_layers_with_other_windows_have_gaps_and_no_mark() -> None:
    root = tree(window_shares({"layer 1": {"8": 0.5, "16": 0.5}, "layer 2": {"all": 1.0}}))
    assert len(widths(root, "made")) == 3
    assert not [line for line in root.iter(f"{SVG}line") if line.get("class") == "reference"]


def test_nothing_to_draw() -> None:
    assert window_shares({}) is None
    assert nll_by_context({}) is None
    assert nll_by_context({"carried": []}) is None
    assert bits_by_composer([], []) is None
    assert learning_curve([], [], {"bigram": 3.0}) is None
    assert bits_per_note([]) is None
    assert nll_by_type({}) is None


def test_one_point_and_equal_values() -> None:
    tree(learning_curve([(1.0, 3.0)], [], {}))
    tree(learning_curve([(0.0, 0.0)], [(0.0, 0.0)], {}))
    tree(nll_by_type({"Pitch": {"nll_per_token": 0.0}}))
    tree(bits_per_note([Bar("m", "test", 0.0)]))
    tree(nll_by_context({"carried": [(1.0, 0.0)]}))
    tree(bits_by_composer([Bar("m", "test", 0.0)], [""]))


def test_names_are_escaped() -> None:
    drawing = bits_per_note([Bar("<script>&", "te<st", 3.0)])
    root = tree(drawing)
    assert "<script>&" in texts(root)
    assert root.get("aria-label") == 'a <chart> & "more"'
    assert drawing is not None and "<script" not in drawing.to_svg("x")


def test_a_file_carries_its_colors_and_the_page_does_not() -> None:
    drawing = bits_per_note([Bar("m", "test", 3.0)])
    assert drawing is not None
    assert "prefers-color-scheme:dark" in drawing.to_file("x")
    assert "<style" not in drawing.to_svg("x")
    assert "style=" not in drawing.to_svg("x")


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 32.3), (2.4, 5.9), (0.0, 0.0), (5.0, 5.0), (0.0, 1e6), (1e-9, 2e-9), (-3.0, 7.0)]
)
def test_ticks_enclose_the_values(low: float, high: float) -> None:
    levels = ticks(low, high, 5)
    assert levels[0] <= low + 1e-9
    assert levels[-1] >= high - 1e-6 * abs(high)
    assert len(levels) <= 8


def test_labels_are_spread() -> None:
    positions = spread([50.0, 10.0, 51.0, 98.0], 16.0, 0.0, 100.0)
    order = sorted(positions)
    assert all(after - before >= 16.0 for before, after in pairwise(order))
    assert positions[1] == 10.0
    assert max(positions) <= 100.0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234567, "1,234,567"),
        (2.5, "2.5"),
        (1.00012, "1.00012"),
        (1234.5678, "1,234.57"),
        (3e-7, "3e-07"),
    ],
)
def test_figures_for_people(value: float, text: str) -> None:
    assert figure(value) == text


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize("name", ["ink", "muted", "made", "given"])
def test_text_is_legible(theme: Theme, name: str) -> None:
    for ground in (theme.paper, theme.panel):
        light, dark = sorted((luminance(getattr(theme, name)), luminance(ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_blending_ends_at_both_colors() -> None:
    assert blend("#000000", "#ffffff", 0.0) == "#000000"
    assert blend("#000000", "#ffffff", 1.0) == "#ffffff"
    assert re.fullmatch("#[0-9a-f]{6}", blend(LIGHT.made_soft, LIGHT.made, 0.3))

"""The report: one page that holds its pictures, sounds and MIDI files, and needs no network.

The page loads nothing: its content security policy allows its own style sheet (by digest) and data URIs, and
no script. Beside it lie the same pictures and sounds as files. The same content gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from coma_gen.errors import Fault, UserError
from coma_gen.files import replacing_folder, write_atomic
from coma_gen.render.charts import (
    bits_by_composer,
    bits_per_note,
    learning_curve,
    nll_by_context,
    nll_by_type,
)
from coma_gen.render.content import (
    FEWEST_TOKENS,
    MOST_COMPOSERS,
    OURS,
    RESOLVED,
    ReportContent,
    composer_bars,
    context_curves,
    curve_points,
    score_bars,
    token_types,
)
from coma_gen.render.gallery import Card, file_names, render_sample
from coma_gen.render.svg import CHART_STYLE, Drawing, figure
from coma_gen.render.tables import (
    Table,
    fidelity_table,
    listing,
    memorisation_table,
    music_table,
    performance_tables,
    score_table,
    split_remarks,
    split_table,
)
from coma_gen.render.theme import css_variables

PAGE = "index.html"
HERE = Path(__file__).parent


@dataclass(frozen=True)
class _Tile:
    """One figure of the headline."""

    value: str
    name: str
    detail: str = ""


@dataclass(frozen=True)
class _Chart:
    """One chart: its file's name, heading, picture, and the words for who cannot see it."""

    file: str
    heading: str
    caption: str
    drawing: Drawing
    description: str

    @property
    def svg(self) -> Markup:
        """The picture as part of the page; `svg.Drawing` escapes every text in it."""
        return Markup(self.drawing.to_svg(self.description))  # noqa: S704


def build_report(destination: Path, *, content: ReportContent) -> None:
    """Writes the report: `destination`/index.html, and every chart, piano roll and sound beside it.

    The folder is replaced as a whole, so that nothing of an earlier report is left in it.

    Raises:
        UserError: when `destination` holds something else than a report.
    """
    if destination.exists() and not _may_replace(destination):
        rule = f"must be absent, empty or a report (with {PAGE}): it is replaced as a whole"
        raise UserError(Fault(str(destination), rule, "other files", "name another folder"))
    with replacing_folder(destination) as folder:
        charts = _charts(content)
        for chart in charts:
            write_atomic(folder / chart.file, chart.drawing.to_file(chart.description))
        files = file_names([sample.name for sample in content.samples])
        cards = [render_sample(folder, content, *pair) for pair in zip(content.samples, files, strict=True)]
        write_atomic(folder / PAGE, _page(content, charts, cards))


def _may_replace(destination: Path) -> bool:
    return destination.is_dir() and ((destination / PAGE).exists() or not any(destination.iterdir()))


def _page(content: ReportContent, charts: Sequence[_Chart], cards: Sequence[Card]) -> str:
    """The page as HTML."""
    sheets = (CHART_STYLE, HERE / "report.css")
    style = css_variables() + "".join(sheet.read_text(encoding="utf-8") for sheet in sheets)
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        content=content,
        style=Markup(style),  # noqa: S704 - our own files
        style_digest=digest,
        summary=_summary(content),
        tiles=_tiles(content),
        scores=score_table(content),
        performances=performance_tables(content),
        charts=charts,
        cards=cards,
        splits=split_table(content),
        split_remarks=split_remarks(content),
        details=_details(content),
        rest=_rest(content),
        is_maestro=content.corpus.startswith("maestro") and not content.is_synthetic,
    )


def _summary(content: ReportContent) -> str:
    """What was trained on what, in a sentence."""
    parameters = content.number("train", "parameters")
    size = f" of {_rounded(parameters)} parameters" if parameters is not None else ""
    performances, hours = (
        sum(content.number("split", split, key) or 0.0 for split in ("train", "validation", "test"))
        for key in ("performances", "hours")
    )
    corpus = content.corpus_phrase
    if performances:
        corpus += f" ({figure(performances)} performances, {figure(hours, 3)} hours)"
    return f"A {OURS}{size} that continues piano music, trained on {corpus}."


def _rounded(number: float) -> str:
    for unit, name in ((1e9, " billion"), (1e6, " million"), (1e3, " thousand")):
        if number >= 0.9995 * unit:
            return f"{number / unit:.3g}{name}"
    return figure(number)


def _tiles(content: ReportContent) -> list[_Tile]:
    """The headline's figures, those that are there."""
    tiles = []
    value, low, high = (content.number("evaluate", "test", RESOLVED + end) for end in ("", "_low", "_high"))
    corpus = f"test split, {content.corpus_name}"
    if value is not None:
        interval = f"95%: {low:.1f} to {high:.1f}; " if low is not None and high is not None else ""
        tiles.append(_Tile(f"{value:.1f}", "bits per note at 10 ms", interval + corpus))
    bigram = content.number("baseline", "test", "bigram", RESOLVED)
    if bigram is not None:
        tiles.append(_Tile(f"{bigram:.1f}", "the same for a bigram", corpus))
    nats = content.number("evaluate", "test", "nll_per_token")
    if nats is not None:
        tiles.append(_Tile(f"{nats:.3f}", "nats per token", corpus))
    illegal = content.number("sample", "illegal_probability")
    if illegal is not None:
        label = "of the probability falls on tokens that cannot follow"
        tiles.append(_Tile(f"{illegal:.1%}", label, "generated music, before the grammar forbids them"))
    return tiles


def _charts(content: ReportContent) -> list[_Chart]:
    """The charts that there are figures for."""
    charts = (
        _learning(content),
        _comparison(content),
        _difficulty(content),
        _context(content),
        _composers(content),
    )
    return [chart for chart in charts if chart is not None]


def _learning(content: ReportContent) -> _Chart | None:
    curves = {
        name: curve_points(content, column)
        for name, column in (("training", "train_loss"), ("validation", "validation_nll"))
    }
    baselines = ("bigram", "unigram")
    found = {name: content.number("baseline", "validation", name, "nll_per_token") for name in baselines}
    references = {name: value for name, value in found.items() if value is not None}
    drawing = learning_curve(curves["training"], curves["validation"], references)
    ends = (
        f"{name} from {points[0][1]:.3g} to {points[-1][1]:.3g}" for name, points in curves.items() if points
    )
    caption = f"Loss while training on {content.corpus_phrase}. The ring marks the best validation"
    caption += "; dashes are baselines on the validation split." if references else "."
    spoken = "Learning curve in nats per token: " + ", ".join(ends)
    return None if drawing is None else _Chart("learning-curve.svg", "Learning", caption, drawing, spoken)


def _comparison(content: ReportContent) -> _Chart | None:
    bars = score_bars(content)
    drawing = bits_per_note(bars)
    has_interval = any(bar.low is not None for bar in bars)
    caption = (
        f"Code length of held-out music of {content.corpus_phrase} at a common resolution of 10 ms. "
        f"Shorter is better{'; whiskers are 95% confidence' if has_interval else ''}."
    )
    told = (f"{bar.model}, {bar.split}: {bar.value:.2f}" for bar in bars)
    spoken = "Bits per note at 10 ms: " + "; ".join(told)
    return None if drawing is None else _Chart("bits-per-note.svg", "Bits per note", caption, drawing, spoken)


def _difficulty(content: ReportContent) -> _Chart | None:
    split, types = token_types(content)
    drawing = nll_by_type(types)
    caption = (
        "Nats per token by token type, and what each type adds to the bits of a note; "
        f"{split} split of {content.corpus_phrase}."
    )
    told = (f"{name}: {row['nll_per_token']:.3f}" for name, row in types.items())
    spoken = "Nats per token by type: " + "; ".join(told)
    return None if drawing is None else _Chart("nll-by-type.svg", "What is hard", caption, drawing, spoken)


def _context(content: ReportContent) -> _Chart | None:
    split, curves = context_curves(content)
    drawing = nll_by_context(curves)
    caption = (
        "Nats per token by how many tokens the model saw before: carried, since the start of the performance "
        "(beginnings are unlike middles); windowed, within windows that start anywhere. Places with fewer "
        f"than {FEWEST_TOKENS} tokens are left out. {split.capitalize()} split of {content.corpus_phrase}."
    )
    told = (f"{name}, {before:.0f}: {nats:.3f}" for name, curve in curves.items() for before, nats in curve)
    spoken = "Nats per token by tokens before: " + "; ".join(told)
    return None if drawing is None else _Chart("nll-by-context.svg", "Context", caption, drawing, spoken)


def _composers(content: ReportContent) -> _Chart | None:
    split, bars, told = composer_bars(content)
    drawing = bits_by_composer(bars, told)
    most = f", of the {MOST_COMPOSERS} with the most notes" if len(bars) == MOST_COMPOSERS else ""
    caption = (
        f"What a note of each composer costs{most}; {split} split of {content.corpus_phrase}. "
        "Whiskers are 95% confidence over compositions, where there is more than one."
    )
    spoken = "Bits per note at 10 ms: " + "; ".join(f"{bar.model}: {bar.value:.2f}" for bar in bars)
    return None if drawing is None else _Chart("bits-by-composer.svg", "Composers", caption, drawing, spoken)


def _details(content: ReportContent) -> list[tuple[str, str, list[Table]]]:
    """(anchor, heading, tables) of the sections that list the figures of one stage."""
    head = ("measure", "value")
    music = content.find("sample")
    if isinstance(music, Mapping):
        music = {key: value for key, value in music.items() if key not in ("music", "memorisation")}
    training = listing(f"Training on {content.corpus_phrase}.", head, content.find("train"))
    samples = listing(f"The samples of a model of {content.corpus_phrase}.", head, music)
    wanted = (
        ("training", "Training", (training,)),
        ("tokenizer", "Tokenizer", (fidelity_table(content),)),
        ("music", "Generated music", (samples, music_table(content), memorisation_table(content))),
    )
    sections = (
        (anchor, heading, [table for table in tables if table is not None])
        for anchor, heading, tables in wanted
    )
    return [section for section in sections if section[2]]


def _rest(content: ReportContent) -> list[Table]:
    """Everything measured, stage by stage, and the params, for who looks for one number."""
    named = [(f"metrics/{stage}.json", figures) for stage, figures in content.metrics.items()]
    named.append(("params.yaml", content.params))
    tables = [Table(name, ("key", "value"), _dotted(value)) for name, value in named]
    return [table for table in tables if table.rows]


def _dotted(value: Any, key: str = "") -> list[tuple[str, str]]:
    """Every leaf by its dotted key, as `dvc metrics show` and `-S` spell it, with its JSON value."""
    if isinstance(value, Mapping):
        return [
            leaf
            for name, item in value.items()
            for leaf in _dotted(item, f"{key}.{name}" if key else str(name))
        ]
    return [(key or "value", value if isinstance(value, str) else json.dumps(value, default=str))]

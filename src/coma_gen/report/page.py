"""The report: a single HTML page with embedded images, sounds and MIDI files that works offline.

The page loads nothing: its content security policy allows only data URIs and, by digest, its own style sheet
and script. Without JavaScript the content is the same and sounds use the browser's controls; a page without
sounds has no script. The images, sounds and MIDI files are also saved beside the page. The same content gives
the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import atomic_dir, write_atomic
from coma_gen.report.captions import Chart, captioned_charts
from coma_gen.report.content import ReportContent
from coma_gen.report.details import details, everything
from coma_gen.report.gallery import Card, file_names, render_sample
from coma_gen.report.headline import headline, summary
from coma_gen.report.svg import CHART_STYLE
from coma_gen.report.tables import performance_tables, score_table, split_remarks, split_table
from coma_gen.report.theme import css_variables

PAGE = "index.html"
HERE = Path(__file__).parent
STYLE, SCRIPT = HERE / "report.css", HERE / "report.js"


def build_report(destination: Path, *, content: ReportContent) -> None:
    """Writes `destination`/index.html, and every chart, piano roll and sound beside it.

    The folder is replaced as a whole, so that no file of an earlier report remains.

    Raises:
        UserError: If `destination` contains something other than a report.
    """
    if destination.exists() and not _may_replace(destination):
        rule = f"must be absent, empty or a report (with {PAGE}): it is replaced as a whole"
        raise UserError(Fault(str(destination), rule, "other files", "name another folder"))
    with atomic_dir(destination) as folder:
        charts = captioned_charts(content)
        for chart in charts:
            write_atomic(folder / chart.file, chart.drawing.to_file(chart.description))
        files = file_names([sample.name for sample in content.samples])
        cards = [render_sample(folder, content, *pair) for pair in zip(content.samples, files, strict=True)]
        write_atomic(folder / PAGE, _render_report(content, charts, cards))


def _may_replace(destination: Path) -> bool:
    return destination.is_dir() and ((destination / PAGE).exists() or not any(destination.iterdir()))


def _render_report(content: ReportContent, charts: Sequence[Chart], cards: Sequence[Card]) -> str:
    """Renders the report page as HTML."""
    return render_page(
        "report.html.j2",
        sheets=(CHART_STYLE, STYLE),
        has_script=any(card.sound for card in cards),
        content=content,
        summary=summary(content),
        tiles=headline(content),
        scores=score_table(content),
        performances=performance_tables(content),
        charts=charts,
        cards=cards,
        splits=split_table(content),
        split_remarks=split_remarks(content),
        details=details(content),
        rest=everything(content),
        is_maestro=content.corpus.startswith("maestro") and not content.is_synthetic,
    )


def render_page(
    template: str,
    *,
    sheets: Sequence[Path],
    has_script: bool,
    scripts: Sequence[Path] = (SCRIPT,),
    **values: Any,
) -> str:
    """Renders a template of this folder as HTML that loads no external resources.

    Args:
        template: File name of the template.
        sheets: Style sheets, in order.
        has_script: Whether to include the scripts, which add players to the sounds of the page.
        scripts: Scripts, in order.
        values: Variables of the template.
    """
    style = css_variables() + "".join(sheet.read_text(encoding="utf-8") for sheet in sheets)
    script = "".join(path.read_text(encoding="utf-8") for path in scripts)
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        style=Markup(style),  # noqa: S704 - our own files
        script=Markup(script) if has_script else None,  # noqa: S704
        digest=_compute_digest,
        **values,
    )


def _compute_digest(text: str) -> str:
    """The hash source by which a content security policy allows an inline style sheet or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")

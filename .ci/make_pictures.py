"""Makes the pictures of docs/experiments.md: what DVC and MLflow show of the demo and two experiments.

    make pictures                          clones this checkout's commit and runs all there (some minutes)
    make pictures ARGS='--keep DIR'        the same in a folder that stays
    make pictures ARGS='--checkout DIR'    takes one that was made so

Every picture is what a real Chromium shows, 1440 pixels wide and 900 high.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "helpers"), str(ROOT / "src")]

from checkout import DVC, clone, commit, dvc  # noqa: E402
from chromium import VARIABLE, Browser, Page, browser, find_browser  # noqa: E402
from subprocess_utils import environment, run, started, wait_until  # noqa: E402

from coma_gen.tracking.store import Store, open_store  # noqa: E402
from coma_gen.tracking.view import RUNS_PAGE  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
EXPERIMENTS = {
    "short": ["train.steps=300"],
    "adamw": ["train.steps=300", "train.optimizer=adamw"],
}
COMPARED = ("short", "adamw")
WIDTH, HEIGHT = 1440, 900
COLORS = 128
"""Of a picture's palette."""
SHOWN = ("exp", "show", "--only-changed", "--drop", "Created|Executor|State|.*/")
COLUMNS = 160
MARGIN = 24
DRAWING_SECONDS = 5.0
"""Charts are drawn a while after their page has its words."""
ML = "workflowType=machine_learning"
"""MLflow's menus for training, in which the link of `coma-gen ui` opens it."""
ASSISTANT = {"panelOpen": "false", "fab.autoOpenedOnFirstLoad": "true"}
"""MLflow opens a panel for its assistant at the first visit of a browser; here it was closed before."""
CHARTS = "[...document.querySelectorAll('[aria-expanded]')].find(e => e.innerText === 'Visualizations')"
DIFFERENCES = "document.querySelectorAll('[role=switch]')[0]"
"""Of the page that compares runs: what folds the charts, and what hides the params that are equal."""
TERMINAL = """<!DOCTYPE html><meta charset="utf-8"><style>
body {{ margin: 0; padding: 24px; background: #1c1f26; color: #e6e6e6; }}
pre {{ margin: 0; font: 14px/1.5 "DejaVu Sans Mono", monospace; }}
b {{ color: #8bd5a0; }}</style><pre><b>$ {command}</b>

{output}</pre>"""


def build(folder: Path) -> Path:
    """A clone with the demo's results, committed, and the experiments."""
    clone(ROOT, folder)
    run(folder, "git", "config", "user.name", "coma-gen")
    run(folder, "git", "config", "user.email", "coma-gen@localhost")
    run_dvc(folder, "repro")
    commit(folder, "results")
    for name, changes in EXPERIMENTS.items():
        run_dvc(folder, "exp", "run", "-n", name, *(word for change in changes for word in ("-S", change)))
        run(folder, "git", "checkout", "-q", ".")
        dvc(folder, "checkout")
    return folder


def run_dvc(folder: Path, *words: str) -> None:
    """Runs `dvc` for as long as it takes, its words being seen."""
    done = subprocess.run([*DVC, *words], cwd=folder, env=environment(), check=False)
    if done.returncode:
        sys.exit(f"make pictures: dvc {' '.join(words)} failed in {folder}")


def take(chromium: Browser, address: str, name: str, *, words: str, clicks: Sequence[str] = ()) -> None:
    """Writes what a page shows once it says some words and some of its elements were clicked."""
    page = chromium.page(address, width=WIDTH, height=HEIGHT)
    page.wait(f"(document.body?.innerText ?? '').includes({json.dumps(words)})")
    for element in clicks:
        page.wait(f"{element} != null")
        page.click(element)
    page.value("document.querySelectorAll('*').forEach(e => { e.scrollTop = 0; })")
    time.sleep(DRAWING_SECONDS)
    write(page, PICTURES / f"{name}.png")
    page.close()


def write(page: Page, path: Path) -> None:
    """Writes what a page shows now, with few colors; a terminal as high as its text."""
    height = page.value("document.querySelector('body > pre')?.getBoundingClientRect().bottom")
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": min(HEIGHT, (height or HEIGHT) + MARGIN), "scale": 1}
    shot = base64.b64decode(page.call("Page.captureScreenshot", clip=clip)["data"])
    with Image.open(io.BytesIO(shot)) as image:
        few = image.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
        few.save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB", flush=True)


def take_dvc(chromium: Browser, checkout: Path, folder: Path) -> None:
    """What DVC shows: in a terminal, and as plots."""
    output = dvc(checkout, *SHOWN, "--no-pager", env={"COLUMNS": str(COLUMNS)})
    command = f"dvc {' '.join(word if '|' not in word else repr(word) for word in SHOWN)}"
    text = TERMINAL.format(command=html.escape(command), output=html.escape(output))
    (folder / "terminal.html").write_text(text, encoding="utf-8")
    take(chromium, (folder / "terminal.html").as_uri(), "dvc-exp-show", words=COMPARED[0])
    run(checkout, sys.executable, "-m", "coma_gen.workspace.plots_page")
    dvc(checkout, "plots", "diff", *COMPARED, "-o", str(folder / "plots"))
    take(chromium, (folder / "plots" / "index.html").as_uri(), "dvc-plots-diff", words="Train and validation")


def take_mlflow(chromium: Browser, address: str, store: Store) -> None:
    """What MLflow shows: all runs, their charts, two of them, one, and the model of one."""
    page = chromium.page(f"{address}/", width=WIDTH, height=HEIGHT)
    for name, value in ASSISTANT.items():
        page.value(f"localStorage.setItem('mlflow.assistant.{name}_v1', '{value}')")
    page.close()
    ids = {run.info.run_name: run.info.run_id for run in store.client.search_runs([store.experiment_id])}
    runs, one = f"{address}/{RUNS_PAGE}", f"{address}/#/experiments/{store.experiment_id}/runs"
    both = quote(json.dumps([ids[name] for name in COMPARED]))
    compared = (
        f"{address}/#/compare-runs?runs={both}&experiments={quote(json.dumps([store.experiment_id]))}&{ML}"
    )
    take(chromium, runs, "mlflow-runs", words=COMPARED[0])
    take(chromium, f"{runs}&compareRunsMode=CHART", "mlflow-charts", words="loss/validation")
    take(chromium, compared, "mlflow-compare", words="Show diff only", clicks=(CHARTS, DIFFERENCES))
    take(chromium, f"{one}/{ids[COMPARED[0]]}?{ML}", "mlflow-run", words="bits per note")
    take(chromium, f"{address}/#/models/coma-gen/versions/1?{ML}", "mlflow-model", words="bits per note")


def answers(port: int) -> bool:
    """Whether MLflow's server is there."""
    with suppress(OSError):
        urlopen(f"http://127.0.0.1:{port}/health", timeout=20).close()
        return True
    return False


def main() -> None:
    """Builds what is not there, and takes the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkout", type=Path, help="one that was made before")
    parser.add_argument("--keep", type=Path, help="where to make one")
    options = parser.parse_args()
    try:
        program = find_browser()
    except FileNotFoundError as error:
        sys.exit(f"make pictures: {error}")
    if program is None:
        sys.exit(f"make pictures needs Chromium or Chrome; install one, or name it in {VARIABLE}")
    with tempfile.TemporaryDirectory(prefix="coma-gen-pictures-") as temporary:
        folder = Path(temporary)
        checkout = (options.checkout or build(options.keep or folder / "checkout")).resolve()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = [sys.executable, "-m", "coma_gen.cli", "ui", "--port", str(port)]
        with browser(program, folder) as chromium, started(checkout, *words) as ui:
            take_dvc(chromium, checkout, folder)
            wait_until(lambda: answers(port), told=lambda: ui.output)
            take_mlflow(chromium, f"http://127.0.0.1:{port}", open_store(checkout))


if __name__ == "__main__":
    main()

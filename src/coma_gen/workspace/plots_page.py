"""An offline HTML template for `dvc plots`, with Vega embedded.

The default template of DVC fetches Vega from a server. `make` writes this one at installation and configures
it in .dvc/config.local, which is local to the clone. Vega comes from vl-convert-python (all BSD-3-Clause), so
that it need not be vendored.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import write_atomic

PAGE = "plots/page.html"
"""Path below .dvc, ignored by git."""
VEGA_LITE = "5.20"
"""DVC's templates use the schema of version 5."""
SNIPPET = "window.vegaEmbed = vegaEmbed;"
TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{refresh_tag}
<title>coma-gen: plots</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem; display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
body > div { max-width: 100%; overflow-x: auto; }
#Train_and_validation, #metrics_validation_csv { order: -1; } /* which learns faster, first */
img { width: 44vw; min-width: 20rem; }
</style>
<script>SCRIPTS</script>
<script>
// DVC adds an element without a plot for every metrics file that it knows.
const draw = window.vegaEmbed;
window.vegaEmbed = (place, spec) => {
  if (spec.data) draw(place, spec, { actions: false, renderer: "svg" });
  else document.querySelector(place).hidden = true;
};
</script>
</head>
<body>
{plot_divs}
</body>
</html>
"""


def write_page(root: Path) -> Path:
    """Writes the template into a checkout, and configures `dvc plots` to use it.

    Raises:
        UserError: If vl-convert-python is not installed, this is not a checkout, or DVC fails.
    """
    try:
        from vl_convert import javascript_bundle
    except ImportError:
        remedy = "make .venv/.installed, or `pip install vl-convert-python`"
        raise UserError(Fault("vl-convert-python", "must be installed", "", remedy)) from None
    if not (root / ".dvc").is_dir():
        raise UserError(Fault(".dvc", "must exist", "", "change to the folder that you cloned coma-gen into"))
    scripts = javascript_bundle(SNIPPET, vl_version=VEGA_LITE).replace("</script", "<\\/script")
    path = root / ".dvc" / PAGE
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, TEMPLATE.replace("SCRIPTS", scripts))
    command = [sys.executable, "-m", "dvc", "config", "--local", "plots.html_template", PAGE]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(Fault("dvc config", "must succeed", done.stderr.strip()))
    return path


if __name__ == "__main__":
    try:
        write_page(Path.cwd())
    except UserError as error:
        sys.exit(f"dvc plots will need a network: {error}")

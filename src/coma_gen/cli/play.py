"""`coma-gen play`: try a model on a local web page."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import webbrowser
from typing import Any

from coma_gen.cli.serve import add_limits, requested_limits
from coma_gen.workspace.paths import Workspace
from coma_gen.workspace.pretrained import MODEL_HELP, name_of_model

EXAMPLES = """examples:
  coma-gen play                                 the model that `dvc repro` trained
  coma-gen play --model models:/coma-gen@champion
  coma-gen play --no-browser --port 8000        only serve the page, at http://127.0.0.1:8000

The page can be opened on this machine only, and sends no data anywhere else. See docs/play.md.
"""


def add_command(commands: Any) -> None:
    """Adds `play` to the sub-commands of an argparse parser."""
    parser = commands.add_parser(
        "play",
        help="continue MIDI files on a local web page",
        description="Open a local web page on which a model continues your MIDI files. Stop with Ctrl-C.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", metavar="MODEL", help=MODEL_HELP)
    add("--no-browser", action="store_true", help="only print the address")
    add("--port", type=int, default=0, metavar="N", help="port on 127.0.0.1 (default: any free port)")
    add("--device", choices=("cpu", "cuda", "mps", "auto"), default="cpu", help="(default: cpu)")
    add("--threads", type=int, default=1, metavar="N", help="CPU threads; results depend on it (default: 1)")
    add_limits(parser)
    parser.set_defaults(run=run, anywhere=True)


def run(workspace: Workspace | None, options: argparse.Namespace, _rest: list[str]) -> int:
    """Loads the model and serves the page until Ctrl-C."""
    if "numpy" not in sys.modules:  # it chooses its kernels while it is imported
        from coma_gen.core.seeding import pin_cpu

        pin_cpu(pin=True, threads=max(1, options.threads))

    from coma_gen.serving.app import listen, run_until_stopped
    from coma_gen.tracking.model_store import named_model

    _given, limits = requested_limits(options)
    with named_model(options.model, workspace) as folder:
        options.model = name_of_model(options.model, folder)
        listening = listen(options.port)
        print("Loading the model ...", flush=True)
        from coma_gen.generation.music_generator import MusicGenerator

        composer = MusicGenerator.load(folder, device=options.device)

    from coma_gen.play.app import build_app
    from coma_gen.play.studio import Studio

    studio = Studio(composer, options.model, limits, options.threads, options.device)
    studio.warm_up()

    def announce(address: str) -> None:
        print(f"The page is at {address}/ , on this machine only.\nStop with Ctrl-C.", flush=True)
        if not options.no_browser and _has_screen():
            threading.Thread(target=webbrowser.open, args=(f"{address}/",), daemon=True).start()

    run_until_stopped(build_app(studio), listening, announce)


def _has_screen() -> bool:
    """Whether there is a display; without one, `webbrowser` might start a text browser in this terminal."""
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))

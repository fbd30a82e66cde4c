"""download: writes the corpus of `download.corpus` to data/corpus in the layout of MAESTRO."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH Python does not
from _start import run


def download(params, workspace) -> None:
    """Downloads or generates the performances, verifies them, and writes them with their CSV table."""
    from coma_gen.corpus.build import build_corpus

    metrics = build_corpus(
        params.download,
        workspace.data("corpus"),
        cache=workspace.downloads,
        own_folder=workspace.own_folder(params.download.path),
    )
    workspace.write_metrics("download", metrics)


if __name__ == "__main__":
    run(download)

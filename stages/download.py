"""download: brings the corpus of `download.corpus` into data/corpus, in the shape of MAESTRO."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH Python does not
from _start import run


def download(params, workspace) -> None:
    """Fetches or generates the performances, proves them, and lays them out beside their CSV."""
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

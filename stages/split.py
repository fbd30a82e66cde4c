"""split: divides the corpus into train, validation and test, and reads every MIDI file once."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH Python does not
from _start import run


def split(params, workspace) -> None:
    """Writes one CSV per split; unreadable files are reported and counted here, and not passed on."""
    from coma_gen.corpus.split import split_corpus

    metrics = split_corpus(params.split, workspace.data("corpus"), workspace.data("split"))
    workspace.write_metrics("split", metrics)


if __name__ == "__main__":
    run(split)

"""fit_tokenizer: builds the REMI tokenizer from the train split and measures its round-trip errors."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH Python does not
from _start import run


def fit_tokenizer(params, workspace) -> None:
    """Trains BPE if `tokenizer.vocab_size` is set; fails if round-trip errors exceed their limits."""
    from coma_gen.tokenizer.stage import fit_tokenizer as fit

    metrics = fit(
        params.tokenizer, workspace.data("split"), workspace.data("corpus"), workspace.data("tokenizer")
    )
    workspace.write_metrics("fit_tokenizer", metrics)


if __name__ == "__main__":
    run(fit_tokenizer)

"""What an experiment is called, and the key that tells it from all others before anything has run."""

from __future__ import annotations

import os
from pathlib import Path

from coma_gen.workspace.fingerprint import experiment_digest

WORKSPACE = "workspace"


def identify(root: Path) -> tuple[str, str]:
    """An experiment's name and key.

    Args:
        root: the checkout that it runs in.

    Returns:
        DVC's name of the experiment, or "workspace" for `dvc repro`; and the name with the digest of all
        params, the code and the corpus.

    Raises:
        UserError: when dvc.yaml, params.yaml or the corpus is missing.
    """
    name = os.environ.get("DVC_EXP_NAME") or WORKSPACE
    return name, f"{name}-{experiment_digest(root)}"

"""The name of an experiment, and a unique key that is known before it runs."""

from __future__ import annotations

import os
from pathlib import Path

from coma_gen.workspace.fingerprint import experiment_digest

WORKSPACE = "workspace"


def identify(root: Path) -> tuple[str, str]:
    """Computes the name and key of an experiment.

    Args:
        root: The checkout that it runs in.

    Returns:
        The name of the DVC experiment, or "workspace" for `dvc repro`; and the name followed by the digest of
        all params, the code and the corpus.

    Raises:
        UserError: If dvc.yaml, params.yaml or the corpus is missing.
    """
    name = os.environ.get("DVC_EXP_NAME") or WORKSPACE
    return name, f"{name}-{experiment_digest(root)}"

r"""The model as MLflow serves it: MIDI in, MIDI out, as base64 text in JSON.

MLflow keeps this file as code (models-from-code, no pickle) beside a copy of the library and of data/model,
and runs it where the model is loaded:

    mlflow models serve -m models:/coma-gen@champion --env-manager local --host 127.0.0.1 --port 5001
    curl http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' \
        -d '{"inputs": [{"midi": "'$(base64 -w0 my.mid)'", "seconds": 20, "seed": 1}]}'

Each row is one piece. Every column, but not all of them, may be left out or null: without `midi` the piece is
made from nothing, and what else is missing has the value that the model was registered with. A request that
cannot be met is refused with status 400 and the reason.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext

SETTINGS = ("seconds", "seed", "temperature", "top_k", "top_p", "min_p", "prompt_seconds")
WHOLE = ("seed", "top_k")
MAX_ROWS = 64
MAX_BASE64 = 16 * 2**20
LARGEST_WHOLE = 2.0**53
"""Pieces of one request; characters of one prompt; the largest whole number that JSON keeps exactly."""


def refusal(reason: str) -> MlflowException:
    """What the server turns into status 400."""
    return MlflowException(reason, error_code=INVALID_PARAMETER_VALUE)


class Continuation(PythonModel):
    """Continues piano performances."""

    def load_context(self, context: PythonModelContext) -> None:
        """Proves the model's files against their manifest."""
        from coma_gen.artefact import open_artefact

        open_artefact(Path(context.artifacts["model"]), kind="model")

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: Mapping[str, Any] | None = None,  # noqa: ARG002 - MLflow's signature
    ) -> pd.DataFrame:
        """Continues the prompt of each row.

        Args:
            context: where the model is, and the settings it was registered with.
            model_input: columns `midi` (base64 text) and those of `SETTINGS`, each optional.
            params: not used.

        Returns:
            A row for each, with the column `midi`: prompt and continuation, base64.

        Raises:
            MlflowException: when a row cannot be met; the server answers 400 with the reason.
        """
        if not 1 <= len(model_input) <= MAX_ROWS:
            known = ", ".join(("midi", *SETTINGS))
            got = len(model_input)
            raise refusal(f"a request must have 1 to {MAX_ROWS} rows with some of {known}, got {got} rows")
        folder, defaults = Path(context.artifacts["model"]), dict(context.model_config or {})
        rows = model_input.to_dict(orient="records")
        pieces = [_continued(folder, row, defaults, number) for number, row in enumerate(rows)]
        return pd.DataFrame({"midi": [base64.b64encode(piece).decode("ascii") for piece in pieces]})


def _continued(folder: Path, row: Mapping[Any, Any], defaults: Mapping[str, Any], number: int) -> bytes:
    from coma_gen.errors import UserError
    from coma_gen.generation.continuation import continue_midi

    where = f"row {number}"
    settings = {name: _setting(name, row.get(name), defaults.get(name), where) for name in SETTINGS}
    try:
        return continue_midi(folder, _prompt(row.get("midi"), where), **settings)
    except UserError as error:
        raise refusal(f"{where}: {error}") from None


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _setting(name: str, value: Any, default: Any, where: str) -> Any:
    if _is_missing(value):
        return default
    if name not in WHOLE:
        return float(value)
    if not 0 <= value <= LARGEST_WHOLE or value != int(value):
        raise refusal(f"{where}: {name}: must be a whole number from 0 to 2**53, got {value}")
    return int(value)


def _prompt(text: Any, where: str) -> bytes | None:
    if _is_missing(text):
        return None
    if not isinstance(text, str):
        raise refusal(f"{where}: midi: must be text")
    if len(text) > MAX_BASE64:
        raise refusal(f"{where}: midi: must have at most {MAX_BASE64} characters, got {len(text)}")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise refusal(f"{where}: midi: must be a MIDI file as base64 text") from None


set_model(Continuation())

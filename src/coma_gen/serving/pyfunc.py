r"""The MLflow pyfunc model: MIDI in, MIDI out, as base64 text in JSON.

MLflow stores this file as code (models-from-code, no pickle) beside a copy of the library and of data/model,
and runs it when the model is loaded by `coma-gen serve`, `mlflow models serve`, or a program:

    model = mlflow.pyfunc.load_model("models:/coma-gen@champion")
    model.predict([{"midi": base64.b64encode(content).decode(), "seconds": 20.0, "seed": 1}])

The weights are read once, when the model is loaded. The response has {"midi": base64 text} for each piece, in
the order of the rows. An invalid request is answered with status 400 and the reasons. The model is
thread-safe: each request has its own state, and the weights are read-only.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext


class Continuation(PythonModel):
    """Continues piano performances."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the model.

        Raises:
            UserError: If its files are damaged, or a limit is not positive.
        """
        from coma_gen.core.errors import UserError
        from coma_gen.generation.music_generator import MusicGenerator
        from coma_gen.serving.schema import Limits

        known = {field.name for field in fields(Limits)}
        config = context.model_config or {}
        self._limits = Limits(**{name: value for name, value in config.items() if name in known})
        if faults := self._limits.faults():
            raise UserError(*faults)
        _use_portable_kernels()
        self._composer = MusicGenerator.load(Path(context.artifacts["model"]))
        self._turns = BoundedSemaphore(self._limits.at_once)

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow's signature
        model_input: list[dict[str, str | float]],
        params: Mapping[str, Any] | None = None,  # noqa: ARG002 - MLflow's signature
    ) -> list[dict[str, str]]:
        """Continues the prompt of each row.

        Args:
            context: Unused.
            model_input: Objects with `midi` (base64 text) and settings of `Request`, all optional.
            params: Unused.

        Returns:
            An object with `midi` for each piece.

        Raises:
            MlflowException: If a row is invalid; the server answers with status 400 and the reasons.
        """
        from coma_gen.core.errors import UserError
        from coma_gen.generation.generate import continue_midi
        from coma_gen.serving.schema import parse_request

        try:
            rows = parse_request(model_input, self._limits)
            with self._turns:
                pieces = [
                    piece
                    for row in rows
                    for piece in continue_midi(self._composer, row.midi, row.request, name=row.name)
                ]
        except UserError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from None
        return [{"midi": base64.b64encode(piece).decode("ascii")} for piece in pieces]


def _use_portable_kernels() -> None:
    """Enables, for the whole process, the kernels that `deterministic` enables while a command runs.

    Requests run concurrently, so that none may restore the settings while another is running.
    """
    import torch

    from coma_gen.core.seeding import is_pinned
    from coma_gen.model.portable import replace_kernels

    if is_pinned() and torch.get_num_threads() == 1:
        replace_kernels()
        torch.backends.cuda.enable_flash_sdp(False)


set_model(Continuation())

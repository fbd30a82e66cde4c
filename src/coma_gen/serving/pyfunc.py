r"""The model as MLflow serves it: MIDI in, MIDI out, as base64 text in JSON.

MLflow keeps this file as code (models-from-code, no pickle) beside a copy of the library and of data/model,
and runs it where the model is loaded: by `coma-gen serve`, by `mlflow models serve`, or in a program:

    model = mlflow.pyfunc.load_model("models:/coma-gen@champion")
    model.predict([{"midi": base64.b64encode(content).decode(), "seconds": 20.0, "seed": 1}])

The weights are read once, when the model is loaded. Each piece is answered with {"midi": base64 text}: those
of the first row, then of the second. A request that cannot be met is refused with status 400 and the reasons.
Threads may ask at the same time: each request has a state of its own, and the weights are only read.
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
        """Reads the model, once.

        Raises:
            UserError: its files are not whole, or a limit lets nothing through.
        """
        from coma_gen.core.errors import UserError
        from coma_gen.generation.music_generator import MusicGenerator
        from coma_gen.serving.schema import Limits

        known = {field.name for field in fields(Limits)}
        config = context.model_config or {}
        self._limits = Limits(**{name: value for name, value in config.items() if name in known})
        if faults := self._limits.faults():
            raise UserError(*faults)
        _compute_as_the_command_line()
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
            context: not used.
            model_input: objects with `midi` (base64 text) and settings of `Request`, each optional.
            params: not used.

        Returns:
            An object with `midi` for each piece.

        Raises:
            MlflowException: when a row cannot be met; the server answers 400 with the reasons.
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


def _compute_as_the_command_line() -> None:
    """Takes, for the rest of the process, the products that `deterministic` takes while a command runs:
    answers are worked out side by side, so that none may put settings back under another.
    """
    import torch

    from coma_gen.core.seeding import is_pinned
    from coma_gen.model.portable import replace_kernels

    if is_pinned() and torch.get_num_threads() == 1:
        replace_kernels()
        torch.backends.cuda.enable_flash_sdp(False)


set_model(Continuation())

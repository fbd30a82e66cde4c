"""Access to the files of a run: a checkout, or an experiment in git and DVC's cache."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pandas as pd

from coma_gen.core.errors import Fault, UserError


class RunFiles(Protocol):
    """Access to the files of a run: a checkout, or an experiment in git and DVC's cache."""

    @property
    def began_at(self) -> str:
        """The commit of the code."""

    def text(self, path: str) -> str:
        """Reads a text file of the run."""

    def performances(self) -> pd.DataFrame:
        """Reads the evaluation results by performance."""

    def copy_folder(self, path: str, destination: Path) -> None:
        """Copies a folder of the run."""


@dataclass(frozen=True)
class Checkout:
    """The current results in a checkout.

    Attributes:
        root: The checkout.
        began_at: Its commit.
    """

    root: Path
    began_at: str

    def text(self, path: str) -> str:
        """Reads a file.

        Raises:
            UserError: If it does not exist, or is not text.
        """
        try:
            return (self.root / path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise UserError(Fault(path, "must exist and be readable", reason, "run `dvc repro`")) from None

    def performances(self) -> pd.DataFrame:
        """Reads the evaluation results by performance.

        Raises:
            UserError: If they are missing or damaged.
        """
        path = "data/evaluation/performances.parquet"
        try:
            return pd.read_parquet(self.root / path)
        except (OSError, ValueError) as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
            remedy = "run `dvc checkout` or `dvc repro`"
            raise UserError(Fault(path, "must exist and be readable", reason, remedy)) from None

    def copy_folder(self, path: str, destination: Path) -> None:
        """Copies a folder.

        Raises:
            UserError: If it does not exist.
        """
        try:
            shutil.copytree(self.root / path, destination)
        except FileNotFoundError:
            remedy = "run `dvc checkout` or `dvc repro`"
            raise UserError(Fault(path, "must exist and be readable", "no such folder", remedy)) from None

"""Tracking URI: where MLflow runs are stored and how to view them. Needs no import of MLflow."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from coma_gen.core.errors import Fault, UserError

EXPERIMENT = "coma-gen"
MODEL = "coma-gen"
DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
LOCKS = ".mlflow"
SQLITE = "sqlite:///"
URI = "MLFLOW_TRACKING_URI"
SERVERS = ("http", "https")
DATABASES = ("postgresql", "mysql", "mssql")
OTHERS = ("databricks", "databricks-uc", "uc")
ALLOWED = f"{SQLITE}mlflow.db (in the checkout), a server's http://HOST:PORT, or a database's address"


@dataclass(frozen=True)
class Address:
    """The location of MLflow's store.

    Attributes:
        uri: Absolute tracking URI.
        artifacts: Artifact folder, or None if a server manages artifacts.
    """

    uri: str
    artifacts: Path | None

    @property
    def shown(self) -> str:
        """The URI without user name and password."""
        return re.sub(r"//[^/@]*@", "//", self.uri)


def tracking_address(home: Path) -> Address:
    """Returns `MLFLOW_TRACKING_URI` if set, else mlflow.db in `home`; relative paths are relative to `home`.

    Args:
        home: The permanent checkout, also for experiments that run in a temporary copy.
    """
    uri = os.environ.get(URI) or f"{SQLITE}{DATABASE}"
    if not uri.startswith(SQLITE):
        return Address(uri=uri, artifacts=None)
    database = home.resolve() / uri.removeprefix(SQLITE)
    return Address(uri=f"{SQLITE}{database}", artifacts=database.parent / ARTIFACTS)


def check_address(home: Path) -> Address:
    """Validates the tracking URI by its syntax, without connecting or opening files, and returns it.

    A bad URI would otherwise fail only after hours of training, or write files to an unexpected location.

    Raises:
        UserError: If MLflow supports no store of this kind, the database driver is missing, or MLflow and
            SQLAlchemy would parse the path differently.
    """
    address = tracking_address(home)
    given = os.environ.get(URI, "")
    kind = re.match(r"([a-z][a-z-]*)(\+[a-z0-9]+)?(?::|$)", address.uri)
    scheme = kind[1] if kind else ""
    remedy = f"set it to {ALLOWED}; or unset it"
    if address.artifacts is not None:
        _check_path(address, given)
    elif scheme in SERVERS:
        if not _host(address.uri):
            raise UserError(Fault(URI, "must name a host, as http://HOST:PORT does", address.shown, remedy))
    elif scheme in DATABASES:
        _check_driver(address)
    elif scheme not in OTHERS and not _is_allowed_folder(scheme):
        rule = "must be an address that MLflow keeps runs at (it does so in no folder of files any more)"
        raise UserError(Fault(URI, rule, repr(address.shown), remedy))
    return address


def _check_path(address: Address, given: str) -> None:
    path = address.uri.removeprefix(SQLITE)
    where = URI if given else str(Path(path).parent)
    if re.search(r"%[0-9A-Fa-f]{2}", path) or "?" in path:
        rule = "must be without '?' and without '%' before two digits, which an address takes for others"
        remedy = f"move the checkout, or keep the runs elsewhere: {URI}={SQLITE}/PATH/mlflow.db"
        raise UserError(Fault(where, rule, path, remedy))
    if not Path(path).name or Path(path).is_dir():
        raise UserError(Fault(where, "must end with the name of a file", path, f"{URI}={SQLITE}{DATABASE}"))


def _check_driver(address: Address) -> None:
    """Checks that the driver of a database can be imported."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        make_url(address.uri).get_dialect().import_dbapi()
    except ImportError as error:
        rule = "must be an address whose driver is installed"
        remedy = f"install the driver's package (.venv/bin/python -m pip install ...), or unset {URI}"
        raise UserError(Fault(URI, rule, f"{address.shown}: {error}", remedy)) from None
    except (SQLAlchemyError, ValueError) as error:
        raise UserError(Fault(URI, "must be a database's address", f"{address.shown}: {error}")) from None


def _host(uri: str) -> str | None:
    try:
        return urlsplit(uri).hostname
    except ValueError:
        return None


def _is_allowed_folder(scheme: str) -> bool:
    """Whether the URI is a folder and MLflow is configured to allow file stores."""
    return scheme in ("", "file") and os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1")


def ui_command(home: Path, *, port: int = 5000) -> str:
    """Returns the command that serves MLflow's web page on this machine only, to be run in `home`.

    If the runs are on a server, its address is returned instead.
    """
    address = tracking_address(home)
    if address.artifacts is None:
        return address.shown
    database = Path(address.uri.removeprefix(SQLITE))
    local = database.relative_to(home.resolve()) if database.is_relative_to(home.resolve()) else database
    words = [
        "mlflow",
        "ui",
        "--backend-store-uri",
        f"{SQLITE}{local}",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    return shlex.join(words)

"""What repeats generated pieces: settings.json beside them, without dates and paths of this machine."""

from __future__ import annotations

import argparse
import os
import shlex
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coma_gen.generation.music_generator import MusicGenerator
    from coma_gen.generation.request import Request
    from coma_gen.midi.prompt import Prompt

VERSIONS = ("coma-gen", "torch", "numpy", "symusic", "matplotlib", "soundfile")
"""Packages that the bytes depend on."""
PULLS = ("density", "loudness", "register", "polyphony")
"""Settings that 0 leaves as they are."""
OPTIONS = {"until_second": "--from", "follow": "--no-follow"}
"""Options that are not called as their settings are."""


def option_of(setting: str) -> str:
    """The option that says a setting on the command line."""
    return OPTIONS.get(setting, f"--{setting.replace('_', '-')}")


def piece_settings(
    options: argparse.Namespace, request: Request, composer: MusicGenerator, prompt: Prompt | None
) -> dict[str, Any]:
    """The command that repeats the pieces, and all that they depend on."""
    from coma_gen.core.io import shown_name
    from coma_gen.generation.request import Request
    from coma_gen.tracking.model_store import is_uri
    from coma_gen.workspace.pretrained import NAME as PRETRAINED

    settings = {
        **asdict(request),
        "audio": options.audio,
        "device": options.device,
        "threads": options.threads,
    }
    words = ["coma-gen", "generate"]
    if prompt is not None:
        words.append(_not_an_option(Path(options.prompt).name))
    if options.model is not None and (is_uri(options.model) or options.model == PRETRAINED):
        words += ["--model", options.model]
    for name, value in settings.items():
        if isinstance(value, bool):
            if value is not getattr(Request, name):
                words.append(option_of(name))
        elif value is not None and (name not in PULLS or value):
            option = option_of(name)
            words += [f"{option}={value}"] if str(value).startswith("-") else [option, str(value)]
    manifest = composer.loaded.manifest
    return {
        "command": " ".join(map(_typed, words)),
        "model": {"digest": manifest.digest, "tokenizer": composer.tokenizer.digest},
        "prompt": prompt and {"file": shown_name(Path(options.prompt)), "sha256": prompt.digest},
        "settings": settings,
        "versions": {name: _version(name) for name in VERSIONS},
    }


def _not_an_option(name: str) -> str:
    return f"./{name}" if name.startswith("-") else name


def _typed(word: str) -> str:
    """A word as one types it in a shell; by its bytes where they are not UTF-8."""
    try:
        word.encode("utf-8")
    except UnicodeEncodeError:
        return "$'" + "".join(f"\\x{byte:02x}" for byte in os.fsencode(word)) + "'"
    return shlex.quote(word)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

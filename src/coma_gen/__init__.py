"""coma-gen: a reproducible data-and-training pipeline for symbolic piano music.

The public names are imported on first use (PEP 562), so that `import coma_gen` loads neither torch nor numpy.
Their types are in `__init__.pyi`. The modules are named by strings because DVC's stages list the files that
they import, and no stage runs the Python API.
"""

__all__ = [
    "GeneratedPiece",
    "MusicModel",
    "Notes",
    "Score",
    "Tokenizer",
    "UserError",
    "__version__",
    "load_model",
]

_MODULES = {
    "GeneratedPiece": "coma_gen.generated_piece",
    "MusicModel": "coma_gen.api",
    "Notes": "coma_gen.midi.notes",
    "Score": "coma_gen.evaluation.midi_score",
    "Tokenizer": "coma_gen.tokenizer.remi",
    "UserError": "coma_gen.core.errors",
    "load_model": "coma_gen.api",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("coma-gen")
        except PackageNotFoundError:
            raise AttributeError("coma_gen has a version where it is installed only") from None
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

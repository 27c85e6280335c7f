"""Models by name: the bundled ones, and any ``config.json`` by path."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from simloop.errors import InputError, did_you_mean
from simloop.model.architecture import Model
from simloop.model.config import Config
from simloop.model.families import read_model

__all__ = ["load_model", "model_names"]

_CATALOG = Path(__file__).resolve().parent / "catalog"


def model_names() -> list[str]:
    """Return the names of the bundled models, sorted."""
    return sorted(path.stem for path in _CATALOG.glob("*.json"))


def load_model(name_or_path: str) -> Model:
    """Return a model.

    Args:
        name_or_path: A bundled name (see :func:`model_names`), the path of a Hugging Face ``config.json``, or of a
            folder with one. A bundled name wins over a folder of the same name. A ``hf_quant_config.json`` beside it
            says how the weights are quantised where it does not itself.

    Raises:
        InputError: There is no such model, or its configuration cannot be used.
    """
    if name_or_path in model_names():
        return _bundled(name_or_path)
    path = Path(name_or_path)
    if path.is_dir() or path.suffix == ".json":
        file = path / "config.json" if path.is_dir() else path
        return read_model(_name_of(file), _with_side_file(Config.read(file)))
    names = model_names()
    near = did_you_mean(name_or_path.rsplit("/", 1)[-1].lower(), names)
    raise InputError(
        f"no bundled model is called {name_or_path!r}{near} (there are {len(names)}; a path to a config.json works too)"
    )


@cache
def _bundled(name: str) -> Model:
    return read_model(name, Config.read(_CATALOG / f"{name}.json"))


def _with_side_file(config: Config) -> Config:
    """Return a configuration with what NVIDIA's ModelOpt writes beside it, in the form that others write inside."""
    side = config.file.parent / "hf_quant_config.json"
    if config.get("quantization_config") is not None or not side.is_file():
        return config
    found = Config.read(side).inside("quantization").values
    return Config({**config.values, "quantization_config": {"quant_method": "modelopt", **found}}, config.file)


def _name_of(file: Path) -> str:
    """Return what to call a model: its file's name, or its folder's where the file is called ``config.json``."""
    return file.resolve().parent.name if file.stem == "config" else file.stem

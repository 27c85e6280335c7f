"""A ``config.json``, read with errors that name the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import msgspec

from simloop.errors import InputError, did_you_mean
from simloop.model.architecture import DTYPE_BYTES

__all__ = ["Config"]

_KEEPS_LENGTH = {"default", "llama3", "longrope", "su", "mrope"}
"""Kinds of ``rope_scaling`` whose ``max_position_embeddings`` already is the stretched length (as in vLLM)."""

_MISSING: Any = object()


@attrs.frozen
class Config:
    """The keys of one ``config.json``.

    Only the keys that a reader asks for matter: such files carry dozens of others.

    Attributes:
        values: What the file says.
        file: Where it was read, for messages.
        place: Path of these keys inside the file, for messages; with a dot at its end unless empty.
    """

    values: dict[str, Any]
    file: Path
    place: str = ""

    @classmethod
    def read(cls, file: Path) -> Config:
        """Read a file.

        Raises:
            InputError: It does not exist, is not JSON, or is not an object.
        """
        try:
            values = msgspec.json.decode(file.read_bytes())
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", file=file) from error
        except msgspec.DecodeError as error:
            raise InputError(f"is not JSON: {error}", file=file) from error
        if not isinstance(values, dict):
            raise InputError("expected a JSON object, as in a Hugging Face config.json", file=file)
        return cls(values, file)

    def error(self, message: str, *, path: str | None = None) -> InputError:
        """Return an error that names this file."""
        return InputError(message, file=self.file, path=f"{self.place}{path}" if path else None)

    def inside(self, key: str) -> Config:
        """Return the object under a key; messages name the keys on the way.

        Raises:
            InputError: There is none, or it is something else.
        """
        value = self._value(key, None)
        if not isinstance(value, dict):
            raise self.error(f"expected an object, found {value!r}", path=key)
        return Config(value, self.file, f"{self.place}{key}.")

    def text_model(self) -> Config:
        """Return the language model of a multimodal configuration: its ``text_config`` where there is one."""
        inner = self.get("text_config")
        return Config({**self.values, **inner}, self.file) if isinstance(inner, dict) else self

    def get(self, key: str) -> Any:
        """Return the value of a key, or ``None``."""
        return self.values.get(key)

    def positive(self, key: str, default: int | None = None) -> int:
        """Return a whole number above zero; ``null`` is the same as not being there.

        Raises:
            InputError: The key is missing and has no default, or is something else.
        """
        if default is not None and self.get(key) is None:
            return default
        value = self._value(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.error(f"expected a whole number above 0, found {value!r}", path=key)
        return int(value)

    def flag(self, key: str, default: bool) -> bool:
        """Return a truth value.

        Raises:
            InputError: The value is something else.
        """
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.error(f"expected true or false, found {value!r}", path=key)
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """Return a string.

        Raises:
            InputError: The key is missing and has no default, or is something else.
        """
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self.error(f"expected a string, found {value!r}", path=key)
        return value

    def quotient(self, hidden: int, heads: int) -> int:
        """Return the size of a head where the file does not state one.

        Raises:
            InputError: The heads do not divide the width.
        """
        if hidden % heads:
            raise self.error(f"{heads} attention heads do not divide a width of {hidden}; head_dim is needed")
        return hidden // heads

    def words(self, key: str) -> list[str] | None:
        """Return a list of strings, ``None`` where there is none.

        Raises:
            InputError: The value is something else.
        """
        value = self.get(key)
        if value is None or (isinstance(value, list) and all(isinstance(word, str) for word in value)):
            return value
        raise self.error(f"expected a list of strings, found {value!r}", path=key)

    def dtype(self, default: str = "float32", *, instead: str = "float16") -> str:
        """Return the precision to serve in: the checkpoint's own, and another for float32 ones (as vLLM's ``auto``).

        Args:
            default: What a file that does not say so means.
            instead: What float32 checkpoints are served in.

        Raises:
            InputError: The precision is not supported.
        """
        key = "torch_dtype" if "torch_dtype" in self.values else "dtype"
        value = self.text(key, default)
        if value not in DTYPE_BYTES:
            options = ", ".join(DTYPE_BYTES)
            raise self.error(f"unknown dtype {value!r} (there are: {options})", path=key)
        return instead if value == "float32" else value

    def context_length(self, key: str) -> int:
        """Return the longest context, tokens, stretched by ``rope_scaling`` where that stretches it (as vLLM does).

        Raises:
            InputError: The length or the scaling cannot be read.
        """
        length = self.positive(key)
        scaling = self.get("rope_scaling")
        if scaling is None:
            return length
        if not isinstance(scaling, dict):
            raise self.error(f"expected an object, found {scaling!r}", path="rope_scaling")
        inner = Config(scaling, self.file)
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        if kind in _KEEPS_LENGTH:
            return length
        factor = inner.get("factor")
        if isinstance(factor, bool) or not isinstance(factor, int | float) or factor <= 0:
            raise self.error(f"expected a number above 0, found {factor!r}", path="rope_scaling.factor")
        return int(inner.positive("original_max_position_embeddings", length) * factor)

    def _value(self, key: str, default: Any) -> Any:
        value = self.values.get(key, _MISSING)
        if value is not _MISSING and value is not None:
            return value
        if default is None:
            raise self.error(f"{key} is missing{did_you_mean(key, self.values)}")
        return default

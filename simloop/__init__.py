"""simloop: a laboratory for LLM inference serving, on a clock that jumps."""

from simloop._version import __version__

__all__ = ["__version__"]

"""Tests are deterministic: hypothesis draws the same examples on every run, but for ``HYPOTHESIS_PROFILE=explore``."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True)
settings.register_profile("explore", print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

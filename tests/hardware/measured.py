"""Where measured data lies, if it does: the folder named by SIMLOOP_DATA, or ``shared/data`` beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("SIMLOOP_DATA", Path(__file__).parents[3] / "shared" / "data"))
PROFILES = DATA / "llmservingsim" / "calib" / "vllm_profiler"

needs_data = pytest.mark.skipif(not PROFILES.is_dir(), reason="measured data are not here (SIMLOOP_DATA)")

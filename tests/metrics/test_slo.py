"""Limits as a scenario gives them, and who keeps them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from simloop.metrics import SLO
from tests.metrics.reference import small_run


def test_limits_by_name() -> None:
    slo = msgspec.convert({"max_gap_s": 0.3, "ttft_s": 15}, SLO)
    assert slo.limits() == {"ttft_s": 15, "max_gap_s": 0.3}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, "expected at least one of ttft_s"),
        ({"ttft_s": 0}, "`float` > 0.* `\\$.ttft_s`"),
        ({"tpot_s": -1}, "`float` > 0.* `\\$.tpot_s`"),
        ({"e2e_s": float("nan")}, "`float` > 0.* `\\$.e2e_s`"),
        ({"ttft_ms": 5}, "unknown field `ttft_ms`"),
        ({"e2e_s": "5 s"}, "`\\$.e2e_s`"),
    ],
)
def test_bad_limits(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=complaint):
        msgspec.convert(given, SLO)


@pytest.mark.parametrize(
    ("slo", "attained"),
    [
        (SLO(ttft_s=0.5), {"ttft_s": 1 / 3, "all": 1 / 3}),  # request 0 at the limit, 1 waited 1 s, 2 was rejected
        (SLO(tpot_s=0.95), {"tpot_s": 2 / 3, "all": 2 / 3}),  # request 0 at the limit, 1 has one token
        (SLO(max_gap_s=2.4), {"max_gap_s": 1 / 3, "all": 1 / 3}),
        (SLO(max_gap_s=2.5), {"max_gap_s": 2 / 3, "all": 2 / 3}),
        (SLO(e2e_s=1.0, ttft_s=0.5), {"ttft_s": 1 / 3, "e2e_s": 1 / 3, "all": 0.0}),
    ],
)
def test_attainment_counts_every_request(slo: SLO, attained: dict[str, float]) -> None:
    result = small_run().result(slo=slo)
    assert result.summary()["slo_attainment"] == pytest.approx(attained, abs=1e-6)
    assert result.goodput == pytest.approx(attained["all"] * 3 / 5.25)


def test_without_limits_there_is_no_goodput() -> None:
    result = small_run().result(slo=None)
    assert result.goodput is None
    assert result.summary()["request_goodput"] is None
    assert result.summary()["slo_attainment"] is None

"""What exchanges take, by hand."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simloop.errors import InputError
from simloop.hardware import Interconnect, load_device
from simloop.model import CollectiveKind

LINKS = msgspec.convert(
    {
        "source": "made up",
        "all_reduce": [
            {"ranks": 2, "alpha_us": 5.0, "bus_gb_s": 100.0},
            {"ranks": 8, "alpha_us": 8.0, "bus_gb_s": 200.0},
        ],
        "all_gather": [{"ranks": 4, "alpha_us": 6.0, "bus_gb_s": 50.0}],
        "point_to_point": {"alpha_us": 3.0, "gb_s": 10.0},
    },
    Interconnect,
)


@pytest.mark.parametrize(
    ("kind", "ranks", "expected"),
    [
        ("all_reduce", 2, (5000, 2 * 0.5 * 1e6 / 100)),
        ("all_reduce", 4, (8000, 2 * 0.75 * 1e6 / 200)),  # the next number that was measured
        ("all_gather", 2, (6000, 0.5 * 1e6 / 50)),
        ("reduce_scatter", 2, (2500, 0.5 * 1e6 / 100)),  # half an all-reduce
    ],
)
def test_by_hand(kind: CollectiveKind, ranks: int, expected: tuple[float, float]) -> None:
    assert LINKS.collective_ns(kind, ranks, 1e6) == pytest.approx(expected)


def test_the_latest_rank_is_waited_for() -> None:
    late = msgspec.structs.replace(LINKS, skew_us=2.0)
    for ranks, doublings in ((2, 1), (4, 2), (8, 3)):
        fixed, transfer = LINKS.collective_ns("all_reduce", ranks, 1e6)
        assert late.collective_ns("all_reduce", ranks, 1e6) == pytest.approx((fixed + 2000 * doublings, transfer))


def test_sending_by_hand() -> None:
    assert LINKS.send_ns(1e6) == 3000 + 1e5


def test_more_ranks_than_were_measured() -> None:
    with pytest.raises(InputError, match="the interconnect was measured for at most 8 ranks, not for 16"):
        LINKS.collective_ns("all_reduce", 16, 1.0)


@given(st.sampled_from(["all_reduce", "all_gather", "all_to_all"]), st.sampled_from([2, 4, 8]), st.floats(0, 1e9))
def test_larger_messages_take_longer(kind: CollectiveKind, ranks: int, size: float) -> None:
    links = load_device("h100-sxm-80gb").links()
    assert sum(links.collective_ns(kind, ranks, 2 * size + 1)) > sum(links.collective_ns(kind, ranks, size))


def test_a_card_without_links() -> None:
    lonely = load_device("l40s-48gb").with_(interconnect=None)
    with pytest.raises(InputError, match="l40s-48gb states no interconnect, which a plan over several devices needs"):
        lonely.links()

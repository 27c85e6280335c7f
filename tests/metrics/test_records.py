"""The recorder: what goes in comes out, small and in order."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from simloop.metrics import Records, Status
from tests.metrics.reference import Ended, small_run


def test_requests_come_out_by_id_with_all_that_was_recorded() -> None:
    table = small_run().result().table
    assert table["id"].tolist() == [0, 1, 2]
    assert table["arrival_ns"].tolist() == [0, 10**9, 2 * 10**9]
    assert table["scheduled_ns"].tolist() == [250_000_000, 10**9, -1]
    assert table["first_token_ns"].tolist() == [500_000_000, 2 * 10**9, -1]
    assert table["finish_ns"].tolist() == [5_250_000_000, 2 * 10**9, 2 * 10**9]
    assert table["output_tokens"].tolist() == [6, 1, 9]
    assert table["generated"].tolist() == [6, 1, 0]
    assert table["worker"].tolist() == [1, 0, -1]
    assert table["preemptions"].tolist() == [1, 0, 0]
    assert table["status"].tolist() == [Status.FINISHED, Status.FINISHED, Status.REJECTED]


def test_stays_of_a_request_keep_their_order() -> None:
    segments = small_run().result().records.segments()
    assert segments[["request_id", "worker", "first_ns", "start", "end"]].tolist() == [
        (0, 0, 500_000_000, 0, 2),
        (0, 1, 4_500_000_000, 0, 2),
        (1, 0, 2_000_000_000, 2, 2),
    ]


def test_samples_keep_every_field() -> None:
    records = Records()
    records.sample(3, 2**40, 1, 2, 4, 5, 2**41, 2**42, 6, 2**43, 2**44)
    sample = records.samples()[0]
    fields = ("worker", "time_ns", "running", "waiting", "kv_used", "kv_total")
    assert [int(sample[field]) for field in fields] == [3, 2**40, 1, 2, 4, 5]
    totals = ("generated", "prompt", "preemptions", "busy_ns", "iterations")
    assert [int(sample[field]) for field in totals] == [2**41, 2**42, 6, 2**43, 2**44]


def test_equal_reasons_share_a_code() -> None:
    records = Records()
    for number, reason in enumerate(["a", "b", "a", None]):
        records.finish(Ended(id=number, arrival_ns=0, reason=reason))
    assert records.reasons == [None, "a", "b"]
    assert records.requests()["reason"].tolist() == [1, 2, 1, 0]


def test_recording_goes_on_after_the_tables_were_read() -> None:
    records = Records()
    records.finish(Ended(id=0, arrival_ns=0))
    before = records.requests()
    records.finish(Ended(id=1, arrival_ns=5))
    assert len(before) == 1
    assert len(records) == len(records.requests()) == 2


def test_a_request_costs_a_hundred_bytes_whatever_its_length() -> None:
    records = Records()
    for number in range(1000):
        records.finish(Ended(id=number, arrival_ns=0, output_tokens=10**6, generated=10**6))
        records.segment(number, 0, 5, 0, 10**6 - 1)
    assert records.nbytes <= 120 * 1000


def test_recording_needs_no_numpy() -> None:
    code = "import sys; from simloop.metrics import Records, SLO, Status; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_empty_table_has_its_columns() -> None:
    assert Records().requests()["id"].dtype == np.dtype("<i8")
    assert len(Records().segments()) == len(Records().samples()) == 0

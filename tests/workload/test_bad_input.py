"""What is wrong with a workload is said in one line that names the place."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from simloop.errors import InputError
from simloop.workload import Gamma, LengthSpec, Poisson, WorkloadSpec, open_workload

FIXED = {"input": 1, "output": 1}
POISSON = {"process": "poisson", "rate": 1}


def failure(spec: Any, base_dir: Path | None = None) -> str:
    with pytest.raises(InputError) as caught:
        list(open_workload(spec, seed=0, base_dir=base_dir))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def synthetic(arrivals: dict[str, Any] = POISSON, lengths: dict[str, Any] = FIXED) -> dict[str, Any]:
    return {"requests": 10, "arrivals": arrivals, "lengths": lengths}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (synthetic({"process": "poisson", "rate": 0}), "workload.arrivals.rate: Expected `float` > 0.0"),
        (synthetic({"process": "poisson", "rate": -8}), "workload.arrivals.rate: Expected `float` > 0.0"),
        (synthetic({"process": "poisson", "rate": float("nan")}), "workload.arrivals.rate: Expected"),
        (synthetic({"process": "poisson", "rate": float("inf")}), "workload.arrivals.rate: Expected `float` <= "),
        (synthetic({"process": "poisson"}), "workload.arrivals: Object missing required field `rate`"),
        (synthetic({"process": "poison", "rate": 8}), "workload.arrivals.process: Invalid value 'poison'"),
        (synthetic({"rate": 8}), "workload.arrivals: Object missing required field `process`"),
        (synthetic({"process": "gamma", "rate": 8}), "required field `burstiness`"),
        (synthetic({"process": "gamma", "rate": 8, "burstiness": 0}), "workload.arrivals.burstiness: Expected"),
        (synthetic({"process": "closed_loop"}), "workload.arrivals: Object missing required field `concurrency`"),
        (synthetic({"process": "closed_loop", "concurrency": 0}), "workload.arrivals.concurrency: Expected `int` >= 1"),
        (synthetic({"process": "burst", "size": 4}), "workload.arrivals.every_s: missing: size says nothing without"),
        (synthetic({"process": "burst", "every_s": 4}), "workload.arrivals.size: missing: every_s says nothing"),
        (synthetic({"process": "burst", "size": 0, "every_s": 1}), "workload.arrivals.size: Expected `int` >= 1"),
        (synthetic({"process": "preset", "preset": "azure"}), "workload.arrivals.preset: no preset is called 'azure'"),
        (synthetic(lengths={"preset": "sharegtp"}), "workload.lengths.preset: no preset is called 'sharegtp'; did you"),
        (synthetic(lengths={}), "workload.lengths: expected exactly one of: preset, path, or input and output"),
        (synthetic(lengths={"input": 5}), "workload.lengths.output: missing"),
        (synthetic(lengths={"output": 5}), "workload.lengths.input: missing"),
        (synthetic(lengths={"input": 5, "output": 0}), "workload.lengths.output: Expected `int` >= 1"),
        (synthetic(lengths={"input": 5, "output": -3}), "workload.lengths.output: Expected `int` >= 1"),
        (synthetic(lengths={"input": 5, "output": 1.5}), "workload.lengths.output: Expected"),
        (synthetic(lengths={"preset": "sharegpt", "input": 5}), "workload.lengths: expected exactly one of"),
        (synthetic(lengths={"preset": "sharegpt", "format": "csv"}), "workload.lengths.format: says nothing without"),
        (
            synthetic(lengths={"input": {"distribution": "uniform", "min": 9, "max": 8}, "output": 1}),
            "workload.lengths.input.max: found 8, expected at least min (9)",
        ),
        (
            synthetic(lengths={"input": 1, "output": {"distribution": "normal", "mean": 0, "std": 1}}),
            "workload.lengths.output.mean: Expected `float` > 0.0",
        ),
        ({"arrivals": POISSON, "lengths": FIXED}, "workload.requests: missing, expected a whole number >= 1"),
        ({**synthetic(), "requests": 0}, "workload.requests: Expected `int` >= 1"),
        ({"requests": 5}, "workload.arrivals: missing, expected arrivals and lengths, or a trace"),
        ({"requests": 5, "arrivals": POISSON}, "workload.lengths: missing"),
        ({**synthetic(), "trace": {"path": "t.csv"}}, "workload.arrivals: says nothing beside trace"),
        ({**synthetic(), "rate": 8}, "workload: Object contains unknown field `rate`"),
        ({"trace": {"path": "t.csv", "rate_scale": 0}}, "workload.trace.rate_scale: Expected `float` > 0.0"),
        ({"trace": {"path": "t.csv", "limit": 0}}, "workload.trace.limit: Expected `int` >= 1"),
        ({"trace": {"path": "t.csv", "offset": -1}}, "workload.trace.offset: Expected `int` >= 0"),
        ({"trace": {"path": "t.csv", "format": "azur"}}, "workload.trace.format: Invalid enum value 'azur'"),
        (
            {"trace": {"path": "t.csv", "format": "azure", "columns": {"arrival_s": "t"}}},
            "workload.trace.columns: the columns of format azure are fixed",
        ),
        (
            {"trace": {"path": "t.csv", "columns": {"arrival_s": "t", "arrival_ms": "u"}}},
            "workload.trace.columns: found arrival_s and arrival_ms, expected one of them",
        ),
    ],
)
def test_a_spec_that_makes_no_sense(spec: Any, message: str) -> None:
    assert message in failure(spec)


def test_structs_made_in_python_are_checked_too() -> None:
    spec = WorkloadSpec(requests=5, arrivals=Poisson(rate=-1), lengths=LengthSpec(input=1, output=1))
    assert failure(spec) == "workload.arrivals.rate: Expected `float` > 0.0"
    spec = WorkloadSpec(requests=5, arrivals=Gamma(rate=1, burstiness=1), lengths=LengthSpec(input=0, output=1))
    assert failure(spec) == "workload.lengths.input: Expected `int` >= 1"


AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
PLAIN = "arrival_s,input_tokens,output_tokens\n0,5,5\n"
MOONCAKE = '{"timestamp": 0, "input_length": 5, "output_length": 5, "hash_ids": [0]}\n'


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "the file is empty, expected a trace of at least one request"),
        ("\n\n", {}, "the file is empty"),
        ("arrival_s,input_tokens,output_tokens\n", {}, "no request in it, expected at least one"),
        (PLAIN, {"offset": 1}, "no request after the first 1, which offset skips"),
        (AZURE + "2023-11-16 18:15:47,,44\n", {}, "line 3: ContextTokens: found nothing, expected a whole number >= 1"),
        (AZURE + "2023-11-16 18:15:47,many,44\n", {}, "line 3: ContextTokens: found 'many', expected a whole number"),
        (AZURE + "2023-11-16 18:15:47,5,0\n", {}, "line 3: GeneratedTokens: found '0', expected a whole number >= 1"),
        (AZURE + "2023-11-16 18:15:47,-5,1\n", {}, "line 3: ContextTokens: found '-5', expected"),
        (AZURE + "2023-11-16 18:15:47,5.5,1\n", {}, "line 3: ContextTokens: found '5.5', expected"),
        (AZURE + "16/11/2023 18:15,5,1\n", {}, "line 3: TIMESTAMP: found '16/11/2023 18:15', expected a time like"),
        (AZURE + "2023-11-31 18:15:47,5,1\n", {}, "line 3: TIMESTAMP: found '2023-11-31 18:15:47', expected"),
        (AZURE + "2023-11-16 18:15:47.,5,1\n", {}, "line 3: TIMESTAMP"),
        (AZURE + "2023-11-16 25:15:47,5,1\n", {}, "line 3: TIMESTAMP"),
        (AZURE + "2023-11-16 18:15:47+01:00,5,1\n", {}, "line 3: TIMESTAMP"),
        (AZURE + "2023-11-16 18:15:45,5,1\n", {}, "line 3: TIMESTAMP: 1.68059 s earlier than the row before"),
        (AZURE + "2023-11-16 18:15:47,5\n", {}, "line 3: found 2 fields, expected 3 as in the first line"),
        (AZURE + "2023-11-16 18:15:47,5,5,5\n", {}, "line 3: found 4 fields, expected 3"),
        (PLAIN + "soon,5,5\n", {}, "line 3: arrival_s: found 'soon', expected a time in seconds"),
        (PLAIN + "nan,5,5\n", {}, "line 3: arrival_s: found 'nan'"),
        (PLAIN + "inf,5,5\n", {}, "line 3: arrival_s: found 'inf'"),
        (PLAIN + "1e999999999,5,5\n", {}, "line 3: arrival_s"),
        ("arrival_s,input_tokens,output_tokens\n-1,5,5\n", {}, "line 2: arrival_s: found a negative time, expected"),
        (PLAIN + "1,inf,5\n", {}, "line 3: input_tokens: found 'inf'"),
        (PLAIN + "1,5e300,5\n", {}, "line 3: input_tokens"),
        (PLAIN + '1,"5\n', {}, "line 3"),
        (
            "t,input_tokens,output_tokens\n0,5,5\n",
            {},
            "line 1: no column for arrival_s, arrival_ms or arrival_ns among",
        ),
        ("arrival_s,input_tokens\n0,5\n", {}, "line 1: no column for output_tokens among arrival_s, input_tokens"),
        ("time,prompt,answer\n0,5,5\n", {}, "line 1: cannot tell its format from the names time, prompt, answer; say"),
        (
            "time,prompt,answer\n0,5,5\n",
            {"columns": {"arrival_s": "time", "input_tokens": "promt", "output_tokens": "answer"}},
            "line 1: no column 'promt'; did you mean 'prompt'? (there are: time, prompt, answer)",
        ),
        (
            PLAIN,
            {
                "columns": {
                    "arrival_s": "arrival_s",
                    "input_tokens": "input_tokens",
                    "output_tokens": "output_tokens",
                    "session": "user",
                }
            },
            "line 1: no column 'user'",
        ),
        (PLAIN, {"format": "azure"}, "line 1: no column 'TIMESTAMP'"),
        (
            PLAIN,
            {"format": "mooncake"},
            "found a table with a first line of column names, expected JSON objects (format",
        ),
        (PLAIN, {"format": "parquet"}, "expected a Parquet file (format parquet)"),
        ("num_prefill_tokens,num_decode_tokens\n5,5\n", {}, "line 1: no column 'arrived_at'"),
        (MOONCAKE + "{\n", {}, "line 2: found '{', expected a JSON object"),
        (MOONCAKE + "[1]\n", {}, "line 2: found '[1]', expected a JSON object"),
        (MOONCAKE + '{"timestamp": 1, "input_length": 5}\n', {}, "line 2: output_length: found nothing, expected"),
        (MOONCAKE.replace("5,", "true,"), {}, "line 1: input_length: found True, expected a whole number"),
        (MOONCAKE.replace("5,", "[],"), {}, "line 1: input_length: found [], expected a whole number"),
        (MOONCAKE.replace("[0]", '["a"]'), {}, "line 1: hash_ids: found ['a'], expected a list of whole numbers"),
        (MOONCAKE.replace(": 0,", ': "now",'), {}, "line 1: timestamp: found 'now', expected a time in milliseconds"),
        ("{broken\n", {}, "line 1: expected a JSON object in each line"),
    ],
)
def test_a_trace_that_cannot_be_read(text: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text(text)
    found = failure({"trace": {"path": str(path), **options}})
    assert found.startswith(f"{path}: ")
    assert message in found


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "requests.csv").write_text(PLAIN)
    message = failure({"trace": {"path": "request.csv"}}, tmp_path)
    assert message == f"{tmp_path / 'request.csv'}: there is no such file; did you mean 'requests.csv'?"
    assert "nor the folder" in failure({"trace": {"path": "no/request.csv"}}, tmp_path)
    assert "found a folder, expected a file" in failure({"trace": {"path": "."}}, tmp_path)


def test_gzip_data_that_ends_early(tmp_path: Path) -> None:
    whole = gzip.compress(
        (PLAIN + "".join(f"{number},{number * 7919 % 5000 + 1},5\n" for number in range(9_000))).encode()
    )
    (tmp_path / "t.csv.gz").write_bytes(whole[: len(whole) // 2])
    message = failure({"trace": {"path": "t.csv.gz"}}, tmp_path)
    assert "after line " in message
    assert "the gzip data ends early; is the file complete?" in message


def test_gzip_data_that_is_damaged(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(PLAIN.encode() * 100))
    whole[30] ^= 0xFF
    (tmp_path / "t.csv.gz").write_bytes(whole)
    assert "the gzip data is damaged" in failure({"trace": {"path": "t.csv.gz"}}, tmp_path)


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(PLAIN.encode() + b"\xff\xfe,1,1\n")
    assert "not UTF-8 text" in failure({"trace": {"path": "t.csv"}}, tmp_path)


def test_a_nul_byte(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(PLAIN.encode() + b"\0,1,1\n")
    assert "line 3" in failure({"trace": {"path": "t.csv"}}, tmp_path)


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and then something else")
    assert "not a Parquet file" in failure({"trace": {"path": "t.parquet"}}, tmp_path)


def test_the_first_row_is_checked_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("arrival_s,input_tokens,output_tokens\n0,0,5\n")
    with pytest.raises(InputError, match="line 2: input_tokens: found '0'"):
        open_workload({"trace": {"path": "t.csv"}}, seed=0, base_dir=tmp_path)


def test_lengths_of_a_file_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(PLAIN + "1,5,0\n")
    spec = synthetic(lengths={"path": "t.csv"})
    assert "line 3: output_tokens: found '0'" in failure(spec, tmp_path)

"""A worker's books: what an iteration has done, who joins and leaves the decoding ones, how a request ends, samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simloop.clock import now_ns
from simloop.serving.kv_transfer import Departure, forget_kv
from simloop.serving.request import Phase, Request, Status

if TYPE_CHECKING:
    from simloop.serving.batch import Batch
    from simloop.serving.cohort import Cohort
    from simloop.serving.worker import Worker

__all__ = ["close_books", "commit", "end", "join", "leave", "state", "take_sample"]


def commit(worker: Worker, batch: Batch, start_ns: int) -> None:
    """Book what an iteration has done: tokens, first tokens, ends, KV blocks given back."""
    end_ns = now_ns()
    worker.iterations += 1
    worker.busy_ns += end_ns - start_ns
    if batch.decodes:
        cohort = batch.cohort
        worker.generated += cohort.size
        finished = cohort.advance(end_ns)
        if worker.news.listened or worker.hooks.by_moment["token"]:
            worker.news.add_tokens(worker.running, cohort, end_ns)
        if len(finished) > 1:  # together, but their blocks are freed in order of admission
            finished = sorted(finished, key=_rank)
        for request in finished:
            _close_segment(worker, request, cohort)
            end(worker, request, Status.FINISHED, end_ns)
    for request, tokens in batch.prefills:
        worker.prefilled += tokens
        if worker.stages is None:  # else they count from when the micro-batch started
            request._computed += tokens
        if request._batch is batch:
            request._batch = None
            if request.to_prefill == 0:
                _prompt_read(worker, request, batch.cohort, end_ns)
    worker.busy = False
    if worker._aborted:
        worker.drop_aborted(end_ns)
    if worker.check is not None:
        worker.check(worker, batch)
    if end_ns >= worker._next_sample_ns:
        take_sample(worker, end_ns)


def _prompt_read(worker: Worker, request: Request, cohort: Cohort, end_ns: int) -> None:
    del worker.prefilling[request]
    worker.generated += 1
    request._generated += 1
    request._segment_ns = end_ns
    if request.first_token_ns < 0:
        request.first_token_ns = end_ns
        worker.news.add("first_token", request, end_ns)
    worker.news.add_token(request, end_ns)
    if request._generated == request.output_tokens:
        request._joined = cohort.step
        _close_segment(worker, request, cohort)
        end(worker, request, Status.FINISHED, end_ns)
    elif request._departure is not None:
        _depart(worker, request, cohort, request._departure)
    else:
        join(worker, request, cohort)


def join(worker: Worker, request: Request, cohort: Cohort) -> None:
    """Let a request decode with a cohort."""
    cohort.join(request)
    request.phase = Phase.DECODING
    if request.listeners is not None:
        worker.news.listened[request] = None


def leave(worker: Worker, request: Request) -> None:
    """Take a request from those that decode, before its end."""
    cohort = request._cohort or worker.decoding
    cohort.leave(request)
    worker.news.listened.pop(request, None)
    _close_segment(worker, request, cohort)


def _close_segment(worker: Worker, request: Request, cohort: Cohort) -> None:
    worker.records.segment(request.id, cohort.row, request._segment_ns, request._joined, cohort.step)
    request._segment_ns = -1


def end(worker: Worker, request: Request, status: Status, end_ns: int, reason: str | None = None) -> None:
    """End a request, well or not: its KV blocks are free, and whoever waits for it is told."""
    if request.phase is not Phase.WAITING:
        worker.running.pop(request, None)
        worker.leaving.pop(request, None)
        worker.news.listened.pop(request, None)
        worker._free_blocks(request)
    if worker.preload is not None or worker.incoming:
        forget_kv(worker, request)
    request.status = status
    request.reason = reason
    request.phase = Phase.DONE
    request.finish_ns = end_ns
    worker.load_changed(-1)
    worker.news.add("finished" if status is Status.FINISHED else "failed", request, end_ns)
    if worker.on_end is not None:
        worker.on_end(request)


def take_sample(worker: Worker, time_ns: int) -> None:
    """Record one row of the time series, and say when the next is due."""
    interval = worker.sample_interval_ns
    worker._next_sample_ns = time_ns - time_ns % interval + interval
    worker.records.sample(*state(worker, time_ns))


def state(worker: Worker, time_ns: int) -> tuple[int, ...]:
    """Return a row of the time series, as :meth:`Recorder.sample` takes it."""
    return (
        worker.index,
        time_ns,
        len(worker.running),
        len(worker.waiting) + len(worker.inbox) + len(worker.arriving) + len(worker.swapped),
        worker.kv.used,
        worker.kv.total,
        worker.generated,
        worker.prefilled,
        worker.preemptions,
        worker.busy_ns,
        worker.iterations,
    )


def close_books(worker: Worker) -> list[Request]:
    """At the end of a run that was cut short: close the segments, and return who was still here."""
    for request in list(worker.running):
        if request.phase is Phase.DECODING:
            leave(worker, request)
    return [*worker.running, *worker.swapped, *worker.waiting, *worker.inbox, *worker.arriving]


def _rank(request: Request) -> int:
    return request._rank


def _depart(worker: Worker, request: Request, cohort: Cohort, departure: Departure) -> None:
    """Let a request go that was handed back before its iteration."""
    request._joined = cohort.step
    _close_segment(worker, request, cohort)
    del worker.running[request]
    worker.leaving[request] = None
    request.phase = Phase.ROUTING
    worker.load_changed(-1)
    departure.over.set()

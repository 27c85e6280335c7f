"""What an engine adds to its kernels: host time, padding to CUDA graphs, warm-up."""

from __future__ import annotations

from bisect import bisect_left
from functools import cache
from typing import Annotated

import msgspec
from msgspec import Meta

__all__ = ["VLLM_0_6", "VLLM_0_15", "VLLM_0_19", "Overheads", "graph_sizes"]

_Time = Annotated[float, Meta(ge=0)]


class Overheads(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Costs of one engine version beyond its kernels; each is left out if 0, ``None`` or ``False``.

    The last three are for whoever drives the iterations; the others change what an iteration costs.

    Attributes:
        step_us: Time of every step in which the device waits for the host: what scheduling, input preparation and
            launching take beyond what they overlap with the step before.
        prefill_layer_us: What a layer of a step with a prompt takes on top: its kernels are launched one by one, not
            replayed from one graph, and attention waits for the longest of unequal requests.
        host_us: Host time of a step that does overlap. A step lasts at least this long.
        host_request_us: The part of it that every sequence of the step adds.
        sequence_us: Time of each sequence of a step in which the device waits for the host: what engines take that
            schedule, prepare and sample one sequence after another between two steps, as vLLM did before V1.
        sampling_us: Time of sampling beyond what the measurements of kernels have for it, for each sequence and 100,000
            entries of the vocabulary: temperatures, and the sorting that top-k and top-p need.
        largest_graph: Most tokens of a step that is replayed from a CUDA graph: it is padded to the next captured size
            (see :func:`graph_sizes`), except attention.
        attention_per_prompt: Price the attention of each prompt by itself, instead of all prompts of a step as one
            chunk (the square of the sum instead of the sum of squares).
        attention_tail: The longest of many decoding requests is still read when the others are done (see
            :class:`~simloop.hardware.profile.tail.Tail`); for layer profiles, beside a device's card.
        shared_read: What it takes to read keys and values that another running request reads too, as a share of what
            it takes from the device's memory: the device's cache is faster, by its bandwidth. For kernel tables.
        async_scheduling: A step is scheduled when the step before it starts. The queue is read only then: a request
            that arrives during a step runs in the second one after it, and the place of one that finishes is given
            away one step later.
        first_step_us: Time that the first step of an engine takes longer.
        request_us: Time from the client to the engine's queue: HTTP, tokeniser, message to the engine's process.
    """

    step_us: _Time = 0.0
    prefill_layer_us: _Time = 0.0
    host_us: _Time = 0.0
    host_request_us: _Time = 0.0
    sequence_us: _Time = 0.0
    sampling_us: _Time = 0.0
    largest_graph: Annotated[int, Meta(ge=0)] = 0
    attention_per_prompt: bool = False
    attention_tail: bool = False
    shared_read: Annotated[float, Meta(ge=0, le=1)] = 1.0
    async_scheduling: bool = False
    first_step_us: _Time = 0.0
    request_us: _Time = 0.0

    def step_ns(self) -> int:
        """Time of every step, nanoseconds."""
        return round(1e3 * self.step_us)

    def prefill_ns(self, layers: int) -> int:
        """Time that a step with a prompt has on top, nanoseconds."""
        return round(1e3 * layers * self.prefill_layer_us)

    def sequences_ns(self, sequences: int, vocabulary: int) -> int:
        """Time of all sequences of a step: the host's, and what sampling takes on top of its measured kernels, ns."""
        return round(1e3 * sequences * (self.sequence_us + self.sampling_us * vocabulary / 100_000))

    def floor_ns(self, sequences: int) -> int:
        """Least duration of a step, nanoseconds."""
        return round(1e3 * (self.host_us + sequences * self.host_request_us))

    def padded(self, tokens: int) -> int:
        """Return how many tokens the kernels of a step work on."""
        if not 0 < tokens <= self.largest_graph:
            return tokens
        sizes = graph_sizes(self.largest_graph)
        return sizes[bisect_left(sizes, tokens)]


@cache
def graph_sizes(largest: int) -> list[int]:
    """Return the sizes for which vLLM captures graphs: 1, 2, 4, then every 8 up to 256, then every 16."""
    sizes = [size for size in (1, 2, 4, *range(8, 257, 8), *range(272, largest + 1, 16)) if size < largest]
    return [*sizes, largest] if largest else []


VLLM_0_19 = Overheads(
    step_us=100.0,
    prefill_layer_us=160.0,
    largest_graph=256,
    attention_per_prompt=True,
    attention_tail=True,
    async_scheduling=True,
    first_step_us=80_000.0,
)
"""vLLM 0.19.0 with its defaults, as ``tests/benchmarks/fit_overheads.py`` fits it; ``step_us`` is small kernels and
gaps between two graphs, which the fitted runs do not tell from 0 or 200; ``largest_graph`` is vLLM's own
``2 * max_num_seqs`` for ``max_num_seqs`` 128, at most 512."""

VLLM_0_15 = Overheads(
    attention_per_prompt=True,
    shared_read=0.6,
    async_scheduling=True,
    sampling_us=12.0,
    request_us=7_000.0,
)
"""vLLM 0.15.1 behind its HTTP server, beside kernel tables of an H100. ``sampling_us`` and ``request_us`` are as
``tests/benchmarks/fit_request_time.py`` fits them. ``shared_read`` is not fitted: the 3.35 TB/s of the card's memory
over the some 5.6 TB/s that microbenchmarks reach in its second-level cache. Host time per step is none: beside those
tables, iterations of the fitted runs leave no room for any."""

VLLM_0_6 = Overheads(step_us=1100.0, sequence_us=51.0, attention_per_prompt=True)
"""vLLM 0.5 and 0.6, whose scheduler, input preparation and sampler ran between steps, as
``tests/benchmarks/fit_host_time.py`` fits it to static batches on one A100 and one H100."""

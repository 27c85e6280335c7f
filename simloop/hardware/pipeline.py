"""A model in pipeline stages: the time of each, of handing over, and of an iteration through all of them."""

from __future__ import annotations

from simloop.hardware.device import Device
from simloop.hardware.roofline import Roofline
from simloop.hardware.timing import IterationShape
from simloop.model import Model, Plan, Routing

__all__ = ["Pipeline"]


class Pipeline:
    """A :class:`~simloop.hardware.TimingModel` of all stages, one after another, and the price of each by itself.

    :meth:`iteration_ns` is how long one batch takes from end to end while no other is under way. Stages that work on
    several batches at once are the caller's to run: :meth:`stage_ns` and :meth:`send_ns` are what each step takes.

    Args:
        model: The model.
        device: The device of every rank.
        plan: How the model is spread over devices.
        dtype: As for :class:`~simloop.hardware.Roofline`, like the rest.
        cuda_graphs: Whether decode-only iterations are replayed from CUDA graphs.
        kv_cache_dtype: Precision of the KV cache.
        routing: How tokens spread over experts.

    Raises:
        InputError: As for :class:`~simloop.hardware.Roofline`.
    """

    def __init__(
        self,
        model: Model,
        device: Device,
        plan: Plan,
        *,
        dtype: str | None = None,
        cuda_graphs: bool = True,
        kv_cache_dtype: str | None = None,
        routing: Routing | None = None,
    ) -> None:
        if plan.pipeline_parallel > 1:
            device.links()
        self.stages = tuple(
            Roofline(
                model,
                device,
                dtype=dtype,
                cuda_graphs=cuda_graphs,
                plan=plan,
                stage=stage,
                kv_cache_dtype=kv_cache_dtype,
                routing=routing,
            )
            for stage in range(plan.pipeline_parallel)
        )

    def stage_ns(self, shape: IterationShape, stage: int) -> int:
        """Return how long one stage works on a batch, nanoseconds."""
        return self.stages[stage].iteration_ns(shape)

    def send_ns(self, shape: IterationShape, stage: int) -> int:
        """Return how long a stage takes to hand a batch to the next, nanoseconds; 0 for the last."""
        return self.stages[stage].send_ns(shape.num_tokens)

    def iteration_ns(self, shape: IterationShape) -> int:
        """Return how long a batch takes through all stages, nanoseconds."""
        return sum(stage.iteration_ns(shape) + stage.send_ns(shape.num_tokens) for stage in self.stages)

"""A model in pipeline stages: the time of each, of handing over, and of an iteration through all of them."""

from __future__ import annotations

from collections.abc import Callable

from simloop.hardware.device import Device
from simloop.hardware.timing import IterationShape, TimingModel
from simloop.model import Model, Plan, shard

__all__ = ["Pipeline"]


class Pipeline:
    """A :class:`~simloop.hardware.TimingModel` of all stages, one after another, and the price of each by itself.

    :meth:`iteration_ns` is how long one batch takes from end to end while no other is under way. Stages that work on
    several batches at once are the caller's to run: :meth:`stage_ns` and :meth:`send_ns` are what each step takes.

    Args:
        model: The model, in the precision that it is served in.
        device: The device of every rank; its card states the links.
        plan: How the model is spread over devices.
        price: Returns the timing model of a stage: a :class:`~simloop.hardware.Roofline`, say.

    Raises:
        InputError: The card states no links, or the plan does not divide the model.

    Example:
        >>> plan = Plan(pipeline_parallel=2)
        >>> pipeline = Pipeline(model, device, plan, lambda stage: Roofline(model, device, plan=plan, stage=stage))
    """

    def __init__(self, model: Model, device: Device, plan: Plan, price: Callable[[int], TimingModel]) -> None:
        self.plan = plan
        self._links = device.links()
        self._sent_bytes = [stage.send_elements * model.dtype_bytes for stage in shard(model, plan)]
        self.stages = tuple(price(stage) for stage in range(plan.pipeline_parallel))

    def stage_ns(self, shape: IterationShape, stage: int) -> int:
        """Return how long one stage works on a batch, nanoseconds."""
        return self.stages[stage].iteration_ns(shape)

    def send_ns(self, shape: IterationShape, stage: int) -> int:
        """Return how long a stage takes to hand a batch to the next, nanoseconds; 0 for the last.

        Each tensor-parallel rank sends its part of the hidden state and the residual; the receivers gather the parts.
        """
        size, ranks = shape.num_tokens * self._sent_bytes[stage], self.plan.tensor_parallel
        if not self._sent_bytes[stage]:
            return 0
        ns = self._links.send_ns(size / ranks)
        if ranks > 1:
            ns += sum(self._links.collective_ns("all_gather", ranks, size))
        return round(ns)

    def iteration_ns(self, shape: IterationShape) -> int:
        """Return how long a batch takes through all stages, nanoseconds."""
        return sum(
            self.stage_ns(shape, stage) + self.send_ns(shape, stage) for stage in range(self.plan.pipeline_parallel)
        )

"""How a model is spread over devices."""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

from simloop.errors import InputError

__all__ = ["All2All", "Plan"]

All2All: TypeAlias = Literal["allgather_reducescatter", "all_to_all"]


def _positive(_: Plan, attribute: attrs.Attribute[int], value: int) -> None:
    if value < 1:
        raise InputError(f"expected a whole number above 0, found {value!r}", path=attribute.name)


@attrs.frozen(kw_only=True)
class Plan:
    """How one replica of a model is spread over devices, with the meaning that vLLM gives the words.

    Attributes:
        tensor_parallel: Ranks that share every layer (vLLM's ``tensor_parallel_size``).
        pipeline_parallel: Stages of consecutive layers (``pipeline_parallel_size``).
        data_parallel: Ranks with requests of their own that share the experts (``data_parallel_size``). Attention and
            dense layers are copied, the experts spread over ``tensor_parallel · data_parallel`` ranks.
        expert_parallel: Whether a rank holds whole experts (``enable_expert_parallel``), not a slice of each.
        all2all_backend: How data-parallel ranks exchange tokens with experts: everything is gathered and the sums
            scattered, or each token goes to the ranks of its experts and back.
    """

    tensor_parallel: int = attrs.field(default=1, validator=_positive)
    pipeline_parallel: int = attrs.field(default=1, validator=_positive)
    data_parallel: int = attrs.field(default=1, validator=_positive)
    expert_parallel: bool = False
    all2all_backend: All2All = "allgather_reducescatter"

    @property
    def devices(self) -> int:
        """Devices of one data-parallel rank: tensor-parallel times pipeline-parallel ranks."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def expert_ranks(self) -> int:
        """Ranks that share the experts of a layer."""
        return self.tensor_parallel * self.data_parallel

    def stage_layers(self, num_layers: int) -> list[range]:
        """Return the layers of each pipeline stage, divided as vLLM does.

        What is left over goes to the last stage but one, then to the one before, and so on.

        Raises:
            InputError: There are fewer layers than stages.
        """
        stages = self.pipeline_parallel
        if num_layers < stages:
            raise InputError(f"{num_layers} layers cannot make {stages} pipeline stages")
        sizes = [num_layers // stages] * stages
        for back in range(num_layers % stages):
            sizes[-2 - back] += 1
        ends = [sum(sizes[: stage + 1]) for stage in range(stages)]
        return [range(end - size, end) for end, size in zip(ends, sizes, strict=True)]

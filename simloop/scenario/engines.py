"""Engine arguments that do not go together, or say nothing to the policy that they stand beside."""

from __future__ import annotations

from simloop.errors import InputError
from simloop.model import Model
from simloop.serving import Engine, PolicySource

__all__ = ["check_engine"]


_TOKENSIM_IGNORES = (
    *("gpu_memory_utilization", "dtype", "kv_cache_dtype"),
    *("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "enable_expert_parallel"),
)


def check_engine(engine: Engine, model: Model, schedule: PolicySource, path: str, *, timing: str = "roofline") -> None:
    """Refuse engine arguments that would have no effect, or not the one that they promise.

    Args:
        engine: What the scenario says, or the defaults.
        model: What the engine serves.
        schedule: The scheduling policy of its workers.
        path: Where the engine stands in the scenario.
        timing: The timing model of its workers.

    Raises:
        InputError: One was found; its ``path`` says which.
    """
    blind = dict.fromkeys(_TOKENSIM_IGNORES, "timing model 'tokensim'") if timing == "tokensim" else {}
    for name, who in {**blind, **dict.fromkeys(schedule.ignores, f"policy {schedule.name!r}")}.items():
        if (found := getattr(engine, name, None)) != getattr(Engine(), name, None):
            raise InputError(
                f"found {str(found).lower()}, expected nothing: {who} does not look at it", path=f"{path}.{name}"
            )
    if "max_num_batched_tokens" not in schedule.ignores and engine.max_num_batched_tokens < engine.max_num_seqs:
        raise InputError(
            f"found {engine.max_num_batched_tokens}, expected at least max_num_seqs ({engine.max_num_seqs}): "
            "every running sequence needs a token of the budget",
            path=f"{path}.max_num_batched_tokens",
        )
    if engine.max_model_len is not None and engine.max_model_len > model.max_model_len:
        raise InputError(
            f"found {engine.max_model_len}, expected at most {model.max_model_len}, the limit of {model.name}: leave "
            "it out, or raise max_position_embeddings in a config.json of your own",
            path=f"{path}.max_model_len",
        )

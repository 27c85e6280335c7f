"""The world that policies see: requests, batches, KV memory, workers, the cluster."""

from simloop.serving.engine import Engine

__all__ = ["Engine"]

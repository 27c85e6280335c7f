"""Which request of one run is which of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import polars as pl

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Matching"]


@attrs.frozen(eq=False)
class Matching:
    """Which request of the one run is which of the other.

    Attributes:
        by: ``id`` or ``order`` (of arrival).
        run: Rows of the run's requests.
        real: Rows of the real run's requests, in the same order.
    """

    by: str
    run: npt.NDArray[np.int64]
    real: npt.NDArray[np.int64]

    @classmethod
    def of(cls, run: pl.DataFrame, real: pl.DataFrame) -> Matching:
        """Match requests by id or by order of arrival, whichever matches more of them.

        A pair whose prompts or outputs are known to be of different lengths is no match.
        """
        run, real = run.with_row_index("run"), real.with_row_index("real")
        known_run, known_real = run.drop_nulls("id").unique("id"), real.drop_nulls("id").unique("id")
        by_id = _alike(known_run.join(known_real, on="id", suffix="_real"))
        least = min(len(run), len(real))
        others = real.head(least).select("real", pl.exclude("real").name.suffix("_real"))
        by_order = _alike(pl.concat([run.head(least), others], how="horizontal"))
        by, pairs = ("id", by_id) if len(by_id) >= max(len(by_order), 1) else ("order", by_order)
        pairs = pairs.sort("run")
        return cls(by, pairs["run"].cast(pl.Int64).to_numpy(), pairs["real"].cast(pl.Int64).to_numpy())

    def __len__(self) -> int:
        return len(self.run)


def _alike(pairs: pl.DataFrame) -> pl.DataFrame:
    same = [(pl.col(name) == pl.col(f"{name}_real")).fill_null(True) for name in ("prompt_tokens", "output_tokens")]
    return pairs.filter(*same)

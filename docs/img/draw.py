"""Draw docs/img/overload.png, the picture in the README: ``python docs/img/draw.py`` (needs matplotlib).

One A100, Poisson arrivals of Azure's 2023 conversations at 8 and at 10 requests a second: just below and just above
what it can serve.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt

import simloop

RATES = {8: "#2a6fbb", 10: "#c8442f"}


def main() -> None:
    """Run both and draw them side by side."""
    figure, (waits, state) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    for rate, colour in RATES.items():
        result = simloop.simulate("quickstart", overrides=[f"workload.arrivals.rate={rate}", "workload.requests=4000"])
        requests, series = result.requests, result.timeseries
        waits.scatter(requests["arrival_s"], requests["ttft_s"], s=3, color=colour, label=f"{rate} requests/s")
        state.plot(series["time_s"], series["running"], color=colour, label=f"{rate}/s: running")
        state.plot(series["time_s"], series["waiting"], color=colour, linestyle=":", label=f"{rate}/s: waiting")
        print(rate, result)
    waits.set(xlabel="arrival (s of virtual time)", ylabel="time to first token (s)", yscale="log")
    state.set(xlabel="time (s of virtual time)", ylabel="requests")
    for axes in (waits, state):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, markerscale=4, fontsize=8)
    figure.savefig(Path(__file__).with_name("overload.png"), dpi=110)


if __name__ == "__main__":
    main()

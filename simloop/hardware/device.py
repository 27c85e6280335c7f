"""An accelerator, as its card in ``devices/*.toml`` describes it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from simloop.errors import InputError, did_you_mean
from simloop.hardware.calibration import Calibration
from simloop.hardware.interconnect import Interconnect

__all__ = ["Device", "PeakIdentity"]

_Positive = Annotated[float, Meta(gt=0)]
_Date = Annotated[str, Meta(pattern=r"^\d{4}(-\d{2}){0,2}$")]


class PeakIdentity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The product that a peak must equal: it catches sparse figures that pass for dense ones.

    Attributes:
        dtype: The precision it holds for.
        units: Streaming multiprocessors, cores, arrays.
        flop_per_clock_per_unit: Dense multiplications and additions that one unit does in one clock.
        clock_ghz: Boost clock, GHz.
    """

    dtype: str
    units: Annotated[int, Meta(gt=0)]
    flop_per_clock_per_unit: Annotated[int, Meta(gt=0)]
    clock_ghz: _Positive

    @property
    def tflops(self) -> float:
        """The peak that follows, TFLOP/s."""
        return self.units * self.flop_per_clock_per_unit * self.clock_ghz / 1e3


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One accelerator. Peaks are dense; bandwidths of links are per direction; GB are 10^9 bytes, GiB are 2^30.

    Attributes:
        name: The card's name.
        description: The product's name, in words.
        vendor: Who makes it.
        kind: What it is.
        memory_gib: Device memory, GiB.
        memory_bandwidth_gb_s: Device memory bandwidth, GB/s.
        onchip_memory_mb: Last-level cache or scratchpad, MB.
        peak_tflops: Dense peak by precision, TFLOP/s, with the accumulator that serving engines use (float32).
        peak_identity: How one of the peaks follows from units and clock.
        link: Interconnect between devices, in words.
        link_gb_s: Its bandwidth per direction, GB/s, where there is one.
        host_link_gb_s: Bandwidth to the host per direction, GB/s.
        tdp_w: Board power limit, W.
        idle_w: Power when idle, W, where a source states it.
        price_hint_usd: A price someone quoted, never part of a default result.
        price_hint_date: When it was quoted.
        calibration: How much of the peaks is reached.
        interconnect: What exchanges with other devices of a server take; a plan over several devices needs it.
        sources: For each number of the card, by its key, where it comes from.
    """

    name: str
    description: str
    vendor: str
    kind: Literal["gpu", "tpu", "npu", "pim", "asic"]
    memory_gib: _Positive
    memory_bandwidth_gb_s: _Positive
    onchip_memory_mb: _Positive | None = None
    peak_tflops: dict[str, _Positive]
    peak_identity: PeakIdentity | None = None
    link: str | None = None
    link_gb_s: _Positive | None = None
    host_link_gb_s: _Positive | None = None
    tdp_w: _Positive | None = None
    idle_w: _Positive | None = None
    price_hint_usd: _Positive | None = None
    price_hint_date: _Date | None = None
    calibration: Calibration
    interconnect: Interconnect | None = None
    sources: dict[str, str]

    @property
    def memory_bytes(self) -> int:
        """Device memory, bytes."""
        return int(self.memory_gib * 2**30)

    def peak_flops(self, dtype: str) -> float:
        """Return the dense peak in one precision, FLOP/s.

        Raises:
            InputError: The card states no peak for that precision.
        """
        try:
            return self.peak_tflops[dtype] * 1e12
        except KeyError:
            options = ", ".join(self.peak_tflops)
            near = did_you_mean(dtype, self.peak_tflops)
            raise InputError(f"{self.name} has no peak for {dtype!r}{near} (it has: {options})") from None

    def links(self) -> Interconnect:
        """Return the interconnect.

        Raises:
            InputError: The card states none.
        """
        if self.interconnect is None:
            raise InputError(f"{self.name} states no interconnect, which a plan over several devices needs")
        return self.interconnect

    def with_(self, **changes: Any) -> Device:
        """Return a copy with some attributes changed: ``a100.with_(name="a100-slow", memory_bandwidth_gb_s=1000.0)``.

        Raises:
            InputError: An attribute does not exist, or a value is of the wrong type.
        """
        for key in changes:
            if key not in self.__struct_fields__:
                raise InputError(f"a device has no {key!r}{did_you_mean(key, self.__struct_fields__)}")
        changed = msgspec.structs.replace(self, **changes)
        try:
            return msgspec.convert(msgspec.to_builtins(changed), Device)
        except msgspec.ValidationError as error:
            raise InputError(str(error)) from error

"""Device cards: what they say adds up, and a wrong one is refused in one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import pytest

from simloop.content import find_content
from simloop.errors import InputError
from simloop.hardware import ENTRY_POINT_GROUP, Device, device_names, load_device

ASSUMED = ["a100-quarter-flops-80gb", "gddr6-aim-32gb"]  # no such thing was measured

BUNDLED = [
    *ASSUMED,
    "a10-24gb",
    "a100-pcie-80gb",
    "a100-sxm-40gb",
    "a100-sxm-80gb",
    "a40-48gb",
    "b200-sxm-180gb",
    "h100-pcie-80gb",
    "h100-sxm-80gb",
    "h200-sxm-141gb",
    "l4-24gb",
    "l40s-48gb",
    "mi300x-192gb",
    "rtx-3090-24gb",
    "rtx-4090-24gb",
    "rtx-a6000-48gb",
    "rtx-pro-6000-96gb",
    "v100-sxm-16gb",
    "v100-sxm-32gb",
]

_NUMBERS_BY_TABLE = {"peak_tflops", "peak_identity", "calibration", "interconnect", "sources"}


def test_bundled_names() -> None:
    assert set(BUNDLED) <= set(device_names())


@pytest.mark.parametrize("name", BUNDLED)
def test_a_card_is_named_like_its_file(name: str) -> None:
    assert load_device(name).name == name


@pytest.mark.parametrize("name", BUNDLED)
def test_the_peak_follows_from_units_and_clock(name: str) -> None:
    device = load_device(name)
    identity = device.peak_identity
    if identity is None:
        assert device.sources["peak_tflops"].startswith("vendor figure")
        return
    assert device.peak_tflops[identity.dtype] == pytest.approx(identity.tflops, rel=0.015)


@pytest.mark.parametrize("name", BUNDLED)
def test_every_number_has_a_source(name: str) -> None:
    device = load_device(name)
    values = msgspec.to_builtins(device)
    numbers = {key for key, value in values.items() if isinstance(value, int | float)}
    tables = {key for key in ("peak_tflops", "peak_identity") if values[key] is not None}
    assert set(device.sources) == numbers | tables
    assert all(len(source) > 4 for source in device.sources.values())


@pytest.mark.parametrize("name", sorted(set(BUNDLED) - set(ASSUMED)))
def test_calibration_states_its_error_or_that_it_was_carried_over(name: str) -> None:
    calibration = load_device(name).calibration
    fits: list[Any] = [calibration.gemm, calibration.prefill_attention, calibration.decode_attention]
    fits += [calibration.elementwise, *calibration.gemm_quantized.values(), *calibration.moe_quantized.values()]
    fits += [fit for fit in (calibration.moe, calibration.latent_decode) if fit is not None]
    for fit in fits:
        measured = fit.median_error is not None and fit.p90_error is not None
        assert measured != fit.source.startswith("carried over from ")


@pytest.mark.parametrize("name", sorted(set(BUNDLED) - set(ASSUMED)))
def test_links_state_their_error_or_that_they_were_carried_over(name: str) -> None:
    links = load_device(name).links()
    for fits in (links.all_reduce, links.all_gather, links.reduce_scatter, links.all_to_all):
        assert [fit.ranks for fit in fits] == sorted({fit.ranks for fit in fits})
        for fit in fits:
            measured = fit.median_error is not None and fit.p90_error is not None
            assert measured != links.source.startswith("carried over from ")


@pytest.mark.parametrize("name", ASSUMED)
def test_what_is_assumed_says_so(name: str) -> None:
    device = load_device(name)
    calibration = device.calibration
    fits = [calibration.gemm, calibration.prefill_attention, calibration.decode_attention, calibration.elementwise]
    assert device.sources["peak_tflops"].startswith("assumed") or all(f.source.startswith("assumed") for f in fits)


def test_a_card_on_top_of_another(tmp_path: Path) -> None:
    a100, quarter = load_device("a100-sxm-80gb"), load_device("a100-quarter-flops-80gb")
    assert {key: value / 4 for key, value in a100.peak_tflops.items()} == quarter.peak_tflops
    assert (quarter.calibration, quarter.interconnect) == (a100.calibration, a100.interconnect)
    assert quarter.sources["tdp_w"] == a100.sources["tdp_w"]
    (tmp_path / "small.toml").write_text('base = "l4-24gb"\nname = "small"\nmemory_gib = 12\n')
    (tmp_path / "smaller.toml").write_text(
        'base = "small.toml"\nname = "smaller"\n[calibration.launch]\nkernel_us = 1\n'
    )
    smaller = load_device(str(tmp_path / "smaller.toml"))
    assert (smaller.name, smaller.memory_gib, smaller.calibration.launch.kernel_us) == ("smaller", 12, 1)
    assert smaller.calibration.gemm == load_device("l4-24gb").calibration.gemm
    for text, message in (
        ('base = "l4-24g"', r"base: found 'l4-24g', expected a bundled device .*; did you mean 'l4-24gb'\?"),
        ("base = 4", "base: found 4, expected a bundled device"),
        ('base = "nothing.toml"', "nothing.toml: cannot be read"),
        ('base = "card.toml"', "the card is its own base, over card.toml"),
        ('base = "l4-24gb"\nmemory_gb = 4', r"unknown key 'memory_gb'; did you mean 'memory_gib'\?"),
        ('base = "l4-24gb"\nmemory_gib = "x"', "memory_gib: Expected `float`, got `str`, found 'x'"),
    ):
        card = tmp_path / "card.toml"
        card.write_text(text)
        with pytest.raises(InputError, match=message):
            load_device(str(card))


@pytest.mark.parametrize("name", BUNDLED)
def test_a_price_has_a_date(name: str) -> None:
    device = load_device(name)
    assert (device.price_hint_usd is None) == (device.price_hint_date is None)


def test_memory_is_nominal_gib() -> None:
    assert load_device("a100-sxm-80gb").memory_bytes == 80 * 2**30


def test_a_slower_copy() -> None:
    a100 = load_device("a100-sxm-80gb")
    quarter = a100.with_(name="a100-quarter", peak_tflops={k: v / 4 for k, v in a100.peak_tflops.items()})
    assert quarter.peak_flops("bfloat16") == a100.peak_flops("bfloat16") / 4
    assert a100.peak_flops("bfloat16") == 312e12
    with pytest.raises(InputError, match=r"a device has no 'memory_gb'; did you mean 'memory_gib'\?"):
        a100.with_(memory_gb=40)
    with pytest.raises(InputError, match="Expected `float`, got `str`"):
        a100.with_(memory_gib="forty")


def test_a_precision_without_a_peak() -> None:
    with pytest.raises(InputError, match=r"v100-sxm-32gb has no peak for 'bfloat16'; did you mean 'float16'\?"):
        load_device("v100-sxm-32gb").peak_flops("bfloat16")


def test_unknown_device() -> None:
    with pytest.raises(InputError, match=r"no device is called 'H100-SXM'; did you mean 'h100-sxm-80gb'\?"):
        load_device("H100-SXM")


def test_missing_card() -> None:
    with pytest.raises(InputError, match=r"nowhere/card.toml: cannot be read: No such file"):
        load_device("nowhere/card.toml")


def _replace(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


BAD = [
    (_replace("memory_gib", "memory_gb"), r"unknown key 'memory_gb'; did you mean 'memory_gib'\?"),
    (_replace("memory_gib = 80", 'memory_gib = "80 GB"'), "memory_gib: Expected `float`, got `str`, found '80 GB'"),
    (_replace("memory_gib = 80", "memory_gib = -80"), "memory_gib: Expected `float` > 0.0, found -80"),
    (_replace("memory_gib = 80", ""), "Object missing required field `memory_gib`"),
    (_replace("sharpness", "sharpnes"), r"calibration.gemm: unknown key 'sharpnes'; did you mean 'sharpness'\?"),
    (_replace("[calibration.gemm]", "[calibration.gem]"), r"calibration: unknown key 'gem'; did you mean 'gemm'\?"),
    (_replace("sharpness = 1.6", "sharpness = 0.6"), "calibration.gemm.sharpness: Expected `float` >= 1.0, found 0.6"),
    (_replace('kind = "gpu"', 'kind = "gpus"'), "kind: Invalid enum value 'gpus'"),
    (_replace("bfloat16 = 312", 'bfloat16 = "312"'), r"peak_tflops\[...\]: Expected `float`, got `str`"),
    (_replace("launch_us", "lunch_us"), r"interconnect: unknown key 'lunch_us'; did you mean 'launch_us'\?"),
    (_replace("bus_gb_s = 179.9", "bus_gb_s = 0"), r"interconnect.all_reduce\[0\].bus_gb_s: Expected `float` > 0.0"),
    (_replace('name = "a100', "name = a100"), "is not TOML"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_cards_are_one_line_that_names_file_and_key(
    tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    text = change(find_content("devices", "a100-sxm-80gb").read_text())
    file = tmp_path / "card.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_device(str(file))
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_every_card_key_states_its_unit() -> None:
    """A number at the top of a card ends in a unit, so that a reader never has to guess."""
    unit = re.compile(r"_(gib|mb|gb_s|w|usd)$")
    for field in msgspec.structs.fields(Device):
        if field.name in _NUMBERS_BY_TABLE or "float" not in str(field.type):
            continue
        assert unit.search(field.name), field.name


class _Point:
    def __init__(self, name: str, offer: object) -> None:
        self.name, self._offer = name, offer

    def load(self) -> object:
        return self._offer


@pytest.mark.parametrize("shape", ["device", "path", "function", "nonsense"])
def test_devices_of_installed_packages(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = load_device("a100-sxm-80gb").with_(name="mine")
    path = find_content("devices", "l40s-48gb")
    offers: dict[str, object] = {"device": mine, "path": path, "function": lambda: mine, "nonsense": 7}

    def entry_points(*, group: str) -> list[_Point]:
        assert group == ENTRY_POINT_GROUP
        return [_Point("mine", offers[shape])]

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    assert "mine" in device_names()
    if shape == "nonsense":
        with pytest.raises(InputError, match=r"entry point 'mine' of simloop.devices: expected a device"):
            load_device("mine")
    else:
        assert load_device("mine").name == ("l40s-48gb" if shape == "path" else "mine")

"""Band facts and band names."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xtec import sentinel2
from xtec.errors import BandError, InputError
from xtec.sentinel2 import AMBIGUOUS, BANDS, NAMES, Band, band, recognise

ALIASES = [
    (alias, one.name)
    for one in BANDS
    for alias in (one.name, one.name.lower(), one.common_name, *one.aliases)
]

PROVIDERS = {
    "ESA": [f"B{n:02d}" for n in range(1, 9)] + ["B8A", "B09", "B10", "B11", "B12"],
    "Earth Engine": [f"B{n}" for n in range(1, 9)] + ["B8A", "B9", "B10", "B11", "B12"],
    "EOPF": [f"b{n:02d}" for n in range(1, 9)] + ["b8a", "b09", "b10", "b11", "b12"],
    "Copernicus Data Space": [
        "B01_60m", "B02_10m", "B03_10m", "B04_10m", "B05_20m", "B06_20m", "B07_20m",
        "B08_10m", "B8A_20m", "B09_60m", "B10_60m", "B11_20m", "B12_20m",
    ],
    "Earth Search": [
        "coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3",
        "nir", "nir08", "nir09", "cirrus", "swir16", "swir22",
    ],
    "STAC eo 2.0": [
        "coastal", "blue", "green", "red", "rededge071", "rededge075", "rededge078",
        "nir", "nir08", "nir09", "cirrus", "swir16", "swir22",
    ],
}  # fmt: skip


@pytest.mark.parametrize("provider", PROVIDERS)
def test_each_provider_names_all_thirteen_bands(provider):
    assert recognise(PROVIDERS[provider]) == NAMES


def test_digital_earth_australia_and_africa_count_swir_differently():
    australia = ["nbart_coastal_aerosol", "nbart_blue", "nbart_red_edge_1", "nbart_nir_1",
                 "nbart_nir_2", "nbart_swir_2", "nbart_swir_3"]  # fmt: skip
    assert recognise(australia) == ("B01", "B02", "B05", "B08", "B8A", "B11", "B12")
    africa = ["band_02", "red_edge_2", "nir_narrow", "water_vapour", "swir_1", "swir_2"]
    assert recognise(africa) == ("B02", "B06", "B8A", "B09", "B11", "B12")


def test_no_two_bands_share_a_name():
    keys = [key for one in BANDS for key in sentinel2._keys(one)]
    assert len(keys) == len(set(keys))
    assert not set(keys) & set(AMBIGUOUS)


@given(
    chosen=st.lists(st.sampled_from(ALIASES), unique_by=lambda pair: pair[1]),
    upper=st.booleans(),
    blank=st.sampled_from(["", " "]),
)
def test_any_spelling_in_any_order_and_number(chosen, upper, blank):
    names = [blank + (alias.upper() if upper else alias) + blank for alias, _ in chosen]
    assert recognise(names) == tuple(name for _, name in chosen)


@given(st.permutations(NAMES))
def test_canonical_names_are_a_fixed_point(names):
    assert recognise(names) == tuple(names)
    assert recognise(np.array(names)) == tuple(names)


@given(st.lists(st.text(max_size=8), max_size=20))
def test_whatever_comes_the_answer_is_bands_or_a_band_error(names):
    try:
        canonical = recognise(names)
    except BandError:
        return
    assert len(canonical) == len(names) == len(set(canonical))
    assert set(canonical) <= set(NAMES)


@given(st.sampled_from(ALIASES), st.sampled_from(ALIASES))
def test_two_names_of_one_band_are_refused(first, second):
    if first[1] == second[1]:
        with pytest.raises(BandError, match=f"{first[0]} and {second[0]} are all {first[1]}"):
            recognise([first[0], second[0]])
    else:
        assert recognise([first[0], second[0]]) == (first[1], second[1])


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["B02", "SCL"], "'SCL' is unknown"),
        (["B2", "B00"], "'B00' is unknown"),
        (["B13"], "'B13' is unknown"),
        (["B002"], "'B002' is unknown"),
        (["rededge"], "'rededge' may be B05, B06, B07"),
        (["B02_10m", "B02_20m"], "B02_10m and B02_20m are all B02"),
        (["nir08", "B8A"], "nir08 and B8A are all B8A"),
        ([1, 2], "1 is a position"),
        ("scl", "'scl' is unknown"),
    ],
)
def test_the_error_says_what_was_found_and_what_is_allowed(names, complaint):
    with pytest.raises(BandError, match=re.escape(complaint)) as caught:
        recognise(names)
    message = str(caught.value)
    listed = [names] if isinstance(names, str) else [str(name) for name in names]
    assert f"Found: {', '.join(listed)}." in message
    assert all(f"{one.name} ({one.common_name})" in message for one in BANDS)
    assert isinstance(caught.value, InputError)


def test_one_string_is_one_name():
    assert recognise("blue") == ("B02",)
    assert recognise([]) == ()


def test_facts():
    assert len(BANDS) == 13
    wavelengths = [one.centre_wavelength_nm for one in BANDS]
    assert wavelengths == sorted(wavelengths)
    assert {one.name for one in BANDS if one.gsd_m == 10} == {"B02", "B03", "B04", "B08"}
    assert {one.name for one in BANDS if one.gsd_m == 60} == {"B01", "B09", "B10"}
    assert {one.gsd_m for one in BANDS} == {10, 20, 60}
    assert (sentinel2.NODATA, sentinel2.SATURATED) == (0, 65535)
    assert round(sentinel2.OFFSET_BASELINE_0400 * sentinel2.SCALE, 12) == 0.1


def test_facts_of_one_band():
    assert band("B8A") == Band("B8A", "nir08", 864.7, 20, BANDS[8].aliases)
    with pytest.raises(BandError, match="'b8a' is not one of the bands B01, B02"):
        band("b8a")

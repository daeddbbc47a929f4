"""Facts about Sentinel-2's instrument and its products, and the many names of its bands.

Sources
-------
Wavelengths: ESA, *Sentinel-2 Spectral Response Functions*, COPE-GSEG-EOPG-TN-15-0007 issue 3.0,
Sentinel-2A (its sisters differ by at most 17 nm). Ground sampling distances and special values:
ESA, *Sentinel-2 Products Specification Document*, S2-PDGS-TAS-DI-PSD. The offset: ESA, *Processing
Baseline 04.00*, January 2022. Common names: STAC extension ``eo`` 2.0.0; the aliases beside
them are those of ``eo`` 1.0, Earth Search, EOPF, Digital Earth Australia and Africa.

Below: errors. Above: sample, cube, everything that speaks of bands.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from xtec.errors import BandError

NODATA = 0
"""Digital number of a pixel outside the swath (special value NODATA)."""

SATURATED = 65535
"""Digital number of a saturated pixel (special value SATURATED)."""

OFFSET_BASELINE_0400 = 1000
"""Digital numbers added to every valid pixel since processing baseline 04.00."""

SCALE = 1e-4
"""Reflectance of one digital number (1 / QUANTIFICATION_VALUE)."""


@dataclass(frozen=True)
class Band:
    """One band of the MultiSpectral Instrument (MSI)."""

    name: str
    """Name in ESA's products, two digits: "B02"."""
    common_name: str
    """Name in the STAC extension ``eo``: "blue"."""
    centre_wavelength_nm: float
    """Centre of the spectral response of Sentinel-2A, in nanometres."""
    gsd_m: int
    """Ground sampling distance of the instrument in metres: 10, 20 or 60."""
    aliases: tuple[str, ...] = ()
    """Further names, lower case and without separators; see `recognise`."""


BANDS: tuple[Band, ...] = (
    Band("B01", "coastal", 442.7, 60, ("coastalaerosol", "aerosol")),
    Band("B02", "blue", 492.4, 10),
    Band("B03", "green", 559.8, 10),
    Band("B04", "red", 664.6, 10),
    Band("B05", "rededge071", 704.1, 20, ("rededge1", "re1")),
    Band("B06", "rededge075", 740.5, 20, ("rededge2", "re2")),
    Band("B07", "rededge078", 782.8, 20, ("rededge3", "re3")),
    Band("B08", "nir", 832.8, 10, ("nbartnir1",)),
    Band("B8A", "nir08", 864.7, 20, ("b08a", "nirnarrow", "narrownir", "nbartnir2")),
    Band("B09", "nir09", 945.1, 60, ("watervapour", "watervapor")),
    Band("B10", "cirrus", 1373.5, 60),
    Band("B11", "swir16", 1613.7, 20, ("swir1", "nbartswir2")),
    Band("B12", "swir22", 2202.4, 20, ("swir2", "nbartswir3")),
)
"""The thirteen bands in the order of ESA's products and of TerraCodec."""

NAMES: tuple[str, ...] = tuple(band.name for band in BANDS)
"""Their names: "B01" to "B08", "B8A", "B09" to "B12"."""

AMBIGUOUS: dict[str, tuple[str, ...]] = {"rededge": ("B05", "B06", "B07")}
"""Common names that more than one band carries (``eo`` 1.0), and their bands."""

_RESOLUTION = re.compile(r"[_\-. ](10|20|60)m$")
_SEPARATORS = re.compile(r"[_\-. ]")


def band(name: str) -> Band:
    """Return the facts of the band with this canonical name, for example "B8A".

    Raises
    ------
    BandError
        No band has that name; aliases are for `recognise`.
    """
    if name not in NAMES:
        raise BandError(f"{name!r} is not one of the bands {', '.join(NAMES)}.")
    return BANDS[NAMES.index(name)]


def recognise(names: Sequence[str]) -> tuple[str, ...]:
    """Translate band names of any provider to the canonical "B01" .. "B12", in the given order.

    Upper and lower case, ``_ - .`` and blanks, a resolution at the end (``B02_10m``), a prefix
    ``band`` or ``nbart`` and missing zeros make no difference. As in STAC, ``nir`` is the wide
    B08, ``nir08`` the narrow B8A and ``nir09`` the water vapour band B09.

    Parameters
    ----------
    names : sequence of str
        For example the values of a ``band`` coordinate, or the names of variables.

    Returns
    -------
    tuple of str
        As long as `names`, each name of `NAMES` at most once.

    Raises
    ------
    BandError
        A name is unknown, stands for several bands, or two names mean the same band. The
        message lists everything that was found and what is allowed.

    Examples
    --------
    >>> recognise(["blue", "b8a_20m", "B4"])
    ('B02', 'B8A', 'B04')
    """
    names = (names,) if isinstance(names, str) else tuple(names)
    found = [_lookup(name) for name in names]
    problems = [problem for _, problem in found if problem]
    canonical = tuple(name for name, _ in found)
    for name in NAMES:
        given = [str(g) for g, c in zip(names, canonical, strict=True) if c == name]
        if len(given) > 1:
            problems.append(f"{' and '.join(given)} are all {name}")
    if problems:
        listing = ", ".join(str(name) for name in names)
        raise BandError(
            f"Cannot tell the Sentinel-2 bands apart: {'; '.join(problems)}. Found: {listing}. "
            f"Allowed, each once: {_allowed()}. Rename the bands, or select those you mean."
        )
    return canonical


def _lookup(name: object) -> tuple[str, str]:
    """Return the canonical name ("" when there is none) and the problem ("" when there is none)."""
    if not isinstance(name, str):
        return "", f"{name!r} is a position or something else, not a name"
    key = _normalise(name)
    if key in AMBIGUOUS:
        return "", f"{name!r} may be {', '.join(AMBIGUOUS[key])}"
    canonical = _BY_KEY.get(key, "")
    return canonical, "" if canonical else f"{name!r} is unknown"


def _normalise(name: str) -> str:
    """Reduce a name to lower case without separators, resolution and prefix."""
    key = _SEPARATORS.sub("", _RESOLUTION.sub("", name.strip().lower()))
    if key in _BY_KEY:
        return key
    return re.sub(r"^band(?=\d)", "b", key.removeprefix("nbart"))


def _keys(one: Band) -> set[str]:
    """All normalised names of a band."""
    return {one.name.lower(), "b" + one.name[1:].lstrip("0").lower(), one.common_name, *one.aliases}


def _allowed() -> str:
    return ", ".join(f"{one.name} ({one.common_name})" for one in BANDS)


_BY_KEY: dict[str, str] = {key: one.name for one in BANDS for key in _keys(one)}

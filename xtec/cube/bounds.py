"""The largest error that a user allows, for each band of a cube.

Below: target, sentinel2, errors. Above: prepare.
"""

from collections.abc import Iterable, Mapping, Sequence

from xtec.cube.target import Target
from xtec.errors import InputError
from xtec.sentinel2 import recognise

Bound = int | Sequence[int] | Mapping[str, int]


def bounds_of(
    max_error: Bound | None, bands: tuple[str, ...], target: Target | None
) -> int | tuple[int, ...] | None:
    """The bound as `Settings` takes it.

    Parameters
    ----------
    max_error : int, sequence or mapping
        For all bands, for each in the order of the cube, or by their names.
    bands : tuple of str
        Canonical names.
    target : Target, optional
        What else was asked for.

    Raises
    ------
    InputError, BandError
        A target was given too, or a mapping does not name each band once.
    """
    if max_error is None:
        return None
    if target is not None:
        raise InputError(
            f"max_error={max_error!r} and {target} were given, but each of them decides how good "
            "the pixels are; give one of them."
        )
    if isinstance(max_error, Mapping):
        found = dict(zip(recognise(list(max_error)), max_error.values(), strict=True))
        if set(found) != set(bands):
            raise InputError(
                f"max_error names the bands {sorted(found)}, the cube has {sorted(bands)}. Give "
                "each of them, or one number for all."
            )
        return tuple(found[band] for band in bands)
    # `Settings` refuses what is no number.
    return tuple(max_error) if isinstance(max_error, Iterable) else max_error

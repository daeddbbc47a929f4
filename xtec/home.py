"""The array that a stream stands in, and what that says about the stream.

A stream is sound by itself and still wrong where it stands: moved from another array, or forged so
that it claims more pixels than there is memory. Whoever knows the array says what it expects.

Below: settings, coding.stream, models.registry, errors. Above: codec, the sockets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xtec.coding.stream import DIGEST_BYTES, Stream
from xtec.errors import CorruptStreamError, WrongModelError
from xtec.models.registry import Shelf
from xtec.settings import Settings

Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class Home:
    """What an array's metadata say about each of its chunks."""

    settings: Settings
    dtype: str
    """"uint16" or "int16"."""
    shape: Shape | None = None
    """(time, band, y, x); None where it is not known."""
    shelf: Shelf | None = None
    """Where the store keeps its models; None where that is not known."""

    def check(self, stream: Stream) -> None:
        """Refuse a stream that was written for another array.

        Raises
        ------
        WrongModelError, CorruptStreamError
            Another model; another no-data value or offset.
        """
        ours = self.settings
        if stream.model_digest.hex() != ours.model_digest[: 2 * DIGEST_BYTES]:
            raise WrongModelError(
                f"a stream was written with the model of digest {stream.model_digest.hex()}..., "
                f"where the array's model is {ours.model!r} ({ours.model_digest[:16]}...): it does "
                "not belong here."
            )
        found, expected = (stream.nodata, stream.offset), (ours.nodata, ours.offset)
        if found != expected:
            raise CorruptStreamError(
                f"a stream has the no-data value {found[0]} and the offset {found[1]}, where the "
                f"array's are {expected[0]} and {expected[1]}: it does not belong here."
            )

    def check_bands(self, stream: Stream, names: Sequence[str]) -> None:
        """Refuse a stream of other bands, or of ours in another order.

        Parameters
        ----------
        stream : Stream
        names : sequence of str
            The model's bands.

        Raises
        ------
        CorruptStreamError
            It is one.
        """
        found = tuple(names[i] if i < len(names) else f"number {i}" for i in stream.bands)
        if found != self.settings.bands:
            raise CorruptStreamError(
                f"a stream holds the bands {list(found)}, where the array's are "
                f"{list(self.settings.bands)}: it does not belong here."
            )

    def check_setting(self, stream: Stream) -> None:
        """Refuse a stream that the array's own settings would not have made.

        Raises
        ------
        CorruptStreamError
            Another compression, or other bands.
        """
        found = stream.level, stream.bands
        expected = self.settings.level, self.settings.positions
        if found != expected:
            raise CorruptStreamError(
                f"a stream has the setting and bands {found}, where the array's are {expected}: it "
                "does not belong here."
            )

"""The exceptions of xtec.

Every error a caller can provoke is one of these, or a warning at the end; each message says what
was met, what was allowed and what to do.

Below: nothing. Above: everything.
"""


class XtecError(Exception):
    """Base of every exception that xtec raises on purpose."""


class InputError(XtecError, ValueError):
    """A cube, a setting or an argument that cannot be used as it is."""


class BandError(InputError):
    """Bands that are unknown, ambiguous, repeated or not in the model."""


class BoundError(XtecError):
    """A promised largest error that was found not to be kept; nothing was written."""


class TableError(XtecError, ValueError):
    """Frequency tables that are damaged or do not describe a distribution."""


class ModelError(XtecError):
    """A model that is unknown, missing, damaged, or fails its known-answer test."""


class StreamError(XtecError, ValueError):
    """Bytes that are not a whole, undamaged stream of a known model and format."""


class TruncatedStreamError(StreamError):
    """The stream ends before its own lengths say it should."""


class CorruptStreamError(StreamError):
    """The stream contradicts itself: a checksum, a length or a code is wrong."""


class WrongModelError(StreamError):
    """The stream was written with a model other than the one at hand."""


class NewerFormatError(StreamError):
    """The stream was written in a format version that this xtec does not know."""


class SecondLossWarning(UserWarning):
    """Pixels that were compressed with loss before are compressed with loss again."""


class UnfinishedStoreWarning(UserWarning):
    """A store whose writing was interrupted, or still goes on: chunks may be missing."""

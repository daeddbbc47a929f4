"""The page docs/benchmarks.md: page.md with the tables filled in, and its pictures.

Below: picture, report. Above: rate_distortion.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

import picture
from measure import Result
from quality import NDVI_FROM_DN
from report import BD_RANGE, EQUAL_BPPPB
from seams import MARGIN

TEMPLATE = Path(__file__).with_name("page.md")
PAGE = "benchmarks.md"
PICTURE = "rate_distortion.png"
PICTURE_SERIES = "rate_distortion_series.png"
TITLES = {
    PICTURE: "Sentinel-2 L1C, all validation cubes pooled",
    PICTURE_SERIES: "Sentinel-2 L1C, one place on 30 dates",
}
DEFINITIONS = {
    "bd_low": f"{BD_RANGE[0]:g}",
    "bd_high": f"{BD_RANGE[1]:g}",
    "bpppb": f"{EQUAL_BPPPB:g}",
    "margin": str(MARGIN),
    "ndvi_from": f"{NDVI_FROM_DN:,}",
    "picture": PICTURE,
    "picture_series": PICTURE_SERIES,
}


def write(folder: Path, parts: Mapping[str, str], drawn: Mapping[str, Sequence[Result]]) -> None:
    """Write the page and draw its pictures.

    Parameters
    ----------
    folder : Path
    parts : str by str
        What page.md has placeholders for: command, origin (date, machine, versions) and tables.
    drawn : for each picture the codecs on it, ours first
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = Template(TEMPLATE.read_text()).substitute(DEFINITIONS | dict(parts))
    (folder / PAGE).write_text(text.rstrip("\n") + "\n")
    for name, results in drawn.items():
        picture.draw(folder / name, results, TITLES[name])

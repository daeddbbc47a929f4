"""Pictures of a cube before and after, and of where its bits go; needs the ``plot`` extra.

`view` takes what is shown out of two cubes, and nothing else of them is computed; `colour` makes
true colour of it, `comparison` and `spectrum` draw it. `bits` draws what `xtec.cube.bits` counts.
`thumbnail` is for notebooks. `canvas` alone imports matplotlib, when something is drawn.

Below: cube, sentinel2, metrics, errors. Above: accessor, notebooks.
"""

from xtec.plot.bits import Explanation
from xtec.plot.comparison import comparison
from xtec.plot.thumbnail import thumbnail

__all__ = ["Explanation", "comparison", "thumbnail"]

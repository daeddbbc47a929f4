"""Many workers: `prepare` makes them ready, `plan` says what a long job will take.

Dask distributes; nothing here must be called for a cube to be coded on a cluster. Graphs carry the
names of models, never weights: each process finds its model itself.

Below: cube, zarr, codec, engine, models. Above: accessor. Imports neither torch nor distributed.
"""

from xtec.cluster.workers import prepare

__all__ = ["prepare"]

"""From a user's Dataset to one that Zarr can code, and what can be said about it afterwards.

`axes` tells axes and bands by name, `stacking` makes one variable of many, `layout` finds it.
`packing` turns values into digital numbers, `storable` makes attributes and coordinates fit to be
stored, `prepare` puts these together with `chunks` and codec, `writing` writes (`blocks`,
`progress`) and goes on with what was interrupted (`resuming`). Where a `target`
stands for the compression, `calibrate` finds it by coding what `sampling` takes, in as few trials
as `bracket` can do with. `places` and `state` see to it that what is not whole is not taken for
whole. `existing` and `adding` add to a store. `stored`, `report` and `quality` look at what was
written; `pieces` finds the stored chunks, and `verify` reads them all, beside an original that
`pairing` lays next to them.

Below: zarr_v2, zarr_v3, codec, metrics, sentinel2. Above: accessor, cli.
"""

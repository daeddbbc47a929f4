"""``.tec`` on Dataset and DataArray: compress, and look at what came out.

Each method is one call down.

Below: io, cube. Above: the package itself, cli.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import xarray as xr

from xtec.cluster.plan import Plan, plan
from xtec.cube import layout, prepare, quality, report, stacking, writing
from xtec.cube.chunks import Sizes
from xtec.cube.report import Info
from xtec.io.native import native


@xr.register_dataset_accessor("tec")  # type: ignore[no-untyped-call]
@xr.register_dataarray_accessor("tec")  # type: ignore[no-untyped-call]
class Tec:
    """``.tec`` of a Dataset or DataArray that holds, or held, a Sentinel-2 cube."""

    def __init__(self, cube: xr.Dataset | xr.DataArray) -> None:
        self._cube = cube

    @property
    def _dataset(self) -> xr.Dataset:
        # Made at every call: xarray keeps the accessor while its object may change.
        return _as_dataset(self._cube)

    def compress(  # noqa: PLR0913 - what a user may choose
        self,
        store: str | Path | Any = None,
        *,
        compression: float | None = None,
        target_psnr: float | None = None,
        target_bpppb: float | None = None,
        model: str = "embedded",
        chunks: Sizes | None = None,
        shards: Sizes | None = None,
        zarr_format: int = 3,
        overwrite: bool = False,
        offset: int | None = None,
        nodata: int | None = None,
        variable: Hashable | None = None,
        progress: bool = True,
    ) -> xr.Dataset:
        """Compress a Sentinel-2 cube into a Zarr store, or prepare it for ``.to_zarr``.

        The cube is one variable with a band axis, or a Dataset with one variable per band, which
        become one variable (`unstack` takes them apart again). Its axes are recognised by name
        (time, band, y, x and usual variants) and stored in that order; a cube without a time axis
        gets one of length 1. Other variables are stored lossless. The caller's object does not
        change.

        Parameters
        ----------
        store : path, URL or Zarr store, optional
            Where to write. Without it nothing is computed but what a target needs:
            ``.to_zarr(path)`` of what is returned does the work (for Zarr format 2
            ``.to_zarr(path, zarr_format=2)``).
        compression : float, optional
            Lambda: low is smaller, high is better; by default 20.
        target_psnr : float, optional
            Instead of `compression`: the PSNR to aim at, in dB over 10,000 DN, all bands pooled.
        target_bpppb : float, optional
            Instead of `compression`: the bits per pixel per band to aim at, every byte of the
            streams counted.
        model : str
            "embedded", "tt-s2l1c" or "tt-s2l2a" for the official TerraCodec checkpoint whose
            lambda is nearest, another model's name, or the path of its weights (.safetensors or
            TerraCodec's .pt).
        chunks : mapping or four integers, optional
            Size of a chunk along time, y and x; by default 8, 256 and 256. All bands always.
        shards : mapping or four integers, optional
            Size of a shard: many chunks in one file. Zarr format 3 only.
        zarr_format : {3, 2}
            Version of the Zarr format.
        overwrite : bool
            Whether an existing store may be replaced.
        offset : int, optional
            Radiometric offset that the digital numbers carry: 1000 for ESA's products of
            processing baseline 04.00 and later, unless the reader took it off. By default what
            ``add_offset`` says, else 0. For reflectance in floating point it is added when packing,
            which leaves room for negative values.
        nodata : int, optional
            Digital number of pixels without data; by default ``_FillValue``, else the attribute
            ``nodata``, else 0. These pixels come back exactly.
        variable : hashable, optional
            Which variable, where several have a band axis.
        progress : bool
            Whether to show a progress bar.

        Returns
        -------
        xarray.Dataset
            The opened store, decoded where it is touched; without `store`, what is to be written.

        Raises
        ------
        InputError, BandError, ModelError
            Before anything is written, as far as it can be known without reading all pixels.

        Notes
        -----
        A target is met on a sample: up to eight of the chunks that will be written, always the
        same ones, spread over time and space, none of them without any data. They are encoded and
        decoded a few times; of a lazy cube nothing else is computed. What the whole cube reaches
        differs as far as the sample does. `info` says what was aimed at, which compression was
        chosen and what it reached, and so do the store's attributes. A target that the model does
        not reach is an InputError.

        uint16 and int16 are digital numbers and stored as they are. Floating point is reflectance,
        packed to uint16 with a scale of 1e-4 and NaN as 0, unless its encoding says how else to
        pack it to 16 bits. Plain ``xr.open_zarr`` gives packed values as float64; the Dataset
        returned here has the type that went in.

        What was opened from a compressed store still carries the codec: saving it again encodes it
        again, and loses a little again. Copy the store's files instead, or save it uncompressed
        with ``.drop_encoding()``.
        """
        if store is not None:
            writing.refuse_to_spoil(self._dataset, store, overwrite=overwrite)
        prepared = prepare.prepare(
            self._dataset,
            compression=compression,
            target_psnr=target_psnr,
            target_bpppb=target_bpppb,
            model=model,
            chunks=chunks,
            shards=shards,
            zarr_format=zarr_format,
            offset=offset,
            nodata=nodata,
            variable=variable,
            progress=progress,
        )
        if store is None:
            return prepared
        return writing.write(
            prepared, store, zarr_format=zarr_format, overwrite=overwrite, progress=progress
        )

    def plan(
        self,
        *,
        compression: float | None = None,
        model: str = "embedded",
        chunks: Sizes | None = None,
        offset: int | None = None,
        nodata: int | None = None,
        variable: Hashable | None = None,
        client: Any = None,
    ) -> Plan:
        """Say what compressing this cube will take: chunks, size, hours on the workers at hand.

        Up to eight chunks, spread over the cube, are read and coded, on all threads of up to eight
        workers at the same time. Chunks without any data are left out: where many are
        empty the job will be shorter and smaller.

        Parameters
        ----------
        compression, model, chunks, offset, nodata, variable
            As in `compress`.
        client : distributed.Client, optional
            Whose workers will do it; by default the active client's, and without one this process.

        Returns
        -------
        Plan
            Shown as a table; ``.to_dict()`` for programs.
        """
        return plan(
            self._dataset,
            compression=compression,
            model=model,
            chunks=chunks,
            offset=offset,
            nodata=nodata,
            variable=variable,
            client=client,
        )

    def info(self, variable: Hashable | None = None) -> Info:
        """Describe how a cube is compressed: model, chunks, sizes, bits per pixel per band.

        Raises
        ------
        InputError
            Nothing here is compressed.
        """
        return report.info(self._dataset, variable)

    def quality(
        self, original: xr.Dataset | xr.DataArray, variable: Hashable | None = None
    ) -> xr.Dataset:
        """Compare with the original: RMSE, PSNR and largest error per band, SAM, NDVI error.

        Computed block by block. Errors are in digital numbers; the peak of PSNR is 10,000.

        Raises
        ------
        InputError
            The two differ in shape, bands or coordinates.
        """
        return quality.quality(self._dataset, _as_dataset(original), variable)

    def unstack(self, variable: Hashable | None = None) -> xr.Dataset:
        """Make one variable per band, as it was before compression; lazy."""
        cube = layout.find_cube(self._dataset, variable)
        return stacking.unstack(cube.dataset, cube.name)

    def native(self, variable: Hashable | None = None) -> xr.DataTree:
        """Give each band at its own resolution, where a reader of `xtec.io` repeated its pixels.

        Groups "r10m", "r20m" and "r60m"; lazy. See `xtec.io.native`.
        """
        return native(self._dataset, variable)

    @property
    def array(self) -> xr.DataArray:
        """The cube as one variable (time, band, y, x); lazy."""
        return layout.find_cube(self._dataset).variable


def _as_dataset(cube: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """A DataArray as the only variable of a Dataset; it gets a name where it has none."""
    if isinstance(cube, xr.Dataset):
        return cube
    return cube.to_dataset(name=stacking.DEFAULT_NAME if cube.name is None else cube.name)

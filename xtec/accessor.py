"""``.tec`` on Dataset and DataArray: compress, and look at what came out.

Each method is one call down.

Below: seeing, io, cube, errors. Above: the package itself, cli.
"""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from xtec.cluster.plan import Plan, plan
from xtec.cube import adding, layout, prepare, stacking, writing
from xtec.cube.bounds import Bound
from xtec.cube.chunks import Sizes
from xtec.errors import InputError
from xtec.io.native import native
from xtec.seeing import Seeing


@xr.register_dataset_accessor("tec")  # type: ignore[no-untyped-call]
@xr.register_dataarray_accessor("tec")  # type: ignore[no-untyped-call]
class Tec(Seeing):
    """``.tec`` of a Dataset or DataArray that holds, or held, a Sentinel-2 cube."""

    def compress(  # noqa: PLR0913 - what a user may choose
        self,
        store: str | Path | Any = None,
        *,
        compression: float | None = None,
        max_error: Bound | None = None,
        target_psnr: float | None = None,
        target_bpppb: float | None = None,
        model: str = "embedded",
        chunks: Sizes | None = None,
        shards: Sizes | None = None,
        zarr_format: int = 3,
        overwrite: bool = False,
        resume: bool = False,
        embed_weights: bool | None = None,
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
            Lambda: low is smaller, high is better; by default 20, or with `max_error` what needs
            the fewest bits.
        max_error : int, sequence or mapping, optional
            Largest error of any valid pixel, in digital numbers: for all bands, for each in their
            order, or by band name. 0 is lossless.
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
            Whether an existing store may be replaced, once the new one is whole.
        resume : bool
            Whether to go on with what an interrupted run left, if it left anything: chunks (or
            shards) that are stored whole are checked and stay; all else is written as ever. Give
            the same cube and the same settings; what was begun otherwise is refused. A store that
            is whole is opened and returned, or with `overwrite` written anew.
        embed_weights : bool, optional
            Whether the model goes into the store, once, so that the store needs nothing but xtec;
            by default where its weights have up to 16 MB (the embedded model's: 4.9 MB). `info`
            counts these bytes apart.
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
            Whether to show a progress bar; in a terminal or a notebook only, not in a log.

        Returns
        -------
        xarray.Dataset
            The opened store, decoded where it is touched; without `store`, what is to be written.

        Raises
        ------
        InputError, BandError, ModelError
            Before anything is written, as far as it can be known without reading all pixels.
        BoundError
            A chunk came out that does not keep `max_error`; there is no known case.

        Notes
        -----
        A target is met on a sample: up to eight of the chunks that will be written, always the
        same ones, spread over time and space, none of them without any data. They are encoded and
        decoded a few times; of a lazy cube nothing else is computed. What the whole cube reaches
        differs as far as the sample does. `info` says what was aimed at, which compression was
        chosen and what it reached, and so do the store's attributes. A target that the model does
        not reach is an InputError.

        `max_error` holds on every machine that decodes, and is checked while encoding: what does
        not keep it is an error, not a store. It is about the digital numbers that are stored:
        reflectance in floating point is rounded to these first, half a number more (1.5 next to the
        number that stands for NaN). `info` says which part of the bits it takes. With `compression`
        it only shifts bits from one part to the other; with a target it does not go together.

        uint16 and int16 are digital numbers and stored as they are. Floating point is reflectance,
        packed to uint16 with a scale of 1e-4 and NaN as 0, unless its encoding says how else to
        pack it to 16 bits. Plain ``xr.open_zarr`` gives packed values as float64; the Dataset
        returned here has the type that went in.

        What was opened from a compressed store still carries the codec: saving it again encodes it
        again, and loses a little again, with a SecondLossWarning. Copy the store's files instead,
        or save it uncompressed with ``.drop_encoding()``.

        In a folder of this machine the store is written beside its place, as
        ``out.zarr.unfinished-1a2b3c4d``, and moved there when it is whole; until then an existing
        one stays. Elsewhere it is written in place: `overwrite` deletes first, and until the
        store is whole its attribute ``tec_unfinished`` says so. Chunks that are missing read as no
        data.
        """
        if store is None and resume:
            raise InputError("resume=True goes on with a store, and no store was given; name it.")
        if store is None and embed_weights:
            raise InputError(
                "embed_weights=True puts the model into a store, and no store was given; name one, "
                "or call xtec.embed_model(store) when .to_zarr has written it."
            )
        dataset = self._dataset
        if store is not None:
            writing.refuse_to_spoil(dataset, store, overwrite=overwrite, resume=resume)
        prepared = prepare.prepare(
            dataset,
            compression=compression,
            max_error=max_error,
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
            prepared,
            store,
            zarr_format=zarr_format,
            overwrite=overwrite,
            progress=progress,
            embed_weights=embed_weights,
            resume=resume,
        )

    def append(
        self,
        store: str | Path | Any,
        *,
        recover: bool = False,
        variable: Hashable | None = None,
        progress: bool = True,
    ) -> None:
        """Append dates to a store that `compress` wrote, with the store's own settings.

        Only whole chunks are written, so nothing is encoded twice: either the store's last chunk
        along time is full, or the cube begins with all dates of that chunk once more, from the
        original, and they are replaced. Variables and coordinates along time are appended too; all
        others must be the store's.

        Readers that go by consolidated metadata, as ``xr.open_zarr`` does, see the store as it was
        until all is there. An append that fails is taken back. One that was killed leaves the
        attribute ``tec_unfinished``; `recover` takes that back.

        Parameters
        ----------
        store : path, URL or Zarr store
        recover : bool
            Whether to remove first what an interrupted append left. Only when nothing writes to
            the store any more.
        variable : hashable, optional
            Which variable of the store, where several are compressed.
        progress : bool
            Whether to show a progress bar; in a terminal or a notebook only, not in a log.

        Raises
        ------
        InputError
            Before anything is written: the last chunk is not full, dates are there already, or
            bands, no-data value, offset, packing, grid or variables are not the store's.
        """
        adding.append(self._dataset, store, recover=recover, variable=variable, progress=progress)

    def write(
        self,
        store: str | Path | Any,
        *,
        region: Mapping[Any, slice] | str = "auto",
        variable: Hashable | None = None,
        progress: bool = True,
    ) -> None:
        """Write into a region of a store that exists, with the store's own settings.

        Only whole chunks (or shards) are written, so nothing is encoded twice; several processes
        may write regions at once. Each chunk holds either what it held or what is written.

        Parameters
        ----------
        store : path, URL or Zarr store
            Of `compress`, or a template with nothing in it yet:
            ``ds.tec.compress(...).to_zarr(store, compute=False)``.
        region : mapping of slices, or "auto"
            Along time, y and x, by index; what is missing is the whole axis. "auto" finds the
            place by the coordinates.
        variable : hashable, optional
            Which variable of the store, where several are compressed.
        progress : bool
            Whether to show a progress bar; in a terminal or a notebook only, not in a log.

        Raises
        ------
        InputError
            Before anything is written: the region cuts chunks, is not the cube's size, or bands,
            no-data value, offset, packing, grid or variables are not the store's.
        """
        adding.write_region(self._dataset, store, region, variable=variable, progress=progress)

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

"""TerraCodec checkpoints: the ``.pt`` files that torch saves.

Such a file is a zip archive: a pickle says which tensor has which name and shape, their numbers
lie beside it. Here the pickle is read twice, and neither time can it run code. For a card a reader
of our own takes names and shapes from it, without torch. For the weights torch does, with
``weights_only=True``.

A file is a state dict, or a dict that holds one as "state_dict". What cannot be told from shapes,
which is the number of heads and what the bands are, is that of the official networks: 16 heads for
a width of 768, and the bands of L1C or L2A for 13 or 12. Any other network says so itself, in the
entry "xtec" beside "state_dict": its "config", and a "name" if it likes, as our safetensors do.

Below: config, network, errors. Above: weights.
"""

import pickle
import re
import zipfile
from collections import OrderedDict
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xtec.errors import ModelError
from xtec.models import config as configs
from xtec.models.config import S2L1C, S2L2A, Config, ModelConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from xtec.models.network import TemporalTransformer

SUFFIX = ".pt"
PREFIX = "model."
STATE, ABOUT = "state_dict", "xtec"
PICKLE_LIMIT_BYTES = 1 << 24
BUFFERS = re.compile(r"entropy_model\.(bottleneck\..+|decoder\.layers\.\w+\.look_ahead_mask)")
"""What the reference saves beside parameters: tables of its coder, and masks."""
NAMED_AT_MOST = 3
"""Names that an error lists."""

Shape = tuple[int, ...]


def describe(path: Path) -> tuple[str | None, ModelConfig]:
    """Name, where the file carries one, and configuration of a checkpoint; imports no torch.

    Raises
    ------
    ModelError
        The file is not there, no checkpoint, holds code, or is of a network unknown here.
    """
    try:
        found = _Reader(BytesIO(_pickle(path))).load()
        state = found.get(STATE, found)
        shapes = {_name(k): v for k, v in state.items() if isinstance(v, _Shape)}
        about = found.get(ABOUT)
        if about is not None:
            return about.get("name"), _tec_tt(configs.from_dict(about["config"]))
    except ModelError:
        raise
    except OSError as error:
        raise ModelError(
            f"cannot read the weights {path}: {error}. Give the path of a .safetensors or .pt "
            "file, or the name of a model."
        ) from error
    except Exception as error:  # a damaged pickle raises anything
        raise ModelError(
            f"{path} is not a checkpoint (a state dict that torch.save wrote): {error!r}."
        ) from error
    return None, _deduce(path, shapes)


def load(path: Path, config: ModelConfig) -> "TemporalTransformer":
    """Build the network of a checkpoint, in float32 on the CPU.

    The transformer's weights stay in the file until they are used: it must not be overwritten
    meanwhile (being replaced by another file of its name does no harm).

    Raises
    ------
    ModelError
        The file cannot be read, or its tensors are not the network's.
    """
    import torch

    from xtec.models.network import TemporalTransformer

    try:
        state = torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
        state = {_name(k): v for k, v in state.get(STATE, state).items()}
    except Exception as error:  # pickle, zipfile and torch each raise their own
        raise ModelError(f"cannot read the weights {path}: {error}") from error
    with torch.device("meta"):
        network = TemporalTransformer(config)
    found = {k: v for k, v in state.items() if not BUFFERS.fullmatch(k)}
    wanted = network.state_dict()
    _account(path, found, wanted)
    # The convolutions serve as long as the process lives; the transformer until the exact prior
    # is made from it, so that it need not be in memory.
    network.load_state_dict(
        {
            k: v.float() if k.startswith("entropy_model.") else v.float().clone()
            for k, v in found.items()
        },
        assign=True,
    )
    return network


def _tec_tt(config: Config) -> ModelConfig:
    if not isinstance(config, ModelConfig):
        raise ModelError(
            "a checkpoint is of a TEC-TT network; the embedded family uses safetensors."
        )
    return config


def _name(key: str) -> str:
    return key.removeprefix(PREFIX)


def _account(path: Path, found: "Mapping[str, Any]", wanted: "Mapping[str, Tensor]") -> None:
    """Every parameter must be there under its name and in its shape, and nothing else."""

    def shape(tensor: Any) -> Shape | None:
        size = getattr(tensor, "shape", None)
        return None if size is None else tuple(size)

    complaints = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unknown": sorted(found.keys() - wanted.keys()),
        "of another shape": [
            f"{k} {shape(found[k])} where {tuple(v.shape)} is needed"
            for k, v in wanted.items()
            if k in found and shape(found[k]) != tuple(v.shape)
        ],
    }
    said = [
        f"{len(names)} {what}: {', '.join(names[:NAMED_AT_MOST])}"
        + (", ..." if len(names) > NAMED_AT_MOST else "")
        for what, names in complaints.items()
        if names
    ]
    if said:
        raise ModelError(
            f"the {len(found)} tensors of {path} do not fit a network of {len(wanted)} parameters; "
            f"{'; '.join(said)}."
        )


class _Shape(tuple[int, ...]):
    """What is read of a tensor."""

    __slots__ = ()


class _Reader(pickle.Unpickler):
    """Unpickles containers, numbers, text and the shapes of tensors; imports and calls nothing."""

    def find_class(self, module: str, name: str) -> Any:
        known: dict[str, Callable[..., Any]] = {
            "collections.OrderedDict": OrderedDict,
            # Made anew each time: a pickle may set attributes of what it finds.
            "torch._utils._rebuild_tensor_v2": lambda _, __, size, *___: _Shape(map(int, size)),
            "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
            "torch.Size": lambda size: size,
        }
        full = f"{module}.{name}"
        if module == "torch" and full not in known:
            return name  # a type of numbers or of their storage
        if full not in known:
            raise ModelError(
                f"a checkpoint holds tensors and nothing else; this one names {full}, which might "
                "run code. It was not run. Save the state dict alone: torch.save(x.state_dict())."
            )
        return known[full]

    def persistent_load(self, _: Any) -> None:
        """Numbers stay where they are."""


def _pickle(path: Path) -> bytes:
    """The pickle in a checkpoint's archive."""
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ModelError(
                f"{path} is not a checkpoint of torch 1.6 or later, which are zip archives."
            )
        with zipfile.ZipFile(file) as archive:
            (name,) = (n for n in archive.namelist() if re.fullmatch(r"[^/]+/data\.pkl", n))
            size = archive.getinfo(name).file_size
            if size > PICKLE_LIMIT_BYTES:
                raise ModelError(
                    f"the list of tensors in {path} has {size} bytes; {PICKLE_LIMIT_BYTES} is far "
                    "more than any of our networks needs."
                )
            return archive.read(name)


def _deduce(path: Path, shapes: "Mapping[str, Shape]") -> ModelConfig:
    """The configuration of a network from the shapes of its tensors."""
    analysis = "transform.analysis_transform.transforms."
    strided = {
        int(m[1]): shape
        for k, shape in shapes.items()
        if (m := re.fullmatch(re.escape(analysis) + r"(\d+)\.weight", k)) and len(shape) == 4
    }
    norm = shapes.get("entropy_model.post_embedding_layernorm.weight", ())
    if not strided or not norm:
        raise ModelError(f"{path} holds {len(shapes)} tensors, but not those of a TEC-TT network.")
    widths = [strided[i] for i in sorted(strided)]
    bands, d_model = widths[0][1], norm[0]
    known = {len(one.bands): one for one in (S2L1C, S2L2A)}
    if bands not in known or d_model != S2L1C.d_model:
        raise ModelError(
            f"{path} is of a network of {bands} bands and width {d_model}. Which bands, or how "
            f"many heads, shapes do not tell: they are known for {sorted(known)} bands and width "
            f"{S2L1C.d_model}. Save {{{STATE!r}: ..., {ABOUT!r}: {{'config': ...}}}} with "
            "xtec.models.config.to_dict of its configuration."
        )

    def count(pattern: str) -> int:
        return len({m[0] for k in shapes if (m := re.match(pattern, k))})

    return replace(
        known[bands],
        channels=tuple(shape[0] for shape in widths),
        residual_blocks=count(re.escape(analysis) + r"\d+\.conv\.0\.weight")
        // max(len(widths) - 1, 1),
        attention=bool(count(re.escape(analysis) + r"\d+\.conv_a\.")),
        layers_separate=count(r"entropy_model\.encoder_sep\.layers\.\w+"),
        layers_joint=count(r"entropy_model\.encoder_joint\.layers\.\w+"),
        layers_decoder=count(r"entropy_model\.decoder\.layers\.\w+"),
        mlp_ratio=_mlp_width(shapes) // d_model,
    )


def _mlp_width(shapes: "Mapping[str, Shape]") -> int:
    return max(
        (shape[0] for k, shape in shapes.items() if k.endswith("mlp1.fc1.weight")), default=0
    )

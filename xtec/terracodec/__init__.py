"""TerraCodec's own interface: standardised tensors in, tensors out, as its model card shows.

    from xtec import terracodec_v1_tt_s2l1c

    model = terracodec_v1_tt_s2l1c(pretrained=True, compression=5)
    inputs = model.normalize(digital_numbers)            # [B, T, 13, H, W]
    reconstruction = model(inputs)
    compressed = model.compress(inputs)
    reconstruction = model.decompress(**compressed)

Networks and signatures are those of terracodec 0.3.1; `model` is what they give, `published` makes
it.

Below: engine, settings, models, coding. Above: the package itself.
"""

from xtec.terracodec.model import TerraCodec
from xtec.terracodec.published import terracodec_v1_tt_s2l1c, terracodec_v1_tt_s2l2a

__all__ = ["TerraCodec", "terracodec_v1_tt_s2l1c", "terracodec_v1_tt_s2l2a"]

"""Which blocks an architecture has, in the public order: the state-dict keys follow from the positions here.

18 blocks in every encoder and 23 in every decoder (madebyollin/taehv).
"""

import torch
from torch import nn

from tinyworld.core.variants import IMAGE_CHANNELS, STAGES, TaehvSpec
from tinyworld.models.taehv.blocks import MemBlock, SoftClamp, SuperMemBlock, TGrow, TPool, UpConv, conv3

BLOCKS_PER_STAGE = 3


def build_encoder(spec: TaehvSpec) -> nn.Sequential:
    """Pixels folded by the patch size → latents: three stages that pool frames, halve the size and remember."""
    width = spec.encoder_width
    blocks: list[nn.Module] = [conv3(_folded_channels(spec), width), nn.ReLU(inplace=True)]
    for pool_frames in spec.encoder_time_downscale:
        blocks += [TPool(width, 2 if pool_frames else 1), conv3(width, width, stride=2, bias=False)]
        blocks += [MemBlock(width) for _ in range(BLOCKS_PER_STAGE)]
    return nn.Sequential(*blocks, conv3(width, spec.latent_channels))


def build_decoder(spec: TaehvSpec) -> nn.Sequential:
    """Latents → pixels folded by the patch size."""
    return _base_decoder(spec) if spec.decoder_block == "base" else _super_decoder(spec)


def _base_decoder(spec: TaehvSpec) -> nn.Sequential:
    widths = spec.decoder_widths
    blocks: list[nn.Module] = [SoftClamp(), conv3(spec.latent_channels, widths[0]), nn.ReLU(inplace=True)]
    for stage in range(STAGES):
        grow, scale = _growth(spec, stage)
        blocks += [MemBlock(widths[stage]) for _ in range(BLOCKS_PER_STAGE)]
        # The public chain repeats pixels at the place of the Identity; see UpConv.
        blocks += [nn.Identity(), TGrow(widths[stage], grow), UpConv(widths[stage], widths[stage + 1], scale)]
    return nn.Sequential(*blocks, nn.ReLU(inplace=True), conv3(widths[-1], _folded_channels(spec)))


def _super_decoder(spec: TaehvSpec) -> nn.Sequential:
    widths = spec.decoder_widths
    blocks: list[nn.Module] = [nn.Conv2d(spec.latent_channels, widths[0], 1, bias=False)]
    for stage in range(STAGES):
        grow, scale = _growth(spec, stage)
        blocks += [SuperMemBlock(widths[stage]) for _ in range(BLOCKS_PER_STAGE)]
        blocks += [conv3(widths[stage], widths[stage + 1] * scale**2), nn.ReLU(inplace=True)]
        blocks += [nn.PixelShuffle(scale), TGrow(widths[stage + 1], grow)]
    return nn.Sequential(*blocks, conv3(widths[-1], _folded_channels(spec)))


def _growth(spec: TaehvSpec, stage: int) -> tuple[int, int]:
    """Factors by which a decoder stage multiplies frames and each side of the picture."""
    return 2 if spec.decoder_time_upscale[stage] else 1, 2 if spec.decoder_space_upscale[stage] else 1


def _folded_channels(spec: TaehvSpec) -> int:
    return IMAGE_CHANNELS * spec.patch_size**2


def expected_shapes(spec: TaehvSpec) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a model of this architecture, by its public key. Allocates nothing."""
    with torch.device("meta"):
        model = nn.ModuleDict({"encoder": build_encoder(spec), "decoder": build_decoder(spec)})
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def grow_keys(spec: TaehvSpec) -> list[str]:
    """Keys of the decoder's TGrow weights, whose last rows are the last of the frames they make."""
    with torch.device("meta"):
        decoder = build_decoder(spec)
    return [f"decoder.{index}.conv.weight" for index, block in enumerate(decoder) if isinstance(block, TGrow)]

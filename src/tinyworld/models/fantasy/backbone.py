"""The Wan video transformer of diffusers with the Fun camera adapter, opened up at each block.

    noisy latents, timestep, conditions ─begin→ tokens ─(attend, feed) per block→ tokens ─end→ velocity

Without a camera, the whole equals diffusers' `WanTransformer3DModel.forward` bit for bit; in between, the geometry branch
reads tokens and adds to them.
"""

import hashlib
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tinyworld.core.errors import ConfigError, DataError
from tinyworld.core.world_sizes import PATCH, SPACE_STEP, TIME_STEP, BackboneSpec
from tinyworld.models.fantasy.backbone_init import initialise
from tinyworld.models.fantasy.control_adapter import ControlAdapter
from tinyworld.models.fantasy.known import Keys, Known, cross_attention, keys_of

# Said once per run by torch's rms_norm, which diffusers gives fp32 weights under autocast: a note on speed, results are the same.
warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
IMAGE_TEXT_TOKENS = 512
"""diffusers takes the last 512 tokens of the context for the text when there are image tokens before it."""
FP32_PARTS = frozenset({"rope", "time_embedder", "scale_shift_table", "norm1", "norm2", "norm3"})
"""Parts of names whose tensors stay float32 in any precision (diffusers' `_keep_in_fp32_modules` of Wan)."""


class WanConditions(NamedTuple):
    """What a video is made from besides noise.

    text: B text_tokens text_dim, zeros behind the prompt. image: B c t h w, latents of the first frame at t = 0, zeros after;
    zeros everywhere for no image. camera: B 6 F H W Plücker rays; None leaves the camera adapter out altogether, which
    is not the same as rays of zeros. clip: B image_tokens image_dim, None exactly when the size has no image_dim. steered:
    B bool, the samples whose rays count, as if the others had none; None is all. known: what `WanBackbone.remember` made of
    exactly the other fields, so that no pass makes it again.
    """

    text: Tensor
    image: Tensor
    camera: Tensor | None
    clip: Tensor | None
    steered: Tensor | None = None
    known: Known | None = None


class WanState(NamedTuple):
    """What `begin` makes and all blocks share. N = t·(h/2)·(w/2) tokens of width D.

    hidden: B N D. context: B tokens D, image tokens before text tokens. modulation: B 6 D float32, shift, scale and gate of
    attention, then of the FFN. time: B D, for the output. rotary: cosines and sines, each 1 N 1 head_dim. grid: tokens along
    time, rows and columns. keys: of the context, for every block; () when each makes its own.
    """

    hidden: Tensor
    context: Tensor
    modulation: Tensor
    time: Tensor
    rotary: tuple[Tensor, Tensor]
    grid: tuple[int, int, int]
    keys: tuple[Keys, ...] = ()


class WanBackbone(nn.Module):
    """1,616,313,152 parameters at `wan_fun_1_3b`. Random weights unless loaded (`backbone_weights.open_backbone`).

    Weights in less than float32 (`cast`) compute in their own number type, whether autocast is on or not; float32 weights
    follow autocast.
    """

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        from diffusers import WanTransformer3DModel

        if spec.image_dim is not None and spec.text_tokens != IMAGE_TEXT_TOKENS:
            raise ConfigError(
                f"A Wan transformer with image tokens takes exactly {IMAGE_TEXT_TOKENS} text tokens, not {spec.text_tokens}."
            )
        self.spec = spec
        self.transformer: Any = WanTransformer3DModel(
            patch_size=PATCH,
            num_attention_heads=spec.heads,
            attention_head_dim=spec.head_dim,
            in_channels=spec.in_channels,
            out_channels=spec.latent_channels,
            text_dim=spec.text_dim,
            freq_dim=spec.freq_dim,
            ffn_dim=spec.ffn,
            num_layers=spec.layers,
            image_dim=spec.image_dim,
            added_kv_proj_dim=None if spec.image_dim is None else spec.width,
        )
        self.control_adapter = ControlAdapter(spec.width) if spec.camera else None
        self.sharded_blocks = tuple(f"transformer.blocks.{index}" for index in range(spec.layers))

    @classmethod
    def hollow(cls, spec: BackboneSpec) -> "WanBackbone":
        """One whose parameters have shapes and no content, and whose rotary table is real: it is in no weight file."""
        with torch.device("meta"):
            backbone = cls(spec)
        rope = backbone.transformer.rope
        backbone.transformer.rope = type(rope)(rope.attention_head_dim, rope.patch_size, rope.max_seq_len)
        return backbone

    @property
    def dtype(self) -> torch.dtype:
        return self.transformer.patch_embedding.weight.dtype

    def begin(self, noisy: Tensor, timestep: Tensor, conditions: WanConditions) -> WanState:
        """noisy: B c t h w; timestep: B, in (0, 1000]. Raises DataError for shapes that do not belong together."""
        _check(self.spec, noisy, timestep, conditions)
        net = self.transformer
        with self._precision(noisy.device):
            known = conditions.known or self._know(conditions)
            patches = net.patch_embedding(torch.cat([noisy.to(self.dtype), conditions.image.to(self.dtype)], 1))
            if known.steering is not None:
                patches = patches + known.steering
            embedder = net.condition_embedder
            level = embedder.timesteps_proj(timestep).to(next(embedder.time_embedder.parameters()).dtype)
            time = embedder.time_embedder(level).to(self.dtype)
            modulation = embedder.time_proj(embedder.act_fn(time)).unflatten(1, (6, -1)).float()
        hidden = patches.flatten(2).transpose(1, 2).contiguous()
        grid = (patches.shape[2], patches.shape[3], patches.shape[4])
        return WanState(hidden, known.context, modulation, time, known.rotary, grid, known.keys)

    def remember(self, conditions: WanConditions, beside: Known | None = None) -> WanConditions:
        """The conditions with all that many passes over them have in common; the results stay the same bit for bit.

        beside: known of conditions that differ in the text alone, with which the rest is shared. Memory: see `known`.
        """
        with self._precision(conditions.text.device):
            known = self._know(conditions, beside)
            pairs = [
                keys_of(block.attn2, known, beside.keys[index] if beside else None)
                for index, block in enumerate(self.transformer.blocks)
            ]
        return conditions._replace(known=known._replace(keys=tuple(pairs)))

    def _know(self, conditions: WanConditions, beside: Known | None = None) -> Known:
        embedder = self.transformer.condition_embedder
        context, images = embedder.text_embedder(conditions.text.to(self.dtype)), 0
        if conditions.clip is not None:
            image = embedder.image_embedder(conditions.clip.to(self.dtype))
            context, images = torch.cat([image, context], 1), image.shape[1]
        if beside is not None:
            return beside._replace(context=context)
        return Known(context, images, self._steering(conditions), self.transformer.rope(conditions.image))

    def _steering(self, conditions: WanConditions) -> Tensor | None:
        if conditions.camera is None:
            return None
        assert self.control_adapter is not None
        steering = self.control_adapter(conditions.camera.to(self.dtype))
        if conditions.steered is None:
            return steering
        return torch.where(conditions.steered.reshape(-1, 1, 1, 1, 1), steering, 0.0)

    def attend(self, index: int, hidden: Tensor, state: WanState) -> Tensor:
        """Self-attention and cross-attention of block `index`, B N D → B N D: the block without its FFN."""
        block = self.transformer.blocks[index]
        hidden = self._own(hidden)
        with self._precision(hidden.device):
            shift, scale, gate = _modulation(block, state)[:3]
            normed = (block.norm1(hidden.float()) * (1 + scale) + shift).type_as(hidden)
            attended = block.attn1(normed, None, None, state.rotary)
            hidden = (hidden.float() + attended * gate).type_as(hidden)
            normed = block.norm2(hidden.float()).type_as(hidden)
            if state.keys:
                return hidden + cross_attention(block.attn2, normed, state.keys[index])
            return hidden + block.attn2(normed, state.context, None, None)

    def feed(self, index: int, hidden: Tensor, state: WanState) -> Tensor:
        """The FFN of block `index` beside the identity, B N D → B N D."""
        block = self.transformer.blocks[index]
        hidden = self._own(hidden)
        with self._precision(hidden.device):
            shift, scale, gate = _modulation(block, state)[3:]
            normed = (block.norm3(hidden.float()) * (1 + scale) + shift).type_as(hidden)
            return (hidden.float() + block.ffn(normed).float() * gate).type_as(hidden)

    def block(self, index: int, hidden: Tensor, state: WanState) -> Tensor:
        """`attend`, then `feed`, as one call of the block: sharding gathers a block's weights when it is called."""
        if state.keys:
            return self.feed(index, self.attend(index, hidden, state), state)
        with self._precision(hidden.device):
            return self.transformer.blocks[index](self._own(hidden), state.context, state.modulation, state.rotary)

    def end(self, hidden: Tensor, state: WanState) -> Tensor:
        """Tokens after the last block → velocity, B c t h w."""
        net = self.transformer
        hidden = self._own(hidden)
        with self._precision(hidden.device):
            shift, scale = (net.scale_shift_table + state.time.unsqueeze(1)).chunk(2, 1)
            patches = net.proj_out((net.norm_out(hidden.float()) * (1 + scale) + shift).type_as(hidden))
        cells = patches.unflatten(2, (*PATCH, self.spec.latent_channels)).unflatten(1, state.grid)
        return cells.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)

    def forward(self, noisy: Tensor, timestep: Tensor, conditions: WanConditions) -> Tensor:
        """The velocity (noise - latents) of noisy latents, B c t h w. Arguments and errors as in `begin`."""
        state = self.begin(noisy, timestep, conditions)
        hidden = state.hidden
        for index in range(self.spec.layers):
            hidden = self.block(index, hidden, state)
        return self.end(hidden, state)

    def cast(self, dtype: torch.dtype) -> "WanBackbone":
        """This backbone with its weights in `dtype`, but for what diffusers keeps in float32. For frozen use."""
        for name, parameter in self.named_parameters():
            parameter.data = parameter.data.to(kept_dtype(name, dtype))
        return self

    def init_weights(self, seed: int) -> None:
        """Draw all weights anew, for training from scratch: equal seeds give equal weights. See `backbone_init`."""
        initialise(self, seed)

    def digest(self) -> str:
        """Hex SHA-256 over names, shapes and bytes of all weights in bf16 (but for what stays in fp32): which backbone a branch
        was trained on, in whatever precision it is kept. Wherever the weights lie, they are read once.
        """
        result = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            result.update(f"{name} {tuple(tensor.shape)}\n".encode())
            tensor = tensor.to(kept_dtype(name, torch.bfloat16))
            result.update(memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
        return result.hexdigest()

    def _own(self, hidden: Tensor) -> Tensor:
        return hidden if self.dtype == torch.float32 else hidden.to(self.dtype)

    def _precision(self, device: torch.device) -> AbstractContextManager[Any]:
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(device.type, enabled=False)


def kept_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    """The number type in which a backbone of `dtype` keeps its tensor `name`."""
    return torch.float32 if FP32_PARTS.intersection(name.split(".")) else dtype


def _modulation(block: Any, state: WanState) -> tuple[Tensor, ...]:
    """Shift, scale and gate of a block's attention, then of its FFN, each B 1 D float32."""
    return (block.scale_shift_table + state.modulation).chunk(6, 1)


def _check(spec: BackboneSpec, noisy: Tensor, timestep: Tensor, conditions: WanConditions) -> None:
    if noisy.ndim != 5 or noisy.shape[1] != spec.latent_channels or any(size % 2 for size in noisy.shape[3:]):
        raise DataError(
            f"noisy latents are {_size(noisy)}; they must be B {spec.latent_channels} t h w with even h and w: height and "
            "width of a clip are multiples of 16 (keys: data.height, data.width)."
        )
    batch = len(noisy)
    extra = spec.in_channels - spec.latent_channels
    expected = {
        "timestep": (timestep, (batch,)),
        "text": (conditions.text, (batch, spec.text_tokens, spec.text_dim)),
        "image": (conditions.image, (batch, extra, *noisy.shape[2:])),
    }
    if spec.image_dim is not None:
        expected["clip"] = (conditions.clip, (batch, spec.image_tokens, spec.image_dim))  # type: ignore[assignment]
    elif conditions.clip is not None:
        raise DataError("clip tokens were given, but a transformer of this size takes none.")
    if conditions.camera is not None:
        if not spec.camera:
            raise DataError("camera rays were given, but this transformer has no camera adapter.")
        sizes = (TIME_STEP * (noisy.shape[2] - 1) + 1, *(SPACE_STEP * size for size in noisy.shape[3:]))
        expected["camera"] = (conditions.camera, (batch, 6, *sizes))
    if conditions.steered is not None:
        expected["steered"] = (conditions.steered, (batch,))
    for name, (tensor, shape) in expected.items():
        if tensor is None or tuple(tensor.shape) != shape:
            given = "absent" if tensor is None else _size(tensor)
            raise DataError(
                f"{name} is {given}; with noisy latents of {_size(noisy)} it must be {'×'.join(map(str, shape))}."
            )


def _size(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape))

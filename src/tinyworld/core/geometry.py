"""Cameras, depth maps and points: the one place of their conventions.

Axes are OpenCV's: x right, y down, z forward. Extrinsics are world→camera matrices [R|t], 3 4: X_camera = R X_world + t.
Intrinsics are (fx, fy, cx, cy) in pixels of the picture at hand, with pixel centres at whole numbers: the top left pixel's
centre is (0, 0), the middle of the picture is ((W-1)/2, (H-1)/2). Depth is z depth, along the optical axis.

Resizing by a factor s turns f into f s and c into (c + 0.5) s - 0.5. Shapes: T frames, H W pixels, and any number of
leading dimensions "...". Everything is written with sums and products of components, never with matmul: so float32 stays
float32 under autocast and where TF32 is switched on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

MIN_SCALE, MAX_SCALE = 1e-6, 1e6
MAX_STEP = 10
"""Frames between the two of a pair that is compared: far enough to move, near enough to see the same things."""
MIN_FOV, MAX_FOV = 1e-3, torch.pi - 1e-3
"""Fields of view outside are no lens's: what a head predicts before it has learned anything stays finite."""


@dataclass(frozen=True)
class Cameras:
    """The cameras of one clip, or of a batch of clips. Nothing is checked here: who reads files checks what they hold.

    extrinsics: ... T 3 4, world→camera. intrinsics: ... T 4 (fx fy cx cy). height, width: of the pictures, in pixels.
    """

    extrinsics: Tensor
    intrinsics: Tensor
    height: int
    width: int

    def select(self, indices: Sequence[int]) -> "Cameras":
        """The cameras of these frames, in this order."""
        at = torch.as_tensor(list(indices), dtype=torch.long, device=self.extrinsics.device)
        extrinsics, intrinsics = self.extrinsics.index_select(-3, at), self.intrinsics.index_select(-2, at)
        return replace(self, extrinsics=extrinsics, intrinsics=intrinsics)

    def cropped(self, top: int, left: int, height: int, width: int) -> "Cameras":
        """The cameras of the part of the pictures whose top left pixel is at row `top`, column `left`."""
        fx, fy, cx, cy = self.intrinsics.unbind(-1)
        intrinsics = torch.stack([fx, fy, cx - left, cy - top], -1)
        return Cameras(self.extrinsics, intrinsics, height, width)

    def resized(self, height: int, width: int) -> "Cameras":
        """The cameras of the pictures resized to height × width, each axis by its own factor."""
        down, across = height / self.height, width / self.width
        fx, fy, cx, cy = self.intrinsics.unbind(-1)
        centre_x, centre_y = (cx + 0.5) * across - 0.5, (cy + 0.5) * down - 0.5
        intrinsics = torch.stack([fx * across, fy * down, centre_x, centre_y], -1)
        return Cameras(self.extrinsics, intrinsics, height, width)

    def relative(self) -> "Cameras":
        """The same cameras in the world of the first one: its extrinsics are exactly the identity."""
        moved = compose(self.extrinsics, inverse(self.extrinsics[..., :1, :, :]))
        identity = torch.eye(3, 4, dtype=moved.dtype, device=moved.device).expand_as(moved[..., :1, :, :])
        return replace(self, extrinsics=torch.cat([identity, moved[..., 1:, :, :]], -3))

    def scaled(self, scale: Tensor | float) -> "Cameras":
        """The same cameras in a world whose unit is `scale` (a number, or one per clip: ...) old units long."""
        if isinstance(scale, Tensor):
            scale = scale[..., None, None, None]
        rotation, translation = self.extrinsics[..., :3], self.extrinsics[..., 3:]
        return replace(self, extrinsics=torch.cat([rotation, translation / scale], -1))

    def centres(self) -> Tensor:
        """... T 3: where the cameras are in the world."""
        return inverse(self.extrinsics)[..., 3]

    def to(self, *args: Any, **kwargs: Any) -> "Cameras":
        """As `Tensor.to`: another device, another dtype."""
        extrinsics, intrinsics = self.extrinsics.to(*args, **kwargs), self.intrinsics.to(*args, **kwargs)
        return replace(self, extrinsics=extrinsics, intrinsics=intrinsics)


def inverse(extrinsics: Tensor) -> Tensor:
    """World→camera into camera→world and back: ... 3 4 → ... 3 4, for rotations."""
    rotation = extrinsics[..., :3].transpose(-1, -2)
    return torch.cat([rotation, -_product(rotation, extrinsics[..., 3:])], -1)


def compose(first: Tensor, second: Tensor) -> Tensor:
    """The motion that applies `second` and then `first`: ... 3 4 and ... 3 4 → ... 3 4."""
    rotation = first[..., :3]
    moved = _product(rotation, second)
    return torch.cat([moved[..., :3], moved[..., 3:] + first[..., 3:]], -1)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Matrix product of ... 3 3 and ... 3 n."""
    return (left[..., :, :, None] * right[..., None, :, :]).sum(-2)


def pixel_rays(intrinsics: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """x (... 1 W) and y (... H 1) of the rays through the pixel centres, in camera coordinates where z is 1."""
    fx, fy, cx, cy = (value[..., None, None] for value in intrinsics.unbind(-1))
    columns = torch.arange(width, dtype=intrinsics.dtype, device=intrinsics.device)
    rows = torch.arange(height, dtype=intrinsics.dtype, device=intrinsics.device)[:, None]
    return (columns - cx) / fx, (rows - cy) / fy


def unproject(depth: Tensor, intrinsics: Tensor) -> Tensor:
    """Depth ... H W of cameras ... 4 → points ... H W 3 in camera coordinates; depth 0 becomes the camera's centre."""
    x, y = pixel_rays(intrinsics, depth.shape[-2], depth.shape[-1])
    return torch.stack(torch.broadcast_tensors(x * depth, y * depth, depth), -1)


def to_camera(points: Tensor, extrinsics: Tensor) -> Tensor:
    """World points ... H W 3 into the coordinates of cameras ... 3 4; any dimensions may stand for H W, or none."""
    matrix = _spread(extrinsics, points.dim() - 1, 2)
    return _rotated(points, matrix[..., :3]) + matrix[..., 3]


def to_world(points: Tensor, extrinsics: Tensor) -> Tensor:
    """Points ... H W 3 in the coordinates of cameras ... 3 4 into the world; any dimensions may stand for H W, or none."""
    matrix = _spread(extrinsics, points.dim() - 1, 2)
    return _rotated(points - matrix[..., 3], matrix[..., :3].transpose(-1, -2))


def _rotated(points: Tensor, rotation: Tensor) -> Tensor:
    x, y, z = points.unbind(-1)
    return torch.stack([row[..., 0] * x + row[..., 1] * y + row[..., 2] * z for row in rotation.unbind(-2)], -1)


def _spread(values: Tensor, leading: int, own: int) -> Tensor:
    """Values with `own` last dimensions, with ones before these so that `leading` dimensions stand before them."""
    missing = leading - (values.dim() - own)
    if missing < 0:
        raise ValueError(f"cameras {tuple(values.shape)} have more leading dimensions than points with {leading}")
    split = values.dim() - own
    return values.reshape(*values.shape[:split], *(1,) * missing, *values.shape[split:])


def project(points: Tensor, intrinsics: Tensor) -> Tensor:
    """Camera points ... 3 of cameras ... 4 (dimensions between may follow, as in `to_camera`) → ... 3: (u, v, z).

    Points that are not in front of the camera (z ≤ 0, or NaN) have u = v = -inf, outside every picture.
    """
    fx, fy, cx, cy = _spread(intrinsics, points.dim() - 1, 1).unbind(-1)
    x, y, z = points.unbind(-1)
    front = z > 0
    divisor = torch.where(front, z, 1.0)  # so that no NaN comes back in gradients
    u, v = (torch.where(front, value, -torch.inf) for value in (fx * x / divisor + cx, fy * y / divisor + cy))
    return torch.stack(torch.broadcast_tensors(u, v, z), -1)


def choose_pairs(frames: int, count: int) -> tuple[tuple[int, int], ...]:
    """At most `count` pairs (i, i + step), evenly spread over a clip; step is MAX_STEP, or half of a shorter clip."""
    step = max(1, min(MAX_STEP, (frames - 1) // 2))
    starts = frames - step
    if starts < 1:
        return ()
    count = min(count, starts)
    chosen = [round(k * (starts - 1) / max(1, count - 1)) for k in range(count)]
    return tuple((first, first + step) for first in chosen)


def sample_pixels(picture: Tensor, seen: Tensor) -> Tensor:
    """Bilinear values C n of a floating point picture C H W at places n 2 or more (u, v, …) inside it, as `project` gives."""
    height, width = picture.shape[-2:]
    last = seen.new_tensor([max(width - 1, 1), max(height - 1, 1)])
    grid = (seen[None, None, :, :2] / last * 2 - 1).to(picture)
    sampled = functional.grid_sample(picture[None], grid, mode="bilinear", padding_mode="border", align_corners=True)
    return sampled[0, :, 0]


def world_points(depth: Tensor, cameras: Cameras) -> Tensor:
    """Depth ... T H W → points ... T H W 3 in the world of the cameras."""
    return to_world(unproject(depth, cameras.intrinsics), cameras.extrinsics)


def point_scale(points: Tensor, mask: Tensor) -> Tensor:
    """Mean distance from the origin of the valid points of a clip: ... T H W 3, mask ... T H W → ...

    Between 1e-6 and 1e6; 1 where no point is valid. What stands at other points (NaN, too) has no influence.
    """
    where = (-3, -2, -1)
    distances = torch.linalg.vector_norm(torch.where(mask[..., None], points, 0.0), dim=-1)
    count = mask.sum(where)
    mean = (distances.sum(where) / count.clamp_min(1)).clamp(MIN_SCALE, MAX_SCALE)
    return torch.where(count > 0, mean, torch.ones_like(mean))


def plucker(cameras: Cameras) -> Tensor:
    """Plücker coordinates of every pixel's ray, ... 6 T H W: channels (o × d, d).

    d: unit direction of the pixel centre's ray, o: the camera's centre, both in the cameras' world. The order of the channels
    is that of Wan2.1-Fun's camera control. (The FantasyWorld release scales intrinsics in pixels by the picture's size once
    more, which makes all rays of a picture nearly the same; these here are the true ones.)
    """
    x, y = pixel_rays(cameras.intrinsics, cameras.height, cameras.width)
    x, y = torch.broadcast_tensors(x, y)
    outward = cameras.extrinsics[..., None, None, :, :3].transpose(-1, -2)
    length = (x * x + y * y + 1).sqrt()
    dx, dy, dz = ((row[..., 0] * x + row[..., 1] * y + row[..., 2]) / length for row in outward.unbind(-2))
    ox, oy, oz = (value[..., None, None] for value in cameras.centres().unbind(-1))
    return torch.stack([oy * dz - oz * dy, oz * dx - ox * dz, ox * dy - oy * dx, dx, dy, dz], -4)


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """Rotations ... 3 3 → unit quaternions ... 4, scalar last (x y z w), w ≥ 0.

    The entries of R give every product of two components; the row of the largest square is the quaternion up to its length,
    so that nothing small is divided by, whatever the angle.
    """
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in matrix.unbind(-2))
    squares = torch.stack([1 + a - e - i, 1 + e - a - i, 1 + i - a - e, 1 + a + e + i], -1)
    xy, xz, yz, xw, yw, zw = d + b, g + c, h + f, h - f, c - g, d - b
    sx, sy, sz, sw = squares.unbind(-1)
    rows = [(sx, xy, xz, xw), (xy, sy, yz, yw), (xz, yz, sz, zw), (xw, yw, zw, sw)]
    products = torch.stack([torch.stack(row, -1) for row in rows], -2)
    largest = squares.argmax(-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    quaternion = functional.normalize(products.gather(-2, largest).squeeze(-2), dim=-1)
    return torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """Quaternions ... 4 (x y z w) of any length but zero → rotations ... 3 3. Zero itself becomes the identity."""
    largest = quaternion.detach().abs().amax(-1, keepdim=True)
    tiny = torch.finfo(quaternion.dtype).tiny
    scaled = quaternion / largest.clamp_min(tiny)  # squares of short quaternions would be 0 in float32
    x, y, z, w = scaled.unbind(-1)
    s = 2 / (scaled * scaled).sum(-1).clamp_min(tiny)
    rows = [
        (1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)),
        (s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)),
        (s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)),
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def encode_pose(cameras: Cameras) -> Tensor:
    """... T 9: translation of the extrinsics (3), quaternion x y z w with w ≥ 0 (4), fov_h, fov_w in radians (absT_quaR_FoV).

    Fields of view are those of the whole picture, from edge to edge; the principal point is not part of it.
    Source: VGGT and the FantasyWorld release.
    """
    fx, fy, _, _ = cameras.intrinsics.unbind(-1)
    fov = torch.stack([2 * torch.atan(cameras.height / 2 / fy), 2 * torch.atan(cameras.width / 2 / fx)], -1)
    return torch.cat([cameras.extrinsics[..., 3], matrix_to_quaternion(cameras.extrinsics[..., :3]), fov], -1)


def decode_pose(pose: Tensor, height: int, width: int) -> Cameras:
    """Cameras of `encode_pose`'s ... T 9, their principal points in the middle of height × width pixels.

    Quaternions need not have length 1; fields of view are kept 0.001 away from 0 and π.
    """
    extrinsics = torch.cat([quaternion_to_matrix(pose[..., 3:7]), pose[..., :3, None]], -1)
    fov_h, fov_w = pose[..., 7:9].clamp(MIN_FOV, MAX_FOV).unbind(-1)
    fx, fy = width / 2 / torch.tan(fov_w / 2), height / 2 / torch.tan(fov_h / 2)
    middle = (torch.full_like(fx, (width - 1) / 2), torch.full_like(fy, (height - 1) / 2))
    return Cameras(extrinsics, torch.stack([fx, fy, *middle], -1), height, width)


def rotation_angle(first: Tensor, second: Tensor) -> Tensor:
    """Angle between rotations ... 3 3 and ... 3 3 → ..., in radians from 0 to π, exact near both ends."""
    difference = _product(first.transpose(-1, -2), second)
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in difference.unbind(-2))
    sine = torch.linalg.vector_norm(torch.stack([h - f, c - g, d - b], -1), dim=-1)
    return torch.atan2(sine, a + e + i - 1)


def resize_depth(depth: Tensor, height: int, width: int) -> Tensor:
    """Depth or mask ... H W → ... height width, by the nearest pixel: values between two surfaces belong to neither."""
    return resize_nearest(depth, height, width, dim=-2)


def resize_nearest(values: Tensor, height: int, width: int, dim: int) -> Tensor:
    """Values of any dtype whose rows lie along `dim` and columns along the next: -2 for ... H W, -3 for points ... H W 3.

    Each new pixel takes the old one that its centre lies in, which is what `cameras.resized` goes with.
    """
    dim %= values.dim()
    for axis, size in ((dim, height), (dim + 1, width)):
        old = values.shape[axis]
        at = (2 * torch.arange(size, device=values.device) + 1) * old // (2 * size)
        values = values.index_select(axis, at)
    return values

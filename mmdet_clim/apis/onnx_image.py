# Licensed under the Apache License, Version 2.0.
"""What a test pipeline makes of an image, as a part of a graph."""

import torch
import torch.nn.functional as F
from mmcv.transforms import Pad, Resize
from mmdet.datasets.transforms import FixScaleResize
from mmdet.models.data_preprocessors import DetDataPreprocessor
from torch import Tensor, nn

# Pillow's weights of pixels are whole numbers of this part of one.
PILLOW_UNIT = 1 << 22


class OnnxImage(nn.Module):
    """Resize, pad and normalise an image.

    As mmdet's ``Resize(keep_ratio=True)``, a ``Pad`` where the pipeline has
    one, and its data preprocessor do.

    Args:
        preprocessor (DetDataPreprocessor): Of the detector.
        scale (tuple[int, int]): Longest and shortest side in pixels that an
            image is resized into.
        padding (Pad, optional): That of the test pipeline.

    Raises:
        TypeError: If the padding repeats pixels of the image.
    """

    def __init__(self,
                 preprocessor: DetDataPreprocessor,
                 scale: tuple[int, int],
                 padding: Pad | None = None) -> None:
        super().__init__()
        if padding is not None and padding.padding_mode != 'constant':
            raise TypeError("export: expected padding_mode='constant' of the "
                            f'Pad, got {padding.padding_mode!r}')
        self.preprocessor = preprocessor
        self.longest, self.shortest = max(scale), min(scale)
        self.padding = padding
        self.rounds_down = self.pillow = False

    def resample_as(self, resize: Resize) -> None:
        """Resize as a step of a pipeline does, not as mmdet's default.

        Args:
            resize (Resize): Or ``FixScaleResize``, which rounds sides down.

        Raises:
            TypeError: If it interpolates in another way.
        """
        if resize.interpolation != 'bilinear' or resize.backend not in (
                'cv2', 'pillow'):
            raise TypeError(
                "export: expected interpolation='bilinear' and backend='cv2' "
                f"or 'pillow' of the Resize, got {resize.interpolation!r} and "
                f'{resize.backend!r}')
        self.rounds_down = isinstance(resize, FixScaleResize)
        self.pillow = resize.backend == 'pillow'

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Prepare one image.

        Args:
            image (Tensor): uint8, shape (H, W, 3), BGR.

        Returns:
            tuple[Tensor, Tensor, Tensor]: Images (1, 3, H', W'); (height,
            width) that boxes are clipped to, which is the image with the
            padding of the pipeline; and the factors (4,) from the image to
            it, as of xyxy.
        """
        # In double precision, and of one dimension: the exporter makes float32
        # of scalars, and 799.9999 pixels are not 800.
        exact = torch._shape_as_tensor(image)[:2].double()
        factor = torch.minimum(
            exact.new_tensor([self.longest]) / exact.amax(0, keepdim=True),
            exact.new_tensor([self.shortest]) / exact.amin(0, keepdim=True))
        nearest = 0. if self.rounds_down else .5
        size = (exact * factor + nearest).floor().float()
        full = exact.float()
        factors = (size / full).flip(0).repeat(2)
        resized = (_resize_as_pillow if self.pillow else _resize)(image, size)
        pixels = resized.permute(2, 0, 1)[None].float()
        if self.padding is not None:
            value = self.padding.pad_val.get('img', 0)
            value = pixels.new_tensor(value).reshape(-1, 1, 1)
            padded = _padded(size, self.padding)
            # Zeros at the border, whatever the value.
            pixels = _pad(pixels - value, size, padded, 0.) + value
            size = padded
        preprocessor = self.preprocessor
        if preprocessor._channel_conversion:
            pixels = pixels.flip(1)
        if preprocessor._enable_normalize:
            pixels = (pixels - preprocessor.mean) / preprocessor.std
        divisor = preprocessor.pad_size_divisor
        padded = _multiple(size, divisor)
        return _pad(pixels, size, padded, preprocessor.pad_value), size, \
            factors


def _padded(size: Tensor, padding: Pad) -> Tensor:
    """Height and width with the padding of the pipeline."""
    if padding.pad_to_square:
        size = size.max().repeat(2)
    if padding.size_divisor is not None:
        return _multiple(size, padding.size_divisor)
    if padding.size is not None:
        return torch.maximum(size, size.new_tensor(padding.size[::-1]))
    return size


def _multiple(size: Tensor, divisor: int) -> Tensor:
    """The next multiples of a number."""
    return ((size + divisor - 1) / divisor).floor() * divisor


def _pad(pixels: Tensor, size: Tensor, padded: Tensor, value: float) -> Tensor:
    """Pad on the right and at the bottom."""
    bottom, right = (padded - size)[0].long(), (padded - size)[1].long()
    return F.pad(pixels, (0, right, 0, bottom), value=value)


def _resize(image: Tensor, size: Tensor) -> Tensor:
    """OpenCV's bilinear resize of 8-bit pixels, with its whole numbers.

    A score that is compared to a thousandth sees the difference of one level
    that rounding makes.

    Args:
        image (Tensor): uint8, shape (H, W, 3).
        size (Tensor): Height and width of the result.

    Returns:
        Tensor: int64, shape (height, width, 3).
    """
    shape = torch._shape_as_tensor(image)
    low, high, low_share, high_share = _taps(shape[1], size[1])
    pixels = image.long()
    pixels = pixels[:, low] * low_share[:, None] \
        + pixels[:, high] * high_share[:, None]
    pixels = _shift(pixels, 4)
    low, high, low_share, high_share = _taps(shape[0], size[0])
    low_share, high_share = low_share[:, None, None], high_share[:, None, None]
    return _shift(
        _shift(pixels[low] * low_share, 16) +
        _shift(pixels[high] * high_share, 16) + 2, 2)


def _resize_as_pillow(image: Tensor, size: Tensor) -> Tensor:
    """Pillow's bilinear resize, whose filter grows where an image shrinks.

    Args:
        image (Tensor): uint8, shape (H, W, 3).
        size (Tensor): Height and width of the result.

    Returns:
        Tensor: Whole numbers as float64, shape (height, width, 3).
    """
    shape = torch._shape_as_tensor(image)
    # Whole numbers of 30 bits, exactly.
    channels = image.permute(2, 0, 1).double()
    channels = _whole(channels @ _triangles(shape[1], size[1], 0))
    channels = _whole(_triangles(shape[0], size[0], 1) @ channels)
    return channels.permute(1, 2, 0)


def _whole(sums: Tensor) -> Tensor:
    """Of sums with Pillow's weights, the nearest whole numbers."""
    return (sums * (1 / PILLOW_UNIT) + .5).floor()


def _triangles(old: Tensor, new: Tensor, axis: int) -> Tensor:
    """Weights of the pixels of an axis, in Pillow's units.

    Args:
        old (Tensor): Pixels along it.
        new (Tensor): Pixels that it gets.
        axis (int): Of the weights that the old ones go along: (old, new) or
            (new, old). Not by a transposition, which onnxruntime joins with a
            product; versions before 1.24 have none of float64.
    """
    # No scalar, of which the exporter makes float32.
    ratio = old[None].double() / new[None].double()
    centre = (torch.arange(new.long()) + .5).double() * ratio
    apart = (torch.arange(old) + .5).double().unsqueeze(1 - axis) \
        - centre.unsqueeze(axis)
    radius = torch.maximum(ratio, ratio.new_tensor(1))
    weights = (1 - apart.abs() / radius).relu()
    weights = weights / weights.sum(axis, keepdim=True)
    return (weights * PILLOW_UNIT + .5).floor()


def _taps(old: Tensor, new: Tensor) -> tuple[Tensor, ...]:
    """Two pixels of an axis for each new one, and their shares of 2048."""
    ratio = old.double() / new.double()
    at = ((torch.arange(new.long()) + .5).double() * ratio - .5).float()
    first = at.floor()
    share = at - first
    last = (old - 1).float()
    inside = (first >= 0) & (first < last)
    share = torch.where(inside, share, torch.zeros_like(share))
    first = torch.minimum(first.clamp(min=0), last)
    second = torch.minimum(first + 1, last)
    return (first.long(), second.long(), ((1 - share) * 2048).round().long(),
            (share * 2048).round().long())


def _shift(value: Tensor, bits: int) -> Tensor:
    """Of positive whole numbers."""
    return torch.div(value, 2**bits, rounding_mode='floor')

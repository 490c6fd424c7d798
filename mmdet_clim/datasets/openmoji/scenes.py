# Licensed under the Apache License, Version 2.0.
"""Drawing of one scene: a background and the objects on it."""
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .classes import Glyph, SceneClass
from .glyphs import glyph_at

#: An object shows at least this share of itself, or it is not drawn.
MIN_VISIBLE = 0.25


@dataclass(frozen=True)
class SceneStyle:
    """How full and how large a kind of scene is drawn.

    Args:
        objects (tuple[int, int]): Fewest and most objects.
        length (tuple[float, float]): Long side of an object as a share of
            the image's long side, drawn log-uniformly.
        repeat (float): Chance that an object is of the class before it.
        min_visible (float): The share that an object keeps visible when
            others cover it or the border cuts it.
    """

    objects: tuple[int, int]
    length: tuple[float, float]
    repeat: float
    min_visible: float


#: Scenes with boxes: several objects, large and small, some covered.
BOXED = SceneStyle((2, 7), (0.16, 0.5), 0.2, 0.4)
#: Captioned scenes, as images from the web: one or two large objects.
CAPTIONED = SceneStyle((1, 2), (0.35, 0.8), 0.15, 0.6)


@dataclass
class SceneObject:
    """One drawn object.

    Args:
        glyph (Glyph): Its drawing.
        mask (np.ndarray): ``(H, W)`` bool, the visible pixels.
        full_area (int): Pixels of the whole drawing, also those that are
            covered or outside the image.
        colour (str): Name of its main colour; empty if it has none.
    """

    cls: SceneClass
    glyph: Glyph
    mask: np.ndarray
    full_area: int
    colour: str

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Tight box of the visible mask, xywh in pixels."""
        x, y, width, height = cv2.boundingRect(self.mask.view(np.uint8))
        return x, y, width, height

    @property
    def area(self) -> int:
        """Visible pixels."""
        return int(np.count_nonzero(self.mask))


@dataclass
class Scene:
    """A drawn image.

    Args:
        image (np.ndarray): ``(H, W, 3)`` uint8 BGR.
        objects (list[SceneObject]): From back to front.
        background (str): What a caption calls the background.
    """

    image: np.ndarray
    objects: list[SceneObject]
    background: str


# Background colours: name, hue range in degrees, saturation, value. 'Orange'
# is left out of every list of colours: it is the name of a class.
_BACKGROUND_COLOURS = (
    ('red', (350, 368), (0.35, 0.8), (0.5, 0.95)),
    ('yellow', (46, 60), (0.35, 0.8), (0.75, 1.0)),
    ('green', (90, 150), (0.25, 0.75), (0.4, 0.9)),
    ('blue', (200, 235), (0.25, 0.8), (0.45, 0.95)),
    ('purple', (265, 290), (0.2, 0.7), (0.4, 0.9)),
    ('pink', (320, 340), (0.15, 0.5), (0.8, 1.0)),
    ('brown', (18, 32), (0.4, 0.7), (0.35, 0.6)),
    ('gray', (0, 360), (0.0, 0.06), (0.35, 0.75)),
    ('white', (0, 360), (0.0, 0.05), (0.9, 1.0)),
    ('dark', (0, 360), (0.1, 0.5), (0.1, 0.25)),
)


def _random_colour(rng: np.random.Generator) -> tuple[str, np.ndarray]:
    """A named colour as BGR float32 in [0, 255]."""
    name, hue, saturation, value = _BACKGROUND_COLOURS[rng.integers(
        len(_BACKGROUND_COLOURS))]
    hsv = np.float32([[[
        rng.uniform(*hue) % 360,
        rng.uniform(*saturation),
        rng.uniform(*value)
    ]]])
    return name, cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0] * 255


def _smooth_noise(rng: np.random.Generator, height: int, width: int,
                  cells: int) -> np.ndarray:
    """``(height, width, 1)`` float32 noise in [0, 1] with soft blobs."""
    coarse = rng.random((cells, cells), dtype=np.float32)
    noise = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return noise.clip(0, 1)[..., None]


def draw_background(rng: np.random.Generator, height: int,
                    width: int) -> tuple[np.ndarray, str]:
    """Draw a plain, graded, cloudy, striped or chequered background.

    Args:
        height (int): In pixels.
        width (int): In pixels.

    Returns:
        tuple[np.ndarray, str]: ``(height, width, 3)`` float32 BGR in
        [0, 255], and what a caption calls it.
    """
    name, first = _random_colour(rng)
    _, second = _random_colour(rng)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    along = xs * math.cos(angle) + ys * math.sin(angle)
    kind = ('plain', 'gradient', 'cloudy', 'striped',
            'checkered')[rng.choice(5, p=(0.2, 0.25, 0.3, 0.13, 0.12))]
    if kind == 'plain':
        blend: np.ndarray = np.zeros((height, width, 1), np.float32)
    elif kind == 'gradient':
        blend = ((along - along.min()) / np.ptp(along))[..., None]
        blend = blend * rng.uniform(0.4, 1)
    elif kind == 'cloudy':
        blend = _smooth_noise(rng, height, width, int(rng.integers(3, 12)))
        blend = blend * rng.uniform(0.4, 1)
    else:
        period = rng.uniform(0.06, 0.25) * max(height, width)
        wave = np.sin(along * (2 * math.pi / period))
        if kind == 'checkered':
            across = ys * math.cos(angle) - xs * math.sin(angle)
            wave = wave * np.sin(across * (2 * math.pi / period))
        blend = (wave > 0).astype(np.float32)[..., None]
        blend = blend * rng.uniform(0.3, 0.8)
    image = first * (1 - blend) + second * blend
    grain = rng.uniform(0, 12)
    image += rng.standard_normal(
        (height, width, 1), dtype=np.float32) * np.float32(grain)
    shade = _smooth_noise(rng, height, width, 4) - 0.5
    image += shade * np.float32(rng.uniform(0, 60))
    return image, f'{name} background' if kind == 'plain' else (
        f'{name} {kind} background')


def _shift_colours(rng: np.random.Generator, bgra: np.ndarray) -> np.ndarray:
    """Jitter hue by up to 24 degrees, and saturation and value."""
    hsv = cv2.cvtColor(bgra[..., :3], cv2.COLOR_BGR2HSV).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + rng.uniform(-12, 12)) % 180
    hsv[..., 1] = (hsv[..., 1] * rng.uniform(0.75, 1.25)).clip(0, 255)
    hsv[..., 2] = (hsv[..., 2] * rng.uniform(0.75, 1.1)).clip(0, 255)
    shifted = bgra.copy()
    shifted[..., :3] = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2BGR)
    return shifted


# OpenCV's hue of bytes is in half degrees: name, first, one past the last.
_OBJECT_HUES = (('red', 0, 8), ('amber', 8, 21), ('yellow', 21, 34),
                ('green', 34, 85), ('blue', 85, 128), ('purple', 128, 155),
                ('pink', 155, 170), ('red', 170, 180))


def name_colour(bgra: np.ndarray) -> str:
    """Name the main colour of a drawing.

    Args:
        bgra (np.ndarray): ``(h, w, 4)`` uint8.

    Returns:
        str: The colour of more than half of the opaque pixels beside the
        black outline, or an empty string if no colour has so many.
    """
    opaque = bgra[bgra[..., 3] > 127][:, :3]
    hsv = cv2.cvtColor(opaque[None], cv2.COLOR_BGR2HSV)[0]
    hue, saturation, value = hsv.T
    body = value > 50
    if np.count_nonzero(body) < 0.35 * len(body):
        return 'black'
    hue, saturation, value = hue[body], saturation[body], value[body]
    coloured = saturation > 60
    shares = {
        'white': np.count_nonzero(~coloured & (value > 200)),
        'gray': np.count_nonzero(~coloured & (value <= 200))
    }
    dark = value < 170
    for name, first, last in _OBJECT_HUES:
        inside = coloured & (hue >= first) & (hue < last)
        if name == 'amber':
            shares['brown'] = np.count_nonzero(inside & dark)
            inside &= ~dark
        shares[name] = shares.get(name, 0) + np.count_nonzero(inside)
    name = max(shares, key=lambda colour: shares[colour])
    return name if shares[name] > 0.5 * len(hue) else ''


@dataclass
class _Layer:
    """A transformed drawing, waiting for its place."""

    bgra: np.ndarray  # (h, w, 4) float32, premultiplied, alpha in [0, 1]
    area: int
    colour: str


def _transform(rng: np.random.Generator, glyph: Glyph,
               length: float) -> _Layer:
    """Jitter, flip, rotate and scale a drawing.

    Args:
        length (float): Long side before the rotation, in pixels.
    """
    drawing = _shift_colours(rng, glyph_at(glyph, length))
    if rng.random() < 0.5:
        drawing = drawing[:, ::-1]
    colour = name_colour(drawing)
    height, width = drawing.shape[:2]
    premultiplied: np.ndarray = drawing.astype(np.float32)
    premultiplied[..., 3] /= 255
    premultiplied[..., :3] *= premultiplied[..., 3:]
    scale = length / max(height, width)
    angle = rng.normal(0, 12)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)
    cos, sin = abs(turn[0, 0]), abs(turn[0, 1])
    out_w = math.ceil(width * cos + height * sin) + 2
    out_h = math.ceil(width * sin + height * cos) + 2
    turn[:, 2] += (out_w / 2 - width / 2, out_h / 2 - height / 2)
    bgra = cv2.warpAffine(
        premultiplied, turn, (out_w, out_h), flags=cv2.INTER_LINEAR)
    return _Layer(bgra, int(np.count_nonzero(bgra[..., 3] > 0.5)), colour)


def _place(
        rng: np.random.Generator, layer: _Layer, image: np.ndarray,
        placed: list[SceneObject],
        min_visible: float) -> tuple[np.ndarray, tuple[slice, slice]] | None:
    """Find a place where the layer and all it covers stay visible.

    Returns:
        tuple | None: The layer's part inside the image, and where it goes;
        None if no place was found.
    """
    height, width = image.shape[:2]
    h, w = layer.bgra.shape[:2]
    for _ in range(12):
        # up to a fifth of its box may lie beyond the border
        x = round(rng.uniform(-0.2 * w, width - 0.8 * w))
        y = round(rng.uniform(-0.2 * h, height - 0.8 * h))
        rows = slice(max(y, 0), min(y + h, height))
        cols = slice(max(x, 0), min(x + w, width))
        part = layer.bgra[rows.start - y:rows.stop - y,
                          cols.start - x:cols.stop - x]
        solid = part[..., 3] > 0.5
        if np.count_nonzero(solid) < max(min_visible, 0.6) * layer.area:
            continue
        if all(other.area - np.count_nonzero(other.mask[rows, cols]
                                             & solid) >= min_visible *
               other.full_area for other in placed):
            return part, (rows, cols)
    return None


def draw_scene(rng: np.random.Generator, classes: Sequence[SceneClass],
               weights: np.ndarray, style: SceneStyle, size: int) -> Scene:
    """Draw one scene.

    Args:
        classes (Sequence[SceneClass]): Classes to draw from, each with a
            glyph.
        weights (np.ndarray): ``(C,)`` float, the chance of each class; the
            sum is one.
        style (SceneStyle): How full and how large.
        size (int): Long side of the image in pixels.

    Returns:
        Scene: With at least one object; each shows ``MIN_VISIBLE`` of
        itself or more, and its mask holds only its visible pixels.
    """
    short = round(size * rng.uniform(0.7, 1))
    height, width = (size, short) if rng.random() < 0.4 else (short, size)
    image, background = draw_background(rng, height, width)
    low, high = style.objects
    count = int(rng.integers(low, high + 1))
    objects: list[SceneObject] = []
    index = -1
    while len(objects) < 1 or count > 0:
        count -= 1
        if index < 0 or rng.random() >= style.repeat:
            index = int(rng.choice(len(classes), p=weights))
        cls = classes[index]
        glyph = cls.glyphs[rng.integers(len(cls.glyphs))]
        length = size * math.exp(
            rng.uniform(math.log(style.length[0]), math.log(style.length[1])))
        layer = _transform(rng, glyph, max(min(length, 1.1 * short), 8))
        found = _place(rng, layer, image, objects,
                       max(style.min_visible, MIN_VISIBLE))
        if found is None:
            continue
        part, (rows, cols) = found
        alpha = part[..., 3:]
        image[rows, cols] = image[rows, cols] * (1 - alpha) + part[..., :3]
        solid = alpha[..., 0] > 0.5
        for other in objects:
            other.mask[rows, cols] &= ~solid
        mask: np.ndarray = np.zeros((height, width), bool)
        mask[rows, cols] = solid
        objects.append(SceneObject(cls, glyph, mask, layer.area, layer.colour))
    return Scene(image.clip(0, 255).astype(np.uint8), objects, background)

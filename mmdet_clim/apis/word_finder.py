# Licensed under the Apache License, Version 2.0.
"""What a page or a service shows of one image: boxes, maps and a table."""
from pathlib import Path
from threading import Lock
from typing import List, NamedTuple, Optional, Tuple, Union

import numpy as np
import torch
from mmengine.structures import InstanceData

from mmdet_clim.datasets.class_names import clean_names, split_names
from mmdet_clim.datasets.images import decode_image, read_header
from mmdet_clim.visualization import draw_boxes, draw_responses
from mmdet_clim.visualization.canvas import enlarge

from .inferencer import CLIMInferencer
from .vocabulary import reads_texts

#: Of an image; a photo of a camera has 12 to 24 million.
MAX_PIXELS = 25_000_000
#: Of a vocabulary; each name gets a picture.
MAX_NAMES = 50
#: The longer side of a picture in pixels.
SIDE = 640


class Found(NamedTuple):
    """What was found in one image.

    Args:
        picture (np.ndarray): The image with boxes, (h, w, 3), uint8, RGB.
        responses (list[tuple[np.ndarray, str]]): A picture like it per name,
            and what to write below it.
        rows (list[list]): Per box, best first: name, score, and x1, y1, x2,
            y2 in pixels of the image.
        message (str): The result in a sentence.
    """

    picture: np.ndarray
    responses: List[Tuple[np.ndarray, str]]
    rows: List[list]
    message: str


class WordFinder:
    """Finds words in images, for one caller at a time.

    Args:
        find (CLIMInferencer): Of a detector that classifies by text, or of a
            grounding detector.
        max_pixels (int): The largest image.

    Raises:
        TypeError: If the detector is of neither kind.
    """

    def __init__(self,
                 find: CLIMInferencer,
                 max_pixels: int = MAX_PIXELS) -> None:
        if not (find.classifies_by_text() or reads_texts(find.model)):
            raise TypeError(f'find: {type(find.model).__name__} neither '
                            'classifies by text nor reads a text')
        self.find = find
        self.max_pixels = max_pixels
        self._lock = Lock()

    def __call__(self, path: Union[str, Path, None], words: str,
                 score_thr: float) -> Found:
        """Find words in an image.

        Args:
            path (str or Path): File of the image.
            words (str): Names, one per line or with commas between them.
            score_thr (float): Boxes that score less are left out.

        Raises:
            ValueError: If there is no image, it can not be read or is too
                large, or the names are no vocabulary. The message is for the
                user.
        """
        names = split_words(words)
        image = self._read(path)
        with self._lock:
            found = self.find(image, vocabulary=names)['predictions'][0]
            maps, why_none = self._responses(image)
        rgb = image[..., ::-1]
        boxes = [
            box
            for box in zip(found['names'], found['scores'], found['bboxes'])
            if box[1] >= score_thr
        ]
        rows = [[name, round(score, 3), *(round(x, 1) for x in box)]
                for name, score, box in boxes]
        sentences = [_summary(names, rows), why_none]
        return Found(
            _drawn(rgb, boxes), _laid_over(rgb, names, maps), rows,
            ' '.join(filter(None, sentences)))

    def _read(self, path: Union[str, Path, None]) -> np.ndarray:
        """The image (H, W, 3) in BGR."""
        if path is None:
            raise ValueError('image: expected one, got none')
        data = Path(path).read_bytes()
        header = read_header(data)
        if header.width * header.height > self.max_pixels:
            raise ValueError(
                f'image: {header.width} x {header.height} pixels, expected at '
                f'most {self.max_pixels / 1e6:g} million')
        return decode_image(data, max_pixels=self.max_pixels)[0]

    def _responses(
            self,
            image: np.ndarray) -> Tuple[Optional[torch.Tensor], Optional[str]]:
        """A map per name, or why there are none."""
        try:
            return self.find.responses(image), None
        except TypeError as error:
            return None, f'No response maps: {error}.'


def split_words(words: str) -> List[str]:
    """Names from what a user typed.

    Args:
        words (str): One per line or with commas between them; also as
            Grounding DINO separates them.

    Raises:
        ValueError: If there is none, one is given twice, or there are more
            than ``MAX_NAMES``.

    Example:
        >>> split_words('cat, traffic light')
        ['cat', 'traffic light']
    """
    names = clean_names(split_names(words))
    if len(names) > MAX_NAMES:
        raise ValueError(f'vocabulary: expected at most {MAX_NAMES} class '
                         f'names, got {len(names)}')
    return names


def _drawn(image: np.ndarray, boxes: list) -> np.ndarray:
    """Boxes (name, score, xyxy) on an RGB image."""
    names = sorted({name for name, _, _ in boxes})
    instances = InstanceData(
        bboxes=torch.tensor([box for _, _, box in boxes]).view(-1, 4),
        labels=torch.tensor([names.index(name) for name, _, _ in boxes],
                            dtype=torch.long),
        scores=torch.tensor([score for _, score, _ in boxes]))
    return draw_boxes(image, instances, names, score_thr=0, side=SIDE)


def _laid_over(image: np.ndarray, names: List[str],
               maps: Optional[torch.Tensor]) -> List[Tuple[np.ndarray, str]]:
    """Each map over an RGB image, on a scale of its own, with its caption."""
    if maps is None:
        return []
    # The size at which the boxes are drawn.
    small, _ = enlarge(image, SIDE)
    pictures = []
    for name, values in zip(names, maps):
        limits = values.min().item(), values.max().item()
        picture, = draw_responses(np.asarray(small), values[None], limits)
        pictures.append(
            (picture, f'{name}: cosine {limits[0]:.2f} to {limits[1]:.2f}'))
    return pictures


def _summary(names: List[str], rows: List[list]) -> str:
    """How many boxes, and of which names there is none."""
    seen = {row[0] for row in rows}
    missing = [name for name in names if name not in seen]
    count = '1 box' if len(rows) == 1 else f'{len(rows)} boxes'
    if not missing:
        return f'{count}.'
    return f'{count}; none of {", ".join(missing)}.'

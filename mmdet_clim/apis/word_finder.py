# Licensed under the Apache License, Version 2.0.
"""What a page or a service shows of images and videos."""
import re
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import (
    Any,
    NamedTuple,
)

import numpy as np
import torch
from mmengine.structures import InstanceData

from mmdet_clim.datasets.class_names import (
    clean_names,
    compared_name,
    split_names,
)
from mmdet_clim.datasets.images import decode_image, read_header
from mmdet_clim.visualization import draw_boxes, draw_responses
from mmdet_clim.visualization.canvas import enlarge

from .inferencer import CLIMInferencer, VideoFile, frames_of
from .vocabulary import reads_texts

#: Of an image; a photo of a camera has 12 to 24 million.
MAX_PIXELS = 25_000_000
#: Of a vocabulary; each name gets a picture.
MAX_NAMES = 50
#: Of a video: 40 seconds, which take a CPU minutes.
MAX_FRAMES = 1000
#: The longer side of a picture in pixels.
SIDE = 640
#: A word's own least score.
_OWN_SCORE = re.compile(r'\s*=\s*([^\s,;|]*)')


class Found(NamedTuple):
    """What was found in one image.

    Args:
        picture (np.ndarray): The image with boxes, (h, w, 3), uint8, RGB.
        responses (list[tuple[np.ndarray, str]]): A picture like it per name,
            and what to write below it.
        rows (list[list]): Per box, best first: name, score, and x1, y1, x2,
            y2 in pixels of the image.
        message (str): The result in a sentence.
        entry (dict): ``width`` and ``height`` of the image in pixels and
            ``boxes``, of each ``name``, ``score`` and ``bbox`` (xyxy).
    """

    picture: np.ndarray
    responses: list[tuple[np.ndarray, str]]
    rows: list[list]
    message: str
    entry: dict[str, Any]


class Compared(NamedTuple):
    """Two words in one image.

    Args:
        difference (np.ndarray, optional): The image, (h, w, 3), uint8, RGB,
            hot where the detector answers more to the first word and cold
            where it answers more to the second.
        picture (np.ndarray): The image with the boxes of both.
        message (str): The result in a sentence or two.
    """

    difference: np.ndarray | None
    picture: np.ndarray
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
                            'classifies by text nor takes a prompt')
        self.find = find
        self.max_pixels = max_pixels
        self._lock = Lock()

    def __call__(self,
                 path: str | Path | None,
                 words: str,
                 score_thr: float,
                 with_maps: bool = True) -> Found:
        """Find words in an image.

        Args:
            path (str or Path): File of the image.
            words (str): Names, one per line or with commas between them;
                ``cat = 0.5`` has a least score of its own.
            score_thr (float): Boxes of other words that score less are left
                out, where fine-tuning left no least score of the word.
            with_maps (bool): Whether to ask for response maps.

        Raises:
            ValueError: If there is no image, it can not be read or is too
                large, or the names are no vocabulary. The message is for the
                user.
        """
        wanted = self._wanted(words, score_thr)
        image = self._read(path)
        rgb = image[..., ::-1]
        with self._lock:
            entry = self._entry(image, wanted)
            maps, why_none = self._responses(image) if with_maps else (None,
                                                                       None)
        rows = [[
            box['name'],
            round(box['score'], 3), *(round(x, 1) for x in box['bbox'])
        ] for box in entry['boxes']]
        sentences = [_summary(list(wanted), rows), why_none]
        return Found(
            _drawn(rgb, entry['boxes']), _laid_over(rgb, list(wanted), maps),
            rows, ' '.join(filter(None, sentences)), entry)

    def compare(self, path: str | Path | None, first: str, second: str,
                score_thr: float) -> Compared:
        """Which of two words the detector answers to more, and where.

        Args:
            path (str or Path): File of the image.
            first, second (str): A word each.
            score_thr (float): Boxes that score less are left out.

        Raises:
            ValueError: As of a call, or if either is not one word.
        """
        wanted: dict[str, float] = {}
        for text in (first, second):
            words = self._wanted(text, score_thr)
            if len(words) > 1:
                raise ValueError('words: expected two to compare, got '
                                 f'{[*wanted, *words]}')
            if set(words) & set(wanted):
                raise ValueError('words: expected two different ones, got '
                                 f'{list(words)[0]!r} twice')
            wanted.update(words)
        image = self._read(path)
        rgb = image[..., ::-1]
        with self._lock:
            entry = self._entry(image, wanted)
            maps, why_none = self._responses(image)
        names = [box['name'] for box in entry['boxes']]
        first, second = wanted
        message = (f'Boxes: {names.count(first)} of {first}, '
                   f'{names.count(second)} of {second}.')
        difference = None
        if maps is None:
            message += f' {why_none}'
        else:
            gap = maps[0] - maps[1]
            most = max(gap.abs().max().item(), 1e-6)
            small, _ = enlarge(rgb, SIDE)
            difference, = draw_responses(
                np.asarray(small), gap[None], (-most, most))
            message += (f' More like {first} (hot) than {second} (cold): '
                        f'{100 * (gap > 0).float().mean():.0f} % of the '
                        'image; cosines differ by '
                        f'{gap.min():+.2f} to {gap.max():+.2f}.')
        return Compared(difference, _drawn(rgb, entry['boxes']), message)

    def video(self, path: str | Path, words: str, score_thr: float,
              out_file: str | Path) -> list[dict]:
        """Find words in each frame of a video.

        Args:
            path (str or Path): The video.
            words, score_thr: As of a call.
            out_file (str or Path): Where the drawn video goes, as ``.webm``
                or ``.mp4``.

        Returns:
            list[dict]: Of each frame an entry, as :class:`Found` has it.

        Raises:
            ValueError: As of a call, or if there are more than
                ``MAX_FRAMES`` frames or none that can be read.
        """
        wanted = self._wanted(words, score_thr)
        frames = frames_of(path)
        entries: list[dict] = []
        writer = None
        try:
            for frame in frames:
                if len(entries) == MAX_FRAMES:
                    raise ValueError('video: expected at most '
                                     f'{MAX_FRAMES} frames, got more')
                with self._lock:
                    entries.append(self._entry(frame, wanted))
                picture = _drawn(frame[..., ::-1], entries[-1]['boxes'])
                writer = writer or VideoFile(
                    Path(out_file), frames.fps, picture)
                writer.write(picture)
        except BaseException:
            if writer is not None:
                writer.discard()
            raise
        if writer is None:
            raise ValueError('video: expected a video, got a file without a '
                             'single readable frame')
        writer.finish()
        return entries

    def _wanted(self, words: str, score_thr: float) -> dict[str, float]:
        """Names and the least score of each: its own, its class's, or one."""
        return read_words(words, score_thr, self.find.thresholds)

    def _entry(self, image: np.ndarray, wanted: dict[str, float]) -> dict:
        """The boxes of an image (H, W, 3) in BGR."""
        found = self.find(image, vocabulary=list(wanted))['predictions'][0]
        boxes = [
            dict(name=name, score=score, bbox=box) for name, score, box in zip(
                found['names'], found['scores'], found['bboxes'])
            if score >= wanted[name]
        ]
        height, width = image.shape[:2]
        return dict(width=width, height=height, boxes=boxes)

    def _read(self, path: str | Path | None) -> np.ndarray:
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
            self, image: np.ndarray) -> tuple[torch.Tensor | None, str | None]:
        """A map per name, or why there are none."""
        try:
            return self.find.responses(image), None
        except TypeError as error:
            return None, f'No response maps: {error}.'


def read_words(words: str,
               score_thr: float,
               chosen: Mapping[str, float] | None = None) -> dict[str, float]:
    """Names from what a user typed, and the least score of each.

    Args:
        words (str): One per line or with commas between them; also as
            Grounding DINO separates them. Behind a name and ``=``, a least
            score of its own.
        score_thr (float): The least score of the others.
        chosen (dict[str, float], optional): Least scores of classes, as
            ``CLIMInferencer.thresholds``, that go before ``score_thr``.

    Raises:
        ValueError: If there is none, one is given twice, there are more than
            ``MAX_NAMES``, or a score is not from 0 to 1.

    Example:
        >>> read_words('cat, traffic light = 0.5', 0.3)
        {'cat': 0.3, 'traffic light': 0.5}
    """
    scores: list[str] = []

    def put_by(match: re.Match) -> str:
        # The point of a number would end a name.
        scores.append(match[1])
        return f'={len(scores) - 1}'

    parts = [
        name.partition('=')
        for name in split_names(_OWN_SCORE.sub(put_by, words))
    ]
    names = clean_names([name for name, _, _ in parts])
    if len(names) > MAX_NAMES:
        raise ValueError(f'vocabulary: expected at most {MAX_NAMES} class '
                         f'names, got {len(names)}')
    found = {}
    for name, (_, equals, number) in zip(names, parts):
        if equals:
            text = scores[int(number)] if number.strip().isdigit() else number
            found[name] = _score(name, text)
        else:
            found[name] = (chosen or {}).get(compared_name(name), score_thr)
    return found


def _score(name: str, text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = -1.
    if not 0 <= score <= 1:
        raise ValueError(
            f'{name}: expected a score threshold from 0 to 1 after '
            f'"=", got {text!r}')
    return score


def _drawn(image: np.ndarray, boxes: list[dict]) -> np.ndarray:
    """Boxes on an RGB image."""
    names = sorted({box['name'] for box in boxes})
    instances = InstanceData(
        bboxes=torch.tensor([box['bbox'] for box in boxes]).view(-1, 4),
        labels=torch.tensor([names.index(box['name']) for box in boxes],
                            dtype=torch.long),
        scores=torch.tensor([box['score'] for box in boxes]))
    return draw_boxes(image, instances, names, score_thr=0, side=SIDE)


def _laid_over(image: np.ndarray, names: list[str],
               maps: torch.Tensor | None) -> list[tuple[np.ndarray, str]]:
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


def _summary(names: list[str], rows: list[list]) -> str:
    """How many boxes, and of which names there is none."""
    seen = {row[0] for row in rows}
    missing = [name for name in names if name not in seen]
    count = '1 box' if len(rows) == 1 else f'{len(rows)} boxes'
    if not missing:
        return f'{count}.'
    return f'{count}; none of {", ".join(missing)}.'

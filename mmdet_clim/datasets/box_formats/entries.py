# Licensed under the Apache License, Version 2.0.
"""Boxes of images, collected in COCO's layout."""
import os
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from ..coco_annotations import Size


class CocoEntries:
    """Collects images and boxes; what they hold is checked afterwards.

    Args:
        folder (Path): The folder below which the images are named.
        names (Sequence[str]): Classes that are known in advance, in order.
    """

    def __init__(self, folder: Path, names: Sequence[str] = ()) -> None:
        self.folder = folder
        self.images: List[dict] = []
        self.annotations: List[dict] = []
        self._classes: Dict[str, int] = {}
        for name in names:
            self._class(name)

    def _class(self, name: str) -> int:
        return self._classes.setdefault(name, len(self._classes) + 1)

    def image(self, path: Path, size: Optional[Size] = None) -> int:
        """Add an image.

        Args:
            size (tuple[int, int], optional): Width and height; not known if
                one of them is 0.
        """
        # Of one elsewhere, the absolute path, which a join keeps.
        name = Path(os.path.relpath(path, self.folder))
        if '..' in name.parts:
            name = path.absolute()
        number = len(self.images) + 1
        entry: Dict[str, Any] = dict(id=number, file_name=name.as_posix())
        if size is not None and min(size) > 0:
            entry.update(width=size[0], height=size[1])
        self.images.append(entry)
        return number

    def box(self,
            image: int,
            name: str,
            box: Sequence[float],
            ignore: bool = False) -> None:
        """Add a box.

        Args:
            box (Sequence[float]): x, y, width, height in pixels.
            ignore (bool): Whether it is neither to be found nor a mistake.
        """
        self.annotations.append(
            dict(
                id=len(self.annotations) + 1,
                image_id=image,
                category_id=self._class(name),
                bbox=list(box),
                area=box[2] * box[3],
                iscrowd=int(ignore)))

    def coco(self) -> dict:
        """What a COCO JSON of all that would hold."""
        return dict(
            images=self.images,
            annotations=self.annotations,
            categories=[
                dict(id=number, name=name)
                for name, number in self._classes.items()
            ])


def extent(points: Sequence[Sequence[float]]) -> List[float]:
    """The box (x, y, width, height) around points (x, y)."""
    across, down = zip(*points)
    return [
        min(across),
        min(down),
        max(across) - min(across),
        max(down) - min(down)
    ]


def numbers(values: Sequence[Any], where: str) -> List[float]:
    """Numbers that stand as text.

    Raises:
        ValueError: If one of them is none, or not finite.
    """
    found = []
    for value in values:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float('nan')
        if not abs(number) < float('inf'):
            raise ValueError(f'{where}: expected numbers, got {value!r}')
        found.append(number)
    return found

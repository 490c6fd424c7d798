# Licensed under the Apache License, Version 2.0.
"""Feature maps of a frozen network, kept on the disk."""
import hashlib
from pathlib import Path
from typing import Callable, Sequence

import torch
from torch import Tensor

from mmdet_clim.checks import check_range
from mmdet_clim.files import atomic_path

SUFFIX = '.safetensors'


class FeatureCache:
    """Maps of images that a network saw before, found by their pixels.

    An image is known by its very values, so whatever is done to it before
    (another size, a flip, another normalisation) makes it another image. Maps
    are kept in half precision, and those that are computed are rounded alike:
    the result does not depend on what was there.

    Once it is full, it is only read. Images that never come again, such as
    mosaics, then cost no more than to be computed.

    Args:
        folder (str | Path): Where the files go, in a folder per network.
        network (str): What tells the network from another one.
        max_images (int): Images that are kept, at most.

    Raises:
        ValueError: If ``max_images`` is below 1.
    """

    def __init__(self, folder: str | Path, network: str,
                 max_images: int) -> None:
        check_range(1, max_cached_images=max_images)
        self.folder = Path(folder) / network
        self.max_images = max_images
        self._count: int | None = None

    def __call__(
            self, images: Tensor,
            compute: Callable[[Tensor],
                              Sequence[Tensor]]) -> tuple[Tensor, ...]:
        """The maps of a batch.

        Args:
            images (Tensor): (N, 3, H, W), float32, normalised.
            compute (Callable): Gives the maps (n, C, h, w) of those images
                (n, 3, H, W) that are not known.

        Returns:
            tuple[Tensor]: (N, C, h, w) each, float32, without gradient.
        """
        files = [self._file(image) for image in images]
        found = [self._read(file) for file in files]
        missing = [i for i, maps in enumerate(found) if maps is None]
        if missing:
            computed = [m.half().cpu() for m in compute(images[missing])]
            for place, i in enumerate(missing):
                maps = [m[place].clone() for m in computed]
                self._write(files[i], maps)
                found[i] = maps
        return tuple(
            torch.stack(level).to(images.device, torch.float32)
            for level in zip(*found))

    def _file(self, image: Tensor) -> Path:
        values = image.detach().float().cpu().contiguous()
        digest = hashlib.blake2b(repr(tuple(image.shape)).encode())
        digest.update(values.numpy())
        return self.folder / f'{digest.hexdigest()[:32]}{SUFFIX}'

    def _read(self, file: Path) -> list[Tensor] | None:
        from safetensors import SafetensorError
        from safetensors.torch import load
        try:
            maps = load(file.read_bytes())
        except (FileNotFoundError, SafetensorError):
            # One that a lost disk left empty is made again.
            return None
        return [maps[str(level)] for level in range(len(maps))]

    def _write(self, file: Path, maps: Sequence[Tensor]) -> None:
        from safetensors.torch import save
        if self._count is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._count = sum(1 for _ in self.folder.glob(f'*{SUFFIX}'))
        if self._count >= self.max_images:
            return
        with atomic_path(file) as beside:
            beside.write_bytes(save({str(i): m for i, m in enumerate(maps)}))
        self._count += 1

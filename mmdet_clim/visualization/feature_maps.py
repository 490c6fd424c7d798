# Licensed under the Apache License, Version 2.0.
"""Dense features as colours."""
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.cluster.vq import kmeans2
from torch import Tensor

from .canvas import COLOURS


def pca_colours(features: Sequence[Tensor]) -> list[np.ndarray]:
    """The three main directions of the features as red, green and blue.

    All maps share the directions and the scale, so that like is drawn alike
    across images.

    Args:
        features (Sequence[Tensor]): Maps (D, h, w) with D of at least 3.

    Returns:
        list[np.ndarray]: A picture (h, w, 3) per map, uint8.

    Raises:
        ValueError: If there is no map, D differs or is below 3.
    """
    rows = _rows(features)
    if rows.shape[1] < 3:
        raise ValueError('features: expected at least 3 channels, got '
                         f'{rows.shape[1]}')
    centred = rows - rows.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    # A direction has no sign of its own: its largest share is positive.
    directions = F.pad(directions[:3], (0, 0, 0, max(0, 3 - len(directions))))
    largest = directions.abs().argmax(1, keepdim=True)
    directions = directions * directions.gather(1, largest).sign()
    values = centred @ directions.t()
    # The outermost percent would leave little contrast to the rest.
    low, high = torch.quantile(values, values.new_tensor([.01, .99]), dim=0)
    shares = ((values - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    return _maps((shares * 255).byte().numpy(), features)


def cluster_colours(features: Sequence[Tensor],
                    num_clusters: int = 6,
                    seed: int = 0) -> list[np.ndarray]:
    """k-means of the normalised features, a colour per cluster.

    Args:
        features (Sequence[Tensor]): Maps (D, h, w).
        num_clusters (int): At most the number of colours, 8.
        seed (int): Of where the clusters start.

    Returns:
        list[np.ndarray]: A picture (h, w, 3) per map, uint8.

    Raises:
        ValueError: If there is no map, D differs, or there is no colour for
            so many clusters.
    """
    if not 1 <= num_clusters <= len(COLOURS):
        raise ValueError(f'num_clusters: expected 1 to {len(COLOURS)}, got '
                         f'{num_clusters}')
    rows = F.normalize(_rows(features), dim=1).numpy()
    _, labels = kmeans2(rows, num_clusters, minit='++', seed=seed)
    return _maps(np.uint8(COLOURS)[labels], features)


def _rows(features: Sequence[Tensor]) -> Tensor:
    """All positions of all maps, (N, D) float32 on the CPU."""
    widths = {len(of_image) for of_image in features}
    if len(widths) != 1:
        raise ValueError('features: expected maps (D, h, w) of one D, got '
                         f'{sorted(widths)}')
    return torch.cat([f.flatten(1).t() for f in features]).float().cpu()


def _maps(colours: np.ndarray, features: Sequence[Tensor]) -> list[np.ndarray]:
    """Rows of colours (N, 3) back to a picture per map."""
    sizes = [f.shape[1] * f.shape[2] for f in features]
    parts = np.split(colours, np.cumsum(sizes)[:-1])
    return [part.reshape(*f.shape[1:], 3) for part, f in zip(parts, features)]

# Licensed under the Apache License, Version 2.0.
"""How much AP one detector has less than another, and at most."""
from collections.abc import Mapping, Sequence

import numpy as np

from .resampled_ap import ResampledAP

#: Of the bound.
CONFIDENCE = 0.95


class LostAP:
    """Bounds what detectors lose of an original's mean AP50.

    The bound is the :data:`CONFIDENCE` quantile of what is lost on draws of
    the images (bootstrap), the same for both detectors: of many such sets of
    images, it holds for about so large a share. The fewer images, the higher
    it lies above what is lost on them.

    Args:
        content (Mapping): A COCO file.
        names (Sequence[str]): Classes, of which those with objects count.
        before (Sequence[Mapping]): The original's detections, COCO's result
            format.
        resamples (int): Draws.
    """

    def __init__(self,
                 content: Mapping,
                 names: Sequence[str],
                 before: Sequence[Mapping],
                 resamples: int = 1000) -> None:
        wanted = set(names)
        categories = [c for c in content['categories'] if c['name'] in wanted]
        numbers = {c['id'] for c in categories}
        self.resampled = ResampledAP(
            dict(
                images=content['images'],
                categories=categories,
                annotations=[
                    a for a in content['annotations']
                    if a['category_id'] in numbers
                ]), resamples)
        self.before = self.resampled(before)

    def at_most(self, after: Sequence[Mapping]) -> float:
        """The bound for a detector, as a fraction.

        Args:
            after (Sequence[Mapping]): Its detections.
        """
        # In a draw, the same classes have objects before and after.
        lost = (self.before - self.resampled(after))[1:]
        count = (~np.isnan(lost)).sum(1)
        mean = np.divide(
            np.nansum(lost, 1),
            count,
            out=np.full(len(lost), np.nan),
            where=count > 0)
        return float(np.nanquantile(mean, CONFIDENCE))

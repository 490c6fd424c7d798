# Licensed under the Apache License, Version 2.0.
from typing import Optional

from mmengine.logging import print_log
from torch import nn

from mmdet_clim.models.families import family_of
from mmdet_clim.registry import MODELS

from .base import BaseRegionReader


def build_region_reader(cfg: Optional[dict], detector: nn.Module,
                        dim: int) -> BaseRegionReader:
    """Build the configured reader, or the first of the detector's family.

    Args:
        cfg (dict, optional): Config of the reader.
        detector (nn.Module): The detector to read.
        dim (int): Width of a text embedding.

    Raises:
        TypeError: If the configured reader cannot read this detector, or none
            of its family can; the message gives each one's reason.
    """
    if cfg is not None:
        reader = MODELS.build(cfg)
        reader.check(detector)
        reader.prepare(detector, dim)
        return reader
    reasons = []
    for reader_type in family_of(detector).readers:
        reader = reader_type()
        try:
            reader.check(detector)
            reader.prepare(detector, dim)
        except TypeError as error:
            reasons.append(str(error))
        else:
            print_log(
                f'region_reader: {reader_type.__name__}' +
                (f', because {"; ".join(reasons)}' if reasons else ''),
                logger='current')
            return reader
    raise TypeError(f'region_reader: none fits {type(detector).__name__}. ' +
                    '; '.join(reasons) +
                    '. Write a reader for it and name it in '
                    '`region_reader`.')

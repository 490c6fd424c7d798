# Licensed under the Apache License, Version 2.0.
from typing import Optional

from torch import nn

from mmdet_clim.registry import MODELS

from .base import BaseRegionReader
from .cascade_reader import CascadeReader
from .two_stage_reader import TwoStageReader

READERS = (TwoStageReader, CascadeReader)


def build_region_reader(cfg: Optional[dict],
                        detector: nn.Module) -> BaseRegionReader:
    """Build the configured reader, or the first that fits the detector.

    Raises:
        TypeError: If the configured reader cannot read this detector, or none
            of the known ones can; the message gives each one's reason.
    """
    if cfg is not None:
        reader = MODELS.build(cfg)
        reader.check(detector)
        return reader
    reasons = []
    for reader_type in READERS:
        reader = reader_type()
        try:
            reader.check(detector)
        except TypeError as error:
            reasons.append(str(error))
        else:
            return reader
    raise TypeError(f'region_reader: none fits {type(detector).__name__}. ' +
                    '; '.join(reasons) +
                    '. Write a reader for it and name it in '
                    '`region_reader`.')

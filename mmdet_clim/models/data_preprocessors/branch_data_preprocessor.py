# Licensed under the Apache License, Version 2.0.
from collections import defaultdict

from mmengine.model import BaseDataPreprocessor
from torch import nn

from mmdet_clim.registry import MODELS

BOXES_BRANCH = 'boxes'
#: The stride of the coarsest map of the pyramids that are joined level to
#: level, as in the necks of RTMDet, YOLOX and FPN.
PAD_SIZE_DIVISOR = 32


@MODELS.register_module()
class BranchDataPreprocessor(BaseDataPreprocessor):
    """Sort a mixed batch into branches and preprocess each on its own.

    Images of one branch are padded together, those of different branches are
    not: a mosaic never makes the boxes batch larger. A detector without a
    ``pad_size_divisor``, such as RTMDet, has its own images padded by its
    pipeline; those of the other branches are then padded to a multiple of
    ``PAD_SIZE_DIVISOR``.

    Args:
        preprocessor (dict or nn.Module): The wrapped detector's own
            preprocessor, used for every branch.
    """

    def __init__(self, preprocessor: dict | nn.Module) -> None:
        super().__init__()
        if not isinstance(preprocessor, nn.Module):
            preprocessor = MODELS.build(preprocessor)
        self.preprocessor = preprocessor
        if isinstance(preprocessor, BaseDataPreprocessor):
            # From pinned memory, the host does not wait for a copy.
            preprocessor._non_blocking = True

    def forward(self, data: dict, training: bool = False) -> dict:
        """Preprocess a batch.

        Args:
            data (dict): ``inputs``, a list of images (3, H, W), and
                ``data_samples``. A sample belongs to the branch that its
                metainfo ``branch`` names, to ``boxes`` where it has none.
            training (bool): Whether batch augmentations may run, and the
                result is sorted into branches.

        Returns:
            dict: In training, ``inputs`` (branch → batch tensor (N, 3, H, W))
            and ``data_samples`` (branch → list of N samples). Otherwise what
            the wrapped preprocessor returns.
        """
        if not training:
            return self.preprocessor(data, training)
        branches: dict[str, dict[str, list]] = defaultdict(
            lambda: dict(inputs=[], data_samples=[]))
        for image, sample in zip(data['inputs'], data['data_samples']):
            branch = branches[sample.get('branch', BOXES_BRANCH)]
            branch['inputs'].append(image)
            branch['data_samples'].append(sample)
        done: dict[str, dict] = dict(inputs={}, data_samples={})
        for name, batch in branches.items():
            found = self._preprocess(name, batch)
            for key, of_branches in done.items():
                of_branches[name] = found[key]
        return done

    def _preprocess(self, name: str, batch: dict) -> dict:
        """The batch of one branch."""
        own = getattr(self.preprocessor, 'pad_size_divisor', None)
        if name == BOXES_BRANCH or own != 1:
            return self.preprocessor(batch, True)
        self.preprocessor.pad_size_divisor = PAD_SIZE_DIVISOR
        try:
            return self.preprocessor(batch, True)
        finally:
            self.preprocessor.pad_size_divisor = own

# Licensed under the Apache License, Version 2.0.
"""The text towers of open_clip."""
import difflib
import logging
from pathlib import Path
from typing import List, Optional

from mmengine.logging import print_log
from torch import Tensor, nn

from mmdet_clim.registry import MODELS

from .base import BaseTextEncoder


@MODELS.register_module()
class OpenCLIPTextEncoder(BaseTextEncoder):
    """Text tower of any open_clip model and checkpoint.

    Args:
        model (str): Name of an open_clip model (``open_clip.list_models()``,
            also one added by ``open_clip.add_model_config``), or open_clip's
            ``local-dir:FOLDER`` or ``hf-hub:NAME``.
        pretrained (str, optional): Path of a checkpoint, or a tag of the
            model that open_clip downloads. None: random weights, unless
            ``model`` is a folder or on the hub; for tests only.
        cache_size (int): Distinct texts whose embeddings are kept.
        batch_size (int): Texts encoded at a time.

    Raises:
        ValueError: If the model is unknown (the message lists those that
            exist), or ``pretrained`` is neither a file nor a tag of it.
    """

    def __init__(self,
                 model: str,
                 pretrained: Optional[str] = None,
                 cache_size: int = 65536,
                 batch_size: int = 256):
        # open_clip imports torchvision, for which importing mmdet_clim
        # prepares; a project without CLIP need not have either.
        import open_clip
        local = model.startswith(('local-dir:', 'hf-hub:'))
        if not local:
            _check_names(model, pretrained)
            if pretrained is None:
                print_log(
                    f'OpenCLIPTextEncoder: model={model!r} without '
                    'pretrained=: its weights are random.',
                    logger='current',
                    level=logging.WARNING)
        clip = open_clip.create_model(model, pretrained, weights_only=True)
        # Nothing here looks at images.
        clip.visual = nn.Identity()
        super().__init__(clip, cache_size, batch_size)
        self.model = model
        self.tokenizer = open_clip.get_tokenizer(model)
        self._pad = self.tokenizer(['a'], self._limit + 1)[0, -1]
        self._dim = self._encode_frozen(['a']).shape[1]

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def _limit(self) -> int:
        return self.tokenizer.context_length

    def _encode(self, texts: List[str]) -> Tensor:
        # With room for one more token, a text that fills it is too long.
        longer = self.tokenizer(texts, self._limit + 1)
        cut = (longer[:, -1] != self._pad).tolist()
        self._report_truncated(
            [text for text, is_cut in zip(texts, cut) if is_cut], self._limit)
        tokens = self.tokenizer(texts, self._limit)
        return self.tower.encode_text(tokens.to(self.device))


def _check_names(model: str, pretrained: Optional[str]) -> None:
    import open_clip
    models = open_clip.list_models()
    if model not in models:
        close = difflib.get_close_matches(model, models, n=3)
        hint = f' (did you mean {close}?)' if close else ''
        raise ValueError(f'model={model!r} is no open_clip model{hint}; '
                         f'expected one of {models}')
    if pretrained is None or Path(pretrained).is_file():
        return
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained not in tags:
        raise ValueError(
            f'pretrained={pretrained!r} is neither a file nor a tag of '
            f'{model}; expected a path or one of {tags}')

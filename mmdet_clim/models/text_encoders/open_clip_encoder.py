# Licensed under the Apache License, Version 2.0.
"""The text towers of open_clip."""
from functools import cached_property

import torch
from torch import Tensor, nn

from mmdet_clim.registry import MODELS

from ..open_clip_models import create_clip, model_name
from .base import BaseTextEncoder, unknown_texts


@MODELS.register_module()
class OpenCLIPTextEncoder(BaseTextEncoder):
    """Text tower of any open_clip model and checkpoint.

    Args:
        model (str): Name of an open_clip model (``open_clip.list_models()``,
            also one added by ``open_clip.add_model_config``), path of a model
            configuration (``.json``), or open_clip's ``local-dir:FOLDER`` or
            ``hf-hub:NAME``.
        pretrained (str, optional): Path of a checkpoint, or a tag of the
            model that open_clip downloads. None: random weights, unless
            ``model`` is a folder or on the hub; for tests only.
        before_projection (bool): Whether an embedding is the residual stream
            behind the last block where the text is pooled, before the last
            norm and projection, as BARON classifies by (REFERENCE.md,
            section 3). It is of another space than that of images.
        **kwargs: Of :class:`BaseTextEncoder`: ``cache_size``,
            ``batch_size``.

    Raises:
        ValueError: If the model is unknown (the message lists those that
            exist), ``pretrained`` is neither a file nor a tag of it, or the
            file holds the weights of another architecture.
        TypeError: With ``before_projection``, if the text tower is not
            open_clip's own with causal attention.
    """

    def __init__(self,
                 model: str,
                 pretrained: str | None = None,
                 before_projection: bool = False,
                 **kwargs) -> None:
        clip = create_clip(model, pretrained, type(self).__name__)
        # Nothing here looks at images.
        clip.visual = nn.Identity()
        super().__init__(clip, **kwargs)
        import open_clip  # late, as create_clip does
        self.model = model
        self.before_projection = before_projection
        self.tokenizer = open_clip.get_tokenizer(model_name(model))
        self._limit: int = self.tokenizer.context_length
        self._pad = self.tokenizer(['a'], self._limit + 1)[0, -1]
        if before_projection and not self._is_plain:
            raise self._not_plain('before_projection=True needs')
        self.dim = self._encode_frozen(['a']).shape[1]

    @property
    def reading(self) -> tuple:
        return (self.model, self._limit, self.before_projection)

    def _encode(self, texts: list[str]) -> Tensor:
        # With room for one more token, a text that fills it is too long.
        longer = self.tokenizer(texts, self._limit + 1)
        cut = (longer[:, -1] != self._pad).tolist()
        # CLIP's own tokenizer knows every byte.
        inner = getattr(self.tokenizer, 'tokenizer', None)
        unknown = [] if inner is None else unknown_texts(
            inner, texts, longer.tolist())
        self._report([text for text, is_cut in zip(texts, cut) if is_cut],
                     unknown, self._limit)
        tokens = self.tokenizer(texts, self._limit)
        if not self._is_plain:
            return self.tower.encode_text(tokens.to(self.device))
        # With causal attention, what comes after the longest text has no
        # effect: most captions fill a fifth of the context.
        tokens = tokens[:, :self._width(tokens).max()].to(self.device)
        text = self._text_transformer
        return self._transform(text, text.token_embedding(tokens), tokens)

    def _width(self, tokens: Tensor) -> Tensor:
        """Of each row the next multiple of sixteen, at most the limit."""
        places = torch.arange(1, tokens.shape[1] + 1)
        length = (places * (tokens != self._pad)).amax(1)
        return (-(-length // 16) * 16).clamp(max=self._limit)

    def _widths(self, texts: list[str]) -> list[int]:
        if not self._is_plain:
            return super()._widths(texts)
        return self._width(self.tokenizer(texts, self._limit)).tolist()

    @property
    def max_words(self) -> int:
        return self._limit - 2

    def _word_table(self) -> Tensor:
        if not self._is_plain:
            raise self._not_plain('word vectors need')
        return self._text_transformer.token_embedding.weight

    def _not_plain(self, what: str) -> TypeError:
        return TypeError(
            f'model={self.model!r}: {what} a text transformer of open_clip '
            "with causal attention and the end token's output as embedding, "
            "like CLIP's")

    @property
    def _text_transformer(self) -> nn.Module:
        """What holds the text tower's parts: CLIP itself or its ``text``."""
        import open_clip
        return self.tower.text if isinstance(
            self.tower, open_clip.CustomTextCLIP) else self.tower

    @cached_property
    def _is_plain(self) -> bool:
        """Whether it is open_clip's own transformer, as CLIP's.

        With causal attention a padded sequence needs no mask, and what comes
        after the end has no effect.
        """
        import open_clip
        tower = self._text_transformer
        plain = isinstance(tower, open_clip.CLIP) or (
            isinstance(tower, open_clip.transformer.TextTransformer)
            and tower.cls_emb is None)
        return bool(
            plain and tower.attn_mask is not None
            and isinstance(self.tokenizer, open_clip.SimpleTokenizer)
            and self._pool_type in ('argmax', 'eos'))

    @property
    def _pool_type(self) -> str:
        text = self._text_transformer
        return text.text_pool_type if text is self.tower else text.pool_type

    def _encode_words(self, words: Tensor, lengths: Tensor,
                      value_path: bool) -> Tensor:
        end = self.tokenizer.eot_token_id
        x, ends = self._wrap_words(words, lengths, self.tokenizer.sot_token_id,
                                   end)
        # Where the end is, is all that pooling looks at.
        tokens = torch.zeros(x.shape[:2], dtype=torch.long, device=x.device)
        tokens.scatter_(1, ends[:, None], end)
        return self._transform(self._text_transformer, x, tokens, value_path)

    def _transform(self,
                   text: nn.Module,
                   x: Tensor,
                   tokens: Tensor,
                   by_value: bool = False) -> Tensor:
        """Word vectors (N, L, width), L at most the context, to (N, dim)."""
        from open_clip.transformer import text_global_pool

        from ..open_clip_blocks import run_block, value_path
        length = x.shape[1]
        x = x + text.positional_embedding[:length]
        mask = text.attn_mask[:length, :length]
        *blocks, last = text.transformer.resblocks
        for block in blocks:
            x = block(x, attn_mask=mask)
        x = run_block(last, x, value_path) if by_value else last(
            x, attn_mask=mask)
        if not self.before_projection:
            x = text.ln_final(x)
        x = text_global_pool(x, tokens, self._pool_type,
                             self.tokenizer.eot_token_id)
        if self.before_projection:
            return x
        if isinstance(text.text_projection, nn.Linear):
            return text.text_projection(x)
        if text.text_projection is None:
            return x
        return x @ text.text_projection

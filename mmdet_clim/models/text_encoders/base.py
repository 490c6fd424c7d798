# Licensed under the Apache License, Version 2.0.
"""What all text encoders share: frozen towers and a cache of embeddings."""
import logging
from abc import ABCMeta, abstractmethod
from collections import OrderedDict
from typing import Iterator, Sequence, cast

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from mmdet_clim.checks import check_range

from ..frozen_tower import FrozenTower, fingerprint
from ..host import upload

# Warnings of :class:`ReadsInPart` that this process has given.
_REPORTED: set[tuple[str, str]] = set()
# Of 48 captions by MiniLM on one core, one at a time take 940 ms, in batches
# of four 580 ms, of eight 460 ms; of a few texts more rows are filled up.
ROWS = 4


class ReadsInPart:
    """Counts texts that are not read whole, and says so the first time.

    A detector with several heads builds its encoder for each of them.
    """

    num_truncated = 0
    num_unknown = 0

    def _report(self, cut: Sequence[str], unknown: Sequence[str],
                limit: int) -> None:
        """Count texts, of which one may be given again.

        Args:
            cut (Sequence[str]): Texts longer than ``limit``.
            unknown (Sequence[str]): Texts with characters that are no words
                for the encoder, or with no words at all.
            limit (int): Tokens that the encoder reads.
        """
        cut, unknown = (list(dict.fromkeys(texts)) for texts in (cut, unknown))
        name = type(self).__name__
        if unknown and not self.num_unknown:
            _warn_once(
                f'{name}: texts with characters that it has no tokens for are '
                'read without them', unknown, 'num_unknown')
        if cut and not self.num_truncated:
            _warn_once(
                f'{name}: texts longer than the limit of {limit} tokens are '
                'cut off there', cut, 'num_truncated')
        self.num_truncated += len(cut)
        self.num_unknown += len(unknown)


def _warn_once(what: str, texts: Sequence[str], counter: str) -> None:
    if (what, texts[0]) in _REPORTED:
        return
    _REPORTED.add((what, texts[0]))
    shown = ', '.join(repr(text[:60]) for text in texts[:5])
    print_log(
        f'{what}: {len(texts)} so far, such as {shown}. Reported once; '
        f'{counter} counts them.', 'current', logging.WARNING)


class BaseTextEncoder(ReadsInPart, FrozenTower, metaclass=ABCMeta):
    """Frozen encoder of strings to unit vectors, with a bounded cache.

    A subclass implements :meth:`_encode`; one that takes word vectors in the
    place of its own also :meth:`_word_table`, :attr:`max_words` and
    :meth:`_encode_words`.

    Args:
        tower (nn.Module): What encodes. It is frozen.
        cache_size (int): Distinct texts whose embeddings are kept, the least
            recently used going first. 0: none.
        batch_size (int): Texts encoded at a time on an accelerator. On the
            CPU they go in batches of one shape, see :meth:`_batches`.

    Raises:
        ValueError: If ``cache_size`` is negative or ``batch_size`` not
            positive.

    Attributes:
        vocabularies (dict): Embeddings (C, D) of classes, by (names,
            templates).
    """

    def __init__(self,
                 tower: nn.Module,
                 cache_size: int = 65536,
                 batch_size: int = 256):
        super().__init__(tower)
        check_range(0, cache_size=cache_size)
        check_range(1, batch_size=batch_size)
        self.cache_size = cache_size
        self.batch_size = batch_size
        # Text to its row in the table, least recently used first.
        self._rows: OrderedDict[str, int] = OrderedDict()
        self._table: Tensor | None = None
        self.vocabularies: dict[tuple, Tensor] = {}
        self._fingerprint: str | None = None

    #: Width of a text embedding.
    dim: int
    #: Whether encoding takes so long that vocabularies are kept on the disk.
    is_slow = True

    @property
    def fingerprint(self) -> str:
        """By which this encoder is told from one of other weights."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint(
                self.tower, [type(self).__name__, self.reading])
        return self._fingerprint

    @property
    def reading(self) -> tuple:
        """What an embedding depends on beside the tower's weights."""
        return ()

    def _move(self) -> None:
        super()._move()
        for key, embeddings in self.vocabularies.items():
            self.vocabularies[key] = embeddings.to(self.device)
        if self._table is not None:
            self._table = self._table.to(self.device)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Encode texts, each distinct one at most once.

        Args:
            texts (Sequence[str]): N texts, none of them empty.

        Returns:
            Tensor: (N, dim) float32 unit vectors on :attr:`device`, without
            gradient.

        Raises:
            TypeError: If ``texts`` is one string or holds something else.
            ValueError: If a text is empty.
        """
        check_texts(texts)
        if not texts:
            return torch.zeros(0, self.dim, device=self.device)
        distinct = list(dict.fromkeys(texts))
        if len(distinct) > self.cache_size:
            return self._encode_all(texts)
        missing = [text for text in distinct if text not in self._rows]
        for text in distinct:
            if text in self._rows:
                self._rows.move_to_end(text)
        if missing:
            self._remember(missing, self._encode_all(missing))
        table = cast(Tensor, self._table)
        return table[self._upload_rows([self._rows[text] for text in texts])]

    def _encode_all(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of texts, in their order; each distinct one once."""
        row: dict[str, int] = {}
        parts: list[Tensor] = []
        for batch in self._batches(list(dict.fromkeys(texts))):
            whole = batch
            if self.device.type == 'cpu':
                whole = batch + batch[-1:] * (ROWS - len(batch))
            parts.append(self._encode_frozen(whole)[:len(batch)])
            row.update(zip(batch, range(len(row), len(row) + len(batch))))
        return torch.cat(parts)[self._upload_rows([row[t] for t in texts])]

    # The table serves training too, wherever its rows are from.
    @torch.inference_mode(False)
    @torch.no_grad()
    def _remember(self, texts: list[str], embeddings: Tensor) -> None:
        """Give new texts rows, at last those of the least recently used."""
        rows = []
        for text in texts:
            row = len(self._rows)
            if row >= self.cache_size:
                _, row = self._rows.popitem(last=False)
            self._rows[text] = row
            rows.append(row)
        if self._table is None:
            self._table = embeddings.new_zeros(0, embeddings.shape[1])
        size = len(self._table)
        if max(rows) >= size:
            # Twice as many, so that a row is rarely copied.
            size = min(max(2 * size, max(rows) + 1), self.cache_size) - size
            more = embeddings.new_zeros(size, embeddings.shape[1])
            self._table = torch.cat([self._table, more])
        self._table[self._upload_rows(rows)] = embeddings

    def _upload_rows(self, rows: list[int]) -> Tensor:
        return upload(torch.tensor(rows), self._probe)

    def _batches(self, texts: list[str]) -> Iterator[list[str]]:
        """Texts that are encoded together.

        Sums of matrix products are rounded as their shape has it, so that an
        embedding would depend on how many texts, and how long ones, are
        encoded with it: in a resumed run, whose cache is empty, others than
        before. On the CPU a text therefore is in a batch of ``ROWS`` texts of
        its own width, filled up with the last one.
        """
        on_cpu = self.device.type == 'cpu'
        widths = self._widths(texts) if on_cpu else [0] * len(texts)
        size = ROWS if on_cpu else self.batch_size
        groups: dict[int, list[str]] = {}
        for text, width in zip(texts, widths):
            groups.setdefault(width, []).append(text)
        for group in groups.values():
            for start in range(0, len(group), size):
                yield group[start:start + size]

    def _widths(self, texts: list[str]) -> list[int]:
        """Tokens that each text has in its batch, with padding."""
        return [0] * len(texts)

    @torch.no_grad()
    def _encode_frozen(self, texts: list[str]) -> Tensor:
        with self.full_speed(), torch.autocast(
                self.device.type, enabled=False):
            return F.normalize(self._encode(texts).float(), dim=-1)

    @abstractmethod
    def _encode(self, texts: list[str]) -> Tensor:
        """Encode N texts; (N, dim) of any norm."""

    @property
    def word_dim(self) -> int:
        """Width of the word vectors that :meth:`encode_words` takes."""
        return self._word_table().shape[1]

    @property
    def max_words(self) -> int:
        """Words that fit between the tokens of start and end."""
        raise self._no_words()

    def encode_words(self,
                     words: Tensor,
                     lengths: Tensor,
                     value_path: bool = False) -> Tensor:
        """Encode sequences of word vectors, with gradient to the words.

        A sequence is wrapped in the tokens of start and end and takes the
        place of a text's own word vectors (REFERENCE.md, section 3). Given
        those, the result is that of :meth:`forward`. All sequences go through
        the tower at once, in float32, also under autocast.

        Args:
            words (Tensor): Shape (B, L, word_dim). What lies beyond a
                sequence's length has no effect.
            lengths (Tensor): int64 (B,): words of each sequence, from 0 to L.
            value_path (bool): Whether the last block is without attention
                between the words, ``x + proj(value(ln_1(x)))``.

        Returns:
            Tensor: (B, dim) float32 unit vectors.

        Raises:
            TypeError: If this encoder has no word vectors.
            ValueError: If a shape is wrong or L is larger than
                :attr:`max_words`.
        """
        if words.dim() != 3 or words.shape[2] != self.word_dim:
            raise ValueError(f'words: expected shape (B, L, {self.word_dim}), '
                             f'got {tuple(words.shape)}')
        if lengths.shape != words.shape[:1]:
            raise ValueError(f'lengths: expected shape ({len(words)},), got '
                             f'{tuple(lengths.shape)}')
        if words.shape[1] > self.max_words:
            raise ValueError(
                f'words: {type(self).__name__} takes at most {self.max_words} '
                f'in a sequence, got {words.shape[1]}')
        with torch.autocast(words.device.type, enabled=False):
            words = words.float()
            if len(words) == 0:  # connected to the graph
                return words.sum((1, 2))[:, None].expand(0, self.dim)
            return F.normalize(
                self._encode_words(words, lengths, value_path), dim=-1)

    def _word_table(self) -> Tensor:
        """Vectors of the encoder's own words, (vocabulary, word_dim)."""
        raise self._no_words()

    def _encode_words(self, words: Tensor, lengths: Tensor,
                      value_path: bool) -> Tensor:
        """Word vectors (B, L, word_dim) to (B, dim) of any norm."""
        raise self._no_words()

    def _no_words(self) -> TypeError:
        return TypeError(
            f'{type(self).__name__} takes no word vectors, which bags of '
            'regions need: expected OpenCLIPTextEncoder or '
            'SentenceTextEncoder')

    def _wrap_words(self, words: Tensor, lengths: Tensor, start: int,
                    end: int) -> tuple[Tensor, Tensor]:
        """Put sequences between the tokens of start and end.

        Args:
            words (Tensor): Shape (B, L, word_dim).
            lengths (Tensor): int64 (B,).
            start (int): Index of the token of start.
            end (int): Index of the token of end.

        Returns:
            tuple[Tensor, Tensor]: Vectors (B, L + 2, word_dim), whose rows
            after the end are zero, and the positions of the ends (B,).
        """
        table = self._word_table()
        place = torch.arange(words.shape[1] + 2, device=words.device)
        ends = lengths + 1
        inside = (place > 0) & (place < ends[:, None])
        wrapped = F.pad(words, (0, 0, 1, 1)) * inside[..., None]
        is_end = (place == ends[:, None])[..., None]
        is_start = (place == 0)[:, None]
        return wrapped + is_start * table[start] + is_end * table[end], ends

    def extra_repr(self) -> str:
        return f'dim={self.dim}, cache_size={self.cache_size}'


def unknown_texts(tokenizer, texts: Sequence[str],
                  ids: Sequence[Sequence[int]]) -> list[str]:
    """The texts that a tokenizer of transformers does not know whole.

    Args:
        tokenizer: Of the transformers library.
        texts (Sequence[str]): N texts.
        ids (Sequence[Sequence[int]]): Their tokens, with those of start and
            end, padded or not.

    Returns:
        list[str]: Texts with a token for the unknown, or with no token of
        their own.
    """
    special = set(tokenizer.all_special_ids)
    unknown = tokenizer.unk_token_id
    # GPT-2's is its token of start and end.
    ends = (tokenizer.cls_token_id, tokenizer.sep_token_id,
            tokenizer.bos_token_id, tokenizer.eos_token_id,
            tokenizer.pad_token_id)
    if unknown in ends:
        unknown = None
    return [
        text for text, row in zip(texts, ids)
        if (unknown is not None and unknown in row) or set(row) <= special
    ]


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what is no sequence of texts.

    Args:
        texts (Sequence[str]): May be empty.

    Raises:
        TypeError: If ``texts`` is one string or holds something else.
        ValueError: If a text is empty.
    """
    if isinstance(texts, str):
        raise TypeError('texts must be a sequence of strings, got the string '
                        f'{texts!r}')
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f'texts[{index}] must be a string, got {text!r}')
        if not text.strip():
            raise ValueError(f'texts[{index}] is empty: a caption or a class '
                             'name must say something')

# Licensed under the Apache License, Version 2.0.
"""Images with captions and image-level tags."""
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any, cast

from mmengine.dist import get_dist_info
from mmengine.logging import print_log

from mmdet_clim.registry import DATASETS

from .columnar_files import folder_files
from .replacing import ReplacesUnreadable
from .rows import DatasetOfRows
from .source_tables import SourceTable, TableSamples, make_table
from .vocabulary import with_classes


@DATASETS.register_module()
class ImageTextDataset(DatasetOfRows, ReplacesUnreadable):
    """Images with captions, and with tags where the source has them.

    Kinds of source, told apart by the suffix of ``ann_file``:

    - ``.json``: COCO-captions, ``images: [{id, file_name, height, width,
      captions: [str], pos_category_ids: [int]}]`` with ``categories:
      [{id, name}]`` for the tags; or plain COCO, with the captions in
      ``annotations: [{image_id, caption}]``; or a list of objects as in a
      JSON line, where those of one image are joined.
    - ``.jsonl``: one object per line, ``{"file_name": "a.jpg", "captions":
      ["a dog"], "tags": ["dog"]}``, where ``"caption": "a dog"`` and
      ``"image": "a.jpg"`` serve as well, captions are a text or a list of
      texts, and ``id``, ``height``, ``width`` and ``tags`` are optional. An
      image within a shard has ``shard_path``, ``shard_offset`` and
      ``shard_size`` (bytes), here as in a ``.json``; ``tools/datasets/``
      writes such files.
    - ``.tar``: webdataset shards, uncompressed: of each key an image with
      ``key.txt`` (the caption) or ``key.json`` (an object as in a JSON
      line, without ``file_name``). ``*`` and ``?`` stand for several shards.
      Images whose text cannot be read are counted and left out. Images are
      read by offset.
    - ``.parquet``, or a folder of such files; or a folder that
      ``datasets.Dataset.save_to_disk`` wrote (Hugging Face), or one of its
      ``.arrow`` files: rows as JSON lines, where ``text`` is a caption too
      and ``image`` may be the encoded image itself, as Hugging Face's
      ``Image`` is.

    A source is read and checked when it is first met, and then is a table
    beside it, see :mod:`~mmdet_clim.datasets.source_tables`: that opens in
    milliseconds, lies in memory once for all processes of a machine, and is
    what the data set pickles as.

    A sample has ``img_path``, ``img_id`` (int), ``image_key`` (int: which
    image it is, see :func:`~mmdet_clim.datasets.source_tables.image_key`),
    ``captions`` (list[str], never empty), ``tags`` (sorted list[int],
    indices into ``metainfo['classes']``),
    ``height`` and ``width`` where the source has them, and ``shard_path``,
    ``shard_offset``, ``shard_size`` in a shard.
    No image is opened before it is drawn. One that is missing or unreadable
    is counted, reported and replaced by the next.

    Args:
        ann_file (str | Sequence[str]): The source; several of the same kind
            are read one after the other.
        vocabulary: The classes of the tags, see
            :func:`~mmdet_clim.datasets.build_vocabulary`. Instead of it,
            ``metainfo=dict(classes=...)``. Without either there are no tags.
        data_prefix (dict): ``img``, the folder of the images and shards
            that a source names (not of those that are themselves the
            source).
        filter_cfg (dict, optional): ``min_size``: samples with a known side
            shorter than this many pixels are dropped. ``tagged=True``: so
            are those without a tag of a class of ``vocabulary``, as in the
            published caption files. ``novel_tags=True``: so are those
            without a tag of a novel one.
        report_every (int): One of each this many unreadable images is
            reported, and the first.
        **kwargs: Of :class:`mmengine.dataset.BaseDataset`, but for
            ``serialize_data``: nothing is in memory.

    Raises:
        FileNotFoundError: If an ``ann_file`` does not exist.
        ValueError: If a value of the source has the wrong type, there is not
            one caption in a file, a key is missing, both ``vocabulary`` and
            ``metainfo['classes']`` are given, the kind of source is not
            known, or ``filter_cfg`` leaves nothing or asks for what it can
            not.
    """

    def __init__(self,
                 ann_file: str | Sequence[str],
                 vocabulary: Any = None,
                 metainfo: Mapping | None = None,
                 data_prefix: Mapping = dict(img=''),
                 filter_cfg: dict | None = None,
                 report_every: int = 100,
                 **kwargs) -> None:
        metainfo, words = with_classes(metainfo, vocabulary)
        wanted = dict(filter_cfg or {})
        unknown = set(wanted) - {'min_size', 'tagged', 'novel_tags'}
        if unknown:
            raise ValueError('filter_cfg: expected only min_size and '
                             'novel_tags, or tagged, got '
                             f'{sorted(unknown)}')
        for key in ('tagged', 'novel_tags'):
            if wanted.get(key) and words is None:
                raise ValueError(f'filter_cfg: {key} needs a vocabulary, got '
                                 'none')
        self._words = words
        self.ann_files = (ann_file, ) if isinstance(
            ann_file, (str, Path)) else tuple(ann_file)
        if not self.ann_files:
            raise ValueError('ann_file: expected at least one, got none')
        super().__init__(
            ann_file='',
            metainfo=metainfo,
            data_prefix=dict(data_prefix),
            filter_cfg=filter_cfg,
            report_every=report_every,
            **kwargs)

    def load_data_list(self) -> TableSamples:
        """Read every source that was not read before, and map its table.

        Returns:
            TableSamples: One sample per image that has a caption.
        """
        files = self._source_files()
        rank, ranks = get_dist_info()
        # Each rank begins with files of its own.
        first = len(files) * rank // ranks
        made = {
            path: make_table(path)
            for path in files[first:] + files[:first]
        }
        tables: list[SourceTable] = []
        for path in files:
            tables.append(
                SourceTable(path, made[path], self.data_prefix.get('img', ''),
                            sum(map(len, tables)),
                            self.metainfo.get('classes', ())))
            self._report(tables[-1])
        return TableSamples(tables)

    def _report(self, table: SourceTable) -> None:
        """Log, once, what of a source was dropped."""
        facts = table.facts
        dropped = [f'{n} {reason}' for reason, n in facts.dropped.items()]
        unknown = {
            tag: count
            for (tag, count), number in zip(facts.tags.items(), table.class_of)
            if number < 0
        }
        if unknown and self._words is not None:
            named = ', '.join(f'{name!r} ({n})'
                              for name, n in Counter(unknown).most_common(20))
            dropped.append(f'{sum(unknown.values())} tags of {len(unknown)} '
                           f'names that the vocabulary lacks: {named}')
        elif unknown:
            dropped.append(f'{sum(unknown.values())} tags, as no vocabulary '
                           'is given')
        if dropped:
            print_log(
                f"{table.source}: {facts.seen} images, dropped "
                f"{'; '.join(dropped)}",
                logger='current',
                level=logging.WARNING)

    def filter_data(self) -> TableSamples:
        """Drop samples that are too small, or lack a tag that is asked for."""
        wanted = dict(self.filter_cfg or {})
        min_size = wanted.get('min_size', 0)
        classes = None
        if wanted.get('tagged') or wanted.get('novel_tags'):
            classes = [
                not (base and wanted.get('novel_tags'))
                for base in cast(Any, self._words).is_base
            ]
        if classes is None and not min_size:
            return self.data_list
        kept = TableSamples(
            [t.filtered(min_size, classes) for t in self.data_list.tables])
        if not len(kept):
            raise ValueError(
                f'filter_cfg: expected {wanted} to leave an image of the '
                f'{len(self.data_list)} of {list(self.ann_files)}, got none')
        return kept

    def get_cat_ids(self, idx: int) -> list[int]:
        """Class indices of the tags, for MMEngine's class balancing."""
        return self.get_data_info(idx)['tags']

    def _source_files(self) -> list[str]:
        """Every source with ``data_root`` and wildcards applied."""
        files = []
        for name in self.ann_files:
            path = Path(name)
            if self.data_root and not path.is_absolute():
                path = Path(self.data_root) / path
            found = sorted(glob(str(path))) if any(
                c in str(path) for c in '*?') else [str(path)]
            if path.is_dir():
                found = folder_files(str(path))
            missing = [f for f in found if not Path(f).is_file()]
            if missing or not found:
                raise FileNotFoundError(
                    f'ann_file={str(name)!r}: no such file: {path}')
            files.extend(found)
        return files

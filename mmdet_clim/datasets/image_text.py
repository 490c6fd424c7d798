# Licensed under the Apache License, Version 2.0.
"""Images with captions and image-level tags."""
import hashlib
import logging
import tarfile
from collections import Counter
from glob import glob
from pathlib import Path, PurePosixPath
from typing import (
    Any,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from mmengine.fileio import get, join_path
from mmengine.logging import print_log

from mmdet_clim.registry import DATASETS

from .draws import DrawnSamples
from .json_checks import (
    joined_captions,
    parse_json,
    parse_object,
    typed_list,
    typed_value,
)
from .unreadable import ReplacesUnreadable
from .vocabulary import Vocabulary, build_vocabulary

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif',
                  '.tiff')

#: Where an image is within an uncompressed tar, offset and size in bytes.
SHARD_KEYS = dict(shard_path=str, shard_offset=int, shard_size=int)

#: What a .json of captions holds, for errors.
_COCO_FORM = ('"images" and '
              '"annotations": [{"image_id": 1, "caption": "a dog"}]')
_LIST_FORM = '{"file_name": "a.jpg", "caption": "a dog"}'


@DATASETS.register_module()
class ImageTextDataset(DrawnSamples, ReplacesUnreadable):
    """Images with captions, and with tags where the source has them.

    Three kinds of source, told apart by the suffix of ``ann_file``:

    - ``.json``: COCO-captions, ``images: [{id, file_name, height, width,
      captions: [str], pos_category_ids: [int]}]`` with ``categories:
      [{id, name}]`` for the tags; or plain COCO, with the captions in
      ``annotations: [{image_id, caption}]``; or a list of objects as in a
      JSON line, where those of one image are joined.
    - ``.jsonl``: one object per line, ``{"file_name": "a.jpg", "captions":
      ["a dog"], "tags": ["dog"]}``, where ``"caption": "a dog"`` and
      ``"image": "a.jpg"`` serve as well, and ``id``, ``height``, ``width``
      and ``tags`` are optional. An image within a shard has ``shard_path``,
      ``shard_offset`` and ``shard_size`` (bytes), here as in a ``.json``;
      ``tools/datasets/`` writes such files.
    - ``.tar``: webdataset shards, uncompressed: of each key an image with
      ``key.txt`` (the caption) or ``key.json`` (an object as in a JSON
      line, without ``file_name``). ``*`` and ``?`` stand for several shards.
      The tar headers are read once at start; images are read by offset.

    A sample has ``img_path``, ``img_id`` (int), ``image_key`` (int: which
    image it is, see :func:`image_key`), ``captions`` (list[str], never
    empty), ``tags`` (sorted list[int], indices into ``metainfo['classes']``),
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
            that a ``.json`` or ``.jsonl`` names (not of shards that are
            themselves the source).
        filter_cfg (dict, optional): ``min_size``: samples with a known side
            shorter than this many pixels are dropped. ``novel_tags=True``:
            so are those without a tag of a novel class of ``vocabulary``.
        report_every (int): One of each this many unreadable images is
            reported, and the first.
        **kwargs: Of :class:`mmengine.dataset.BaseDataset`.

    Raises:
        FileNotFoundError: If an ``ann_file`` does not exist.
        TypeError: If a value of the source has the wrong type.
        ValueError: If there is not one caption in a file, a key is missing,
            both ``vocabulary`` and ``metainfo['classes']`` are given, the
            kind of source is not known, or ``filter_cfg`` leaves nothing
            or asks for what it can not.
    """

    def __init__(self,
                 ann_file: Union[str, Sequence[str]],
                 vocabulary: Any = None,
                 metainfo: Optional[Mapping] = None,
                 data_prefix: Mapping = dict(img=''),
                 filter_cfg: Optional[dict] = None,
                 report_every: int = 100,
                 **kwargs) -> None:
        metainfo = dict(metainfo or {})
        if vocabulary is not None:
            if 'classes' in metainfo:
                raise ValueError("expected vocabulary or metainfo['classes'], "
                                 'got both')
            words = build_vocabulary(vocabulary)
            metainfo['base_classes'] = words.base_names
        elif 'classes' in metainfo:
            words = build_vocabulary(metainfo['classes'])
        else:
            words = None
        if words is not None:
            metainfo['classes'] = words.names
        unknown = set(filter_cfg or {}) - {'min_size', 'novel_tags'}
        if unknown:
            raise ValueError('filter_cfg: expected only min_size and '
                             f'novel_tags, got {sorted(unknown)}')
        if (filter_cfg or {}).get('novel_tags') and words is None:
            raise ValueError('filter_cfg: novel_tags needs a vocabulary, got '
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

    def load_data_list(self) -> List[dict]:
        """Read every source.

        Returns:
            list[dict]: One entry per image that has a caption.
        """
        samples: List[dict] = []
        for path in self._source_files():
            cleaner = _SampleCleaner(path, self._words)
            if path.endswith('.json'):
                raw = json_samples(path, len(samples))
            elif path.endswith('.jsonl'):
                raw = json_line_samples(path, len(samples))
            elif path.endswith('.tar'):
                raw = shard_samples(path, len(samples))
            else:
                raise ValueError(
                    f'ann_file={path!r}: expected .json (COCO captions or a '
                    'list), .jsonl (JSON lines) or .tar (a webdataset shard)')
            kept = [s for s in map(cleaner, raw) if s is not None]
            if not kept:
                raise ValueError(
                    f'ann_file={path!r}: expected at least one image with a '
                    f'caption, got none among {cleaner.seen} images')
            cleaner.report()
            prefix = self.data_prefix.get('img', '')
            for sample in kept:
                # A shard that is itself the source was found already.
                if not path.endswith('.tar'):
                    for key in {'img_path', 'shard_path'} & set(sample):
                        sample[key] = join_path(prefix, sample[key])
                sample['image_key'] = image_key(sample['img_path'])
            samples.extend(kept)
        return samples

    def filter_data(self) -> List[dict]:
        """Drop samples that are too small, or without a novel tag."""
        wanted = dict(self.filter_cfg or {})
        min_size = wanted.get('min_size', 0)
        kept = [
            s for s in self.data_list
            if min(s.get('height', min_size), s.get('width', min_size)) >=
            min_size
        ]
        if wanted.get('novel_tags'):
            is_base = self._words.is_base
            kept = [s for s in kept if not all(is_base[t] for t in s['tags'])]
        if not kept:
            raise ValueError(
                f'filter_cfg: expected {wanted} to leave an image of the '
                f'{len(self.data_list)} of {list(self.ann_files)}, got none')
        return kept

    def get_cat_ids(self, idx: int) -> List[int]:
        """Class indices of the tags, for MMEngine's class balancing."""
        return self.get_data_info(idx)['tags']

    def _source_files(self) -> List[str]:
        """Every source with ``data_root`` and wildcards applied."""
        files = []
        for name in self.ann_files:
            path = Path(name)
            if self.data_root and not path.is_absolute():
                path = Path(self.data_root) / path
            found = sorted(glob(str(path))) if any(
                c in str(path) for c in '*?') else [str(path)]
            missing = [f for f in found if not Path(f).is_file()]
            if missing or not found:
                raise FileNotFoundError(
                    f'ann_file={str(name)!r}: no such file: {path}')
            files.extend(found)
        return files


def image_key(path: str) -> int:
    """A number for an image that holds in every source of a run.

    The ids of two files both count from 1 or so, while a caption belongs to
    a region where both are of one image. The path says so: it differs
    between two images, and is the same where two sources read one image.

    Args:
        path (str): Where the image is; within a shard, the shard and the
            member.

    Returns:
        int: 63 bits of a digest of the path.
    """
    digest = hashlib.blake2b(path.encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'big') >> 1


class _SampleCleaner:
    """Checks raw samples of one file and maps tags to class indices.

    Called with a raw sample, returns the clean one, or None where it has no
    caption. Counts what it drops for :meth:`report`.
    """

    def __init__(self, path: str, words: Optional[Vocabulary]) -> None:
        self.path = path
        self.has_vocabulary = words is not None
        names = () if words is None else words.names
        self.index = {name: i for i, name in enumerate(names)}
        self.seen = 0
        self.without_caption = 0
        self.empty_captions = 0
        self.unknown_tags: Counter = Counter()

    def __call__(self, raw: Mapping) -> Optional[dict]:
        self.seen += 1
        where = f"{self.path}: {raw.get('where', f'image {self.seen}')}"
        sample = {'img_path': typed_value(raw, 'file_name', str, where)}
        if not sample['img_path']:
            raise ValueError(f"{where}: key 'file_name' is empty, expected "
                             'the path of an image')
        sample['img_id'] = typed_value(raw, 'id', int, where)
        for key in ('height', 'width'):
            if raw.get(key) is not None:
                sample[key] = typed_value(raw, key, int, where)
                if sample[key] < 1:
                    raise ValueError(f'{where}: key {key!r} is {sample[key]}, '
                                     'expected at least 1')
        captions = typed_list(raw, 'captions', str, where)
        sample['captions'] = [c.strip() for c in captions if c.strip()]
        self.empty_captions += len(captions) - len(sample['captions'])
        tags = set(typed_list(raw, 'tags', str, where))
        unknown = tags - self.index.keys()
        self.unknown_tags.update(unknown)
        sample['tags'] = sorted(self.index[t] for t in tags - unknown)
        if 'shard_path' in raw:
            for key, kind in SHARD_KEYS.items():
                sample[key] = typed_value(raw, key, kind, where)
        if not sample['captions']:
            self.without_caption += 1
            return None
        return sample

    def report(self) -> None:
        """Log, once, how much of what was dropped."""
        dropped = []
        if self.without_caption:
            dropped.append(f'{self.without_caption} of {self.seen} images, '
                           'which have no caption')
        if self.empty_captions:
            dropped.append(f'{self.empty_captions} empty captions')
        if self.unknown_tags and self.has_vocabulary:
            named = ', '.join(f'{name!r} ({n})'
                              for name, n in self.unknown_tags.most_common(20))
            dropped.append(
                f'{sum(self.unknown_tags.values())} tags of '
                f'{len(self.unknown_tags)} names that the vocabulary lacks: '
                f'{named}')
        elif self.unknown_tags:
            dropped.append(f'{sum(self.unknown_tags.values())} tags, as no '
                           'vocabulary is given')
        if dropped:
            print_log(
                f"{self.path}: dropped {'; '.join(dropped)}",
                logger='current',
                level=logging.WARNING)


def json_samples(path: str, first_id: int) -> Iterator[dict]:
    """Raw samples of a COCO-captions file or a list, tags as names."""
    content = parse_json(get(path), path)
    if isinstance(content, list):
        yield from _listed_samples(content, path, first_id)
    elif isinstance(content, dict):
        yield from _coco_samples(content, path)
    else:
        raise TypeError(
            f'{path}: expected a JSON object with {_COCO_FORM}, or a list of '
            f'{_LIST_FORM}, got {type(content).__name__}')


def _listed_samples(content: list, path: str, first_id: int) -> List[dict]:
    """Raw samples of a list of objects; those of one image are one."""
    samples: Dict[str, dict] = {}
    for number, entry in enumerate(content):
        where = f'[{number}]'
        if not isinstance(entry, dict):
            raise TypeError(f'{path}: {where} is {entry!r}, expected an '
                            f'object, {_LIST_FORM}')
        raw = _object_sample(entry, first_id + number, path, where)
        known = samples.setdefault(raw['file_name'], raw)
        if known is not raw:
            known['captions'] += raw['captions']
            if known.get('tags') is not None or raw.get('tags') is not None:
                known['tags'] = [
                    tag for sample in (known, raw) for tag in typed_list(
                        sample, 'tags', str, f"{path}: {sample['where']}")
                ]
    return list(samples.values())


def _coco_samples(content: dict, path: str) -> Iterator[dict]:
    """Raw samples of the object that a COCO-captions file is."""
    if not isinstance(content.get('images'), list):
        raise TypeError(f"{path}: key 'images' is "
                        f"{type(content.get('images')).__name__}, expected a "
                        f'list; a file of captions has {_COCO_FORM}')
    names = {}
    for category in content.get('categories') or []:
        where = f'{path}: categories'
        names[typed_value(category, 'id', int,
                          where)] = typed_value(category, 'name', str, where)
    captions: Dict[int, List[str]] = {}
    for annotation in typed_list(content, 'annotations', dict, path):
        if 'caption' in annotation:
            where = f'{path}: annotations'
            image_id = typed_value(annotation, 'image_id', int, where)
            captions.setdefault(image_id, []).append(
                typed_value(annotation, 'caption', str, where))
    listed = set()
    for number, image in enumerate(content['images']):
        where = f'images[{number}]'
        if not isinstance(image, dict):
            raise TypeError(
                f'{path}: {where} is {image!r}, expected an object')
        ids = typed_list(image, 'pos_category_ids', int, f'{path}: {where}')
        if ids and not names:
            raise ValueError(f"{path}: {where} has 'pos_category_ids', "
                             "expected top-level 'categories' that name them")
        raw = dict(image, where=where)
        raw['captions'] = joined_captions(image, f'{path}: {where}') \
            + captions.get(image.get('id'), [])
        listed.add(image.get('id'))
        # None that are given are not the same as given, and none.
        if image.get('tags') is not None or \
                image.get('pos_category_ids') is not None:
            raw['tags'] = typed_list(
                image, 'tags', str, f'{path}: {where}') + [
                    names.get(i, f'category id {i}') for i in ids
                ]
        yield raw
    for image_id in captions:
        if image_id not in listed:
            raise ValueError(
                f"{path}: annotations: key 'image_id' is {image_id}, expected "
                f"one of the {len(listed)} ids under 'images'")


def json_line_samples(path: str, first_id: int) -> Iterator[dict]:
    """Raw samples of a file with one JSON object per line."""
    with open(path, encoding='utf-8') as lines:
        for number, line in enumerate(lines):
            if not line.strip():
                continue
            where = f'line {number + 1}'
            raw = parse_object(line, f'{path}: {where}')
            yield _object_sample(raw, first_id + number, path, where)


def _object_sample(raw: dict, number: int, path: str, where: str) -> dict:
    """Raw sample of one object with ``file_name`` and ``captions``."""
    sample = dict(id=number, **raw) if 'id' not in raw else dict(raw)
    name_key = 'image' if 'file_name' not in raw and 'image' in raw else \
        'file_name'
    sample['file_name'] = typed_value(raw, name_key, str, f'{path}: {where}')
    sample['captions'] = joined_captions(raw, f'{path}: {where}')
    return dict(sample, where=where)


def shard_samples(path: str, first_id: int) -> Iterator[dict]:
    """Raw samples of a webdataset shard, images as offsets into it."""
    try:
        members = _shard_members(path)
    except tarfile.TarError as error:
        raise ValueError(f'ann_file={path!r}: expected an uncompressed tar '
                         f'({error})') from error
    with open(path, 'rb') as shard:

        def read(span: Tuple[int, int]) -> bytes:
            shard.seek(span[0])
            return shard.read(span[1])

        for number, (key, parts) in enumerate(members.items()):
            suffix = next((s for s in IMAGE_SUFFIXES if s in parts), None)
            if suffix is None:
                continue
            where = f'{path}: {key}'
            raw: dict = {}
            if '.json' in parts:
                raw = parse_object(read(parts['.json']), where)
            captions = joined_captions(raw, where)
            if '.txt' in parts and not captions:
                captions = [read(parts['.txt']).decode('utf-8', 'replace')]
            offset, size = parts[suffix]
            yield {
                'where': key,
                'file_name': f'{path}/{key}{suffix}',
                'id': first_id + number,
                'height': raw.get('height'),
                'width': raw.get('width'),
                'captions': captions,
                'tags': raw.get('tags'),
                'shard_path': path,
                'shard_offset': offset,
                'shard_size': size,
            }


def _shard_members(path: str) -> Dict[str, Dict[str, Tuple[int, int]]]:
    """Offset and size in bytes of each member, by key and suffix."""
    members: Dict[str, Dict[str, Tuple[int, int]]] = {}
    with tarfile.open(path, 'r:') as shard:
        for member in shard:
            if member.isfile():
                # webdataset: the key ends at the first dot of the file name.
                name = PurePosixPath(member.name)
                stem, dot, suffix = name.name.partition('.')
                key = str(name.parent / stem)
                members.setdefault(
                    key, {})[(dot + suffix).lower()] = (member.offset_data,
                                                        member.size)
            # tarfile would keep every header it has seen.
            shard.members = []
    return members

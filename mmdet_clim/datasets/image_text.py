# Licensed under the Apache License, Version 2.0.
"""Images with captions and image-level tags."""
import hashlib
import logging
import operator
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

from mmengine.fileio import join_path
from mmengine.logging import print_log

from mmdet_clim.registry import DATASETS

from .coco_annotations import CocoChecker
from .draws import DrawnSamples
from .json_checks import (
    as_id,
    joined_captions,
    typed_id,
    typed_list,
    typed_value,
)
from .json_files import parse_object, read_json
from .regular_files import open_regular, read_regular
from .replacing import ReplacesUnreadable
from .text_files import (
    MAX_LINE_BYTES,
    decode_text,
    is_text,
    read_lines,
    whole_characters,
)
from .vocabulary import Vocabulary, build_vocabulary

#: What files of the formats that are read end in.
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif',
                  '.tiff', '.jfif', '.jpe', '.avif')
#: The same of images whose formats are not read: they are counted.
OTHER_SUFFIXES = ('.heic', '.heif', '.jp2', '.jxl', '.svg', '.psd', '.dng',
                  '.cr2', '.nef', '.arw', '.raw', '.eps', '.pdf', '.ico',
                  '.tga', '.ppm', '.exr', '.hdr', '.dcm')

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
      Images whose text cannot be read are counted and left out. The tar
      headers are read once at start; images are read by offset.

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
            shorter than this many pixels are dropped. ``tagged=True``: so
            are those without a tag of a class of ``vocabulary``, as in the
            published caption files. ``novel_tags=True``: so are those
            without a tag of a novel one.
        report_every (int): One of each this many unreadable images is
            reported, and the first.
        **kwargs: Of :class:`mmengine.dataset.BaseDataset`.

    Raises:
        FileNotFoundError: If an ``ann_file`` does not exist.
        ValueError: If a value of the source has the wrong type, there is not
            one caption in a file, a key is missing, both ``vocabulary`` and
            ``metainfo['classes']`` are given, the kind of source is not
            known, or ``filter_cfg`` leaves nothing or asks for what it can
            not.
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
        """Drop samples that are too small, or lack a tag that is asked for."""
        wanted = dict(self.filter_cfg or {})
        min_size = wanted.get('min_size', 0)
        kept = [
            s for s in self.data_list
            if min(s.get('height', min_size), s.get('width', min_size)) >=
            min_size
        ]
        if wanted.get('tagged'):
            kept = [s for s in kept if s['tags']]
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
    data = path.encode('utf-8', 'surrogatepass')
    digest = hashlib.blake2b(data, digest_size=8).digest()
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
        self.broken_captions = 0
        self.problems: Counter = Counter()
        self.unknown_tags: Counter = Counter()

    def __call__(self, raw: Mapping) -> Optional[dict]:
        self.seen += 1
        if 'problem' in raw:
            self.problems[raw['problem']] += 1
            return None
        where = f"{self.path}: {raw.get('where', f'image {self.seen}')}"
        sample = {'img_path': typed_value(raw, 'file_name', str, where)}
        if not sample['img_path'] or not is_text(sample['img_path']):
            raise ValueError(
                f"{where}: key 'file_name' is {sample['img_path']!r}, "
                'expected the path of an image')
        sample['img_id'] = typed_id(raw, 'id', where)
        for key in ('height', 'width'):
            if raw.get(key) is not None:
                sample[key] = typed_id(raw, key, where)
                if sample[key] < 1:
                    raise ValueError(f'{where}: key {key!r} is {sample[key]}, '
                                     'expected at least 1')
        captions = typed_list(raw, 'captions', str, where)
        whole = list(map(whole_characters, captions))
        self.broken_captions += sum(map(operator.ne, whole, captions))
        sample['captions'] = [c.strip() for c in whole if c.strip()]
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
        dropped = [f'{n} {reason}' for reason, n in self.problems.items()]
        if self.without_caption:
            dropped.append(f'{self.without_caption} of {self.seen} images, '
                           'which have no caption')
        if self.empty_captions:
            dropped.append(f'{self.empty_captions} empty captions')
        if self.broken_captions:
            dropped.append('the broken characters of '
                           f'{self.broken_captions} captions')
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
    content = read_json(path)
    if isinstance(content, list):
        yield from _listed_samples(content, path, first_id)
    elif isinstance(content, dict):
        yield from _coco_samples(content, path)
    else:
        raise ValueError(
            f'{path}: expected a JSON object with {_COCO_FORM}, or a list of '
            f'{_LIST_FORM}, got {type(content).__name__}')


def _listed_samples(content: list, path: str, first_id: int) -> List[dict]:
    """Raw samples of a list of objects; those of one image are one."""
    samples: Dict[str, dict] = {}
    for number, entry in enumerate(content):
        where = f'[{number}]'
        if not isinstance(entry, dict):
            raise ValueError(f'{path}: {where} is {entry!r}, expected an '
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
        raise ValueError(f"{path}: key 'images' is "
                         f"{type(content.get('images')).__name__}, expected a "
                         f'list; a file of captions has {_COCO_FORM}')
    checker = CocoChecker(path)
    categories = typed_list(content, 'categories', dict, path)
    for number, category in enumerate(categories):
        checker.category(number, category)
    names = checker.categories
    captions: Dict[int, List[str]] = {}
    annotations = typed_list(content, 'annotations', dict, path)
    for number, annotation in enumerate(annotations):
        if 'caption' in annotation:
            where = f'{path}: annotations[{number}]'
            image_id = typed_id(annotation, 'image_id', where)
            captions.setdefault(image_id, []).append(
                typed_value(annotation, 'caption', str, where))
    listed = set()
    for number, image in enumerate(content['images']):
        where = f'images[{number}]'
        if not isinstance(image, dict):
            raise ValueError(
                f'{path}: {where} is {image!r}, expected an object')
        image_id = as_id(image.get('id'))
        if image_id is not None and image_id in listed:
            raise ValueError(f"{path}: {where}: key 'id' is {image_id}, "
                             'expected one that no other image has')
        ids = _tag_ids(image, f'{path}: {where}')
        if ids and not names:
            raise ValueError(f"{path}: {where} has 'pos_category_ids', "
                             "expected top-level 'categories' that name them")
        raw = dict(image, where=where)
        raw['captions'] = joined_captions(image, f'{path}: {where}') \
            + captions.get(image_id, [])
        listed.add(image_id)
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


def _tag_ids(image: Mapping, where: str) -> List[int]:
    """``pos_category_ids`` of an image, also those written as text."""
    ids = image.get('pos_category_ids')
    if isinstance(ids, list):
        ids = [i if as_id(i) is None else as_id(i) for i in ids]
    return typed_list(
        dict(pos_category_ids=ids), 'pos_category_ids', int, where)


def json_line_samples(path: str, first_id: int) -> Iterator[dict]:
    """Raw samples of a file with one JSON object per line."""
    for number, line in read_lines(path):
        if line.strip():
            where = f'line {number}'
            raw = parse_object(line, f'{path}: {where}')
            yield _object_sample(raw, first_id + number - 1, path, where)


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

    def read(span: Tuple[int, int]) -> bytes:
        return read_regular(path, *span, limit=MAX_LINE_BYTES)

    for number, (key, parts) in enumerate(members.items()):
        suffix = next((s for s in IMAGE_SUFFIXES if s in parts), None)
        problem = _member_problem(key, parts, suffix)
        raw: dict = {}
        captions: List[str] = []
        try:
            if '.json' in parts and not problem:
                raw = parse_object(read(parts['.json']), key)
                captions = joined_captions(raw, key)
                typed_list(raw, 'tags', str, key)
            if '.txt' in parts and not problem and not captions:
                captions = [decode_text(read(parts['.txt']), key)]
        except (OSError, ValueError):
            problem = 'images whose text or JSON cannot be read'
        if problem:
            yield {'where': key, 'problem': problem}
        elif suffix is not None:
            offset, size = parts[suffix]
            yield {
                'where': key,
                'file_name': f'{path}/{key}{suffix}',
                'id': first_id + number,
                'height': raw.get('height'),
                'width': raw.get('width'),
                'captions': captions,
                'url': raw.get('url'),
                'tags': raw.get('tags'),
                'shard_path': path,
                'shard_offset': offset,
                'shard_size': size,
            }


def _member_problem(key: str, parts: Mapping, suffix: Optional[str]) -> str:
    """Why the members of a key are no sample, '' if they may be one."""
    if not is_text(key):
        return 'images whose name is not UTF-8'
    if suffix is None:
        for other in parts:
            if other in OTHER_SUFFIXES:
                return f'images of a format that is not read ({other})'
        if '.txt' in parts:
            return 'texts without an image'
    return ''


def _shard_members(path: str) -> Dict[str, Dict[str, Tuple[int, int]]]:
    """Offset and size in bytes of each member, by key and suffix."""
    members: Dict[str, Dict[str, Tuple[int, int]]] = {}
    with open_regular(path) as file, tarfile.open(
            fileobj=file, mode='r:') as shard:
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

# Licensed under the Apache License, Version 2.0.
"""What each kind of source says of its captioned images, as it stands there.

A raw sample holds ``file_name``, ``captions``, ``id`` (its place in the source
where ``own_id`` is False) and ``where`` it stands, for errors; and what else
the source says. One that cannot be used has a ``problem`` instead.
"""
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import IO, Any, TypeVar

from .coco_annotations import CocoChecker
from .columnar_files import arrow_rows, parquet_rows
from .json_checks import (
    check_object,
    joined_captions,
    typed_id,
    typed_ids,
    typed_list,
    typed_side,
    typed_value,
    wrong_value,
)
from .json_files import parse_object, read_json
from .json_stream import JSONObject
from .regular_files import open_regular, read_regular
from .text_files import MAX_LINE_BYTES, decode_text, is_text, read_lines

T = TypeVar('T')

#: What files of the formats that are read end in.
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif',
                  '.tiff', '.jfif', '.jpe', '.avif')
#: The same of images whose formats are not read: they are counted.
OTHER_SUFFIXES = ('.heic', '.heif', '.jp2', '.jxl', '.svg', '.psd', '.dng',
                  '.cr2', '.nef', '.arw', '.raw', '.eps', '.pdf', '.ico',
                  '.tga', '.ppm', '.exr', '.hdr', '.dcm')

#: Where an image is within an uncompressed tar, offset and size in bytes.
SHARD_KEYS = dict(shard_path=str, shard_offset=int, shard_size=int)
#: What a source may tell of the size of an image, in pixels.
SIDES = ('height', 'width')

#: What a .json of captions holds, for errors.
_COCO_FORM = ('"images" and '
              '"annotations": [{"image_id": 1, "caption": "a dog"}]')
_LIST_FORM = '{"file_name": "a.jpg", "caption": "a dog"}'


def json_samples(path: str) -> Iterator[dict]:
    """Raw samples of a COCO-captions file or a list, tags as names."""
    file = JSONObject(path)
    if file.kind == 'list':
        yield from _listed_samples(file, path)
    elif file.kind == 'dict':
        yield from _coco_samples(file, path)
    else:
        # It may be no JSON at all.
        read_json(path)
        raise ValueError(
            f'{path}: expected a JSON object with {_COCO_FORM}, or a list of '
            f'{_LIST_FORM}, got {file.kind}')


def _listed_samples(file: JSONObject, path: str) -> list[dict]:
    """Raw samples of a list of objects; those of one image are one."""
    samples: dict[str, dict] = {}
    for number, entry in file.entries(''):
        where = f'[{number}]'
        check_object(entry, f'{path}: {where}', form=f', {_LIST_FORM}')
        raw = _object_sample(entry, number, path, where)
        known = samples.setdefault(raw['file_name'], raw)
        if known is not raw:
            known['captions'] += raw['captions']
            if known.get('tags') is not None or raw.get('tags') is not None:
                known['tags'] = [
                    tag for sample in (known, raw) for tag in typed_list(
                        sample, 'tags', str, f"{path}: {sample['where']}")
                ]
    return list(samples.values())


def _coco_samples(file: JSONObject, path: str) -> Iterator[dict]:
    """Raw samples of the object that a COCO-captions file is.

    Captions and names of tags come first, whatever the order of the file.
    """
    checker = CocoChecker(path)
    names = checker.categories
    captions: dict[int, list[str]] = {}
    kinds: dict[str, str] = {}
    for key, number, entry in file.members():
        if number is None:
            kinds[key] = type(entry).__name__
        elif key == 'categories':
            checker.category(number, entry)
        elif key == 'annotations':
            where = f'{path}: annotations[{number}]'
            check_object(entry, where)
            if 'caption' in entry:
                image_id = typed_id(entry, 'image_id', where)
                captions.setdefault(image_id, []).append(
                    typed_value(entry, 'caption', str, where))
    for key in ('images', 'categories', 'annotations'):
        kind = kinds.get(key, 'NoneType')
        if kind != 'list' and (key == 'images' or kind != 'NoneType'):
            raise ValueError(f'{path}: key {key!r} is {kind}, expected a '
                             f'list; a file of captions has {_COCO_FORM}')
    listed = set()
    for number, image in file.entries('images'):
        where = f'images[{number}]'
        check_object(image, f'{path}: {where}')
        own_id = typed_id(image, 'id', f'{path}: {where}')
        if own_id in listed:
            raise wrong_value(f'{path}: {where}', 'id', own_id,
                              'one that no other image has')
        listed.add(own_id)
        ids = typed_ids(image, 'pos_category_ids', f'{path}: {where}')
        if ids and not names:
            raise ValueError(f"{path}: {where} has 'pos_category_ids', "
                             "expected top-level 'categories' that name them")
        raw = dict(image, where=where, own_id=True)
        raw['captions'] = joined_captions(image, f'{path}: {where}') \
            + captions.get(own_id, [])
        # None that are given are not the same as given, and none.
        if image.get('tags') is not None or \
                image.get('pos_category_ids') is not None:
            raw['tags'] = typed_list(
                image, 'tags', str, f'{path}: {where}') + [
                    names.get(i, f'category id {i}') for i in ids
                ]
        yield raw
    for own_id in captions:
        if own_id not in listed:
            raise wrong_value(f'{path}: annotations', 'image_id', own_id,
                              f"one of the {len(listed)} ids under 'images'")


def json_line_samples(path: str) -> Iterator[dict]:
    """Raw samples of a file with one JSON object per line."""
    for number, line in read_lines(path):
        if line.strip():
            where = f'line {number}'
            raw = parse_object(line, f'{path}: {where}')
            yield _object_sample(raw, number - 1, path, where)


def _object_sample(raw: dict, number: int, path: str, where: str) -> dict:
    """Raw sample of one object with ``file_name`` and ``captions``."""
    name_key = 'image' if 'file_name' not in raw and 'image' in raw else \
        'file_name'
    return {
        'id': number,
        **raw, 'own_id': 'id' in raw,
        'file_name': typed_value(raw, name_key, str, f'{path}: {where}'),
        'captions': joined_captions(raw, f'{path}: {where}'),
        'where': where
    }


def column_samples(path: str) -> Iterator[dict]:
    """Raw samples of a Parquet file, or of an ``.arrow`` of Hugging Face."""
    rows = arrow_rows(path) if path.endswith('.arrow') else parquet_rows(path)
    for number, raw in enumerate(rows):
        yield _object_sample(raw, number, path, f'row {number}')


def shard_samples(path: str) -> Iterator[dict]:
    """Raw samples of a webdataset shard, images as offsets into it.

    ``file_name`` is the name within the shard, and ``shard_path`` empty.
    """
    try:
        members = _shard_members(path)
    except tarfile.TarError as error:
        raise ValueError(f'ann_file={path!r}: expected an uncompressed tar '
                         f'({error})') from error

    def read(span: tuple[int, int]) -> bytes:
        return read_regular(path, *span, limit=MAX_LINE_BYTES)

    for number, (key, parts) in enumerate(members.items()):
        raw = member_sample(key, parts, read)
        if raw is None:
            continue
        if 'problem' not in raw:
            offset, size = raw.pop('image')
            raw.update(
                id=number, shard_path='', shard_offset=offset, shard_size=size)
        yield raw


def member_sample(key: str, parts: Mapping[str, T],
                  read: Callable[[T], bytes]) -> dict | None:
    """Raw sample of the members of a shard that have one key.

    Args:
        parts (Mapping[str, T]): By suffix, what a member is read by.
        read (Callable[[T], bytes]): Reads a member.

    Returns:
        dict, optional: With ``image``, what the image is read by, and
        without ``id``; None of members that are nothing of ours.
    """
    suffix = next((s for s in IMAGE_SUFFIXES if s in parts), None)
    problem = _member_problem(key, parts, suffix)
    raw: dict = {}
    captions: list[str] = []
    try:
        if '.json' in parts and not problem:
            raw = parse_object(read(parts['.json']), key)
            captions = joined_captions(raw, key)
            typed_list(raw, 'tags', str, key)
            for side in SIDES:
                typed_side(raw, side, key)
        if '.txt' in parts and not problem and not captions:
            captions = [decode_text(read(parts['.txt']), key)]
    except (OSError, ValueError):
        problem = 'images whose text or JSON cannot be read'
    if problem:
        return {'where': key, 'problem': problem}
    if suffix is None:
        return None
    told = {k: raw.get(k) for k in (*SIDES, 'url', 'tags')}
    return dict(
        told,
        where=key,
        file_name=f'{key}{suffix}',
        own_id=False,
        captions=captions,
        image=parts[suffix])


def member_key(name: str) -> tuple[str, str]:
    """Key and suffix of a member, as webdataset has them.

    Args:
        name (str): Its path in the shard; the key ends at the first dot of
            the file name.
    """
    path = PurePosixPath(name)
    stem, dot, suffix = path.name.partition('.')
    return str(path.parent / stem), (dot + suffix).lower()


def _member_problem(key: str, parts: Mapping, suffix: str | None) -> str:
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


def _shard_members(path: str) -> dict[str, dict[str, tuple[int, int]]]:
    """Offset and size in bytes of each member, by key and suffix."""
    members: dict[str, dict[str, tuple[int, int]]] = {}
    with open_regular(path) as file:
        for _, member, key, suffix in tar_files(file, 'r:'):
            members.setdefault(key,
                               {})[suffix] = (member.offset_data, member.size)
    return members


def tar_files(file: IO[bytes], mode: Any) -> Iterator[tuple]:
    """The files in a tar.

    Args:
        mode (str): Of ``tarfile.open``.

    Yields:
        tuple: The tar, the ``TarInfo`` of a file, its key and its suffix.
    """
    tar: Any
    with tarfile.open(fileobj=file, mode=mode) as tar:
        for member in tar:
            # tarfile would keep every header it has seen.
            tar.members = []
            if member.isfile():
                yield (tar, member, *member_key(member.name))

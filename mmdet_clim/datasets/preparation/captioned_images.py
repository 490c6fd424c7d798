# Licensed under the Apache License, Version 2.0.
"""Captioned images as they are prepared: checked, tagged, written."""
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..caption_sources import SHARD_KEYS, shard_samples
from ..coco_annotations import repeated_values
from ..images import UnreadableImageError, image_size
from ..regular_files import read_regular
from ..source_tables import image_key
from ..tags import TagFinder
from ..text_files import clean_captions, is_text
from .coco_json import write_coco
from .counts import FileCounts
from .files import whole_file

#: What a file of captioned images is called by.
SUFFIXES = ('.json', '.jsonl')
# Where an image is.
_PLACE = ('file_name', *SHARD_KEYS)
_KEYS = ('file_name', 'height', 'width', 'captions')


@dataclass
class TagClasses:
    """Classes and the words that name them in captions.

    Args:
        names (Sequence[str]): Class names.
        ids (Sequence[int]): Their category ids.
        words (Sequence[Sequence[str]]): Of each class, its name and synonyms.
        other_phrases (Sequence[str]): Of :class:`~.tags.TagFinder`.
    """

    names: Sequence[str]
    ids: Sequence[int]
    words: Sequence[Sequence[str]]
    other_phrases: Sequence[str] = ()

    def __post_init__(self) -> None:
        #: Gives sorted positions of the classes that any of some captions
        #: names. Made here once: other processes get it as it is.
        self.find = TagFinder(dict(enumerate(self.words)), self.other_phrases)

    def categories(self) -> list[dict]:
        """COCO's entries."""
        return [dict(id=i, name=n) for i, n in zip(self.ids, self.names)]


@dataclass
class Part:
    """Some captioned images in a row, and what was dropped among them.

    Args:
        samples (list[dict]): ``file_name``, ``width``, ``height``,
            ``captions`` and ``tags`` (positions of classes); ``id`` where
            the source gives one; ``shard_*`` within a shard.
        dropped (Counter): By reason.
        noted (Counter): What else a user should know, by what it is.
        example (str): The first image that was dropped, and why.
    """

    samples: list[dict] = field(default_factory=list)
    dropped: Counter = field(default_factory=Counter)
    noted: Counter = field(default_factory=Counter)
    example: str = ''

    def drop(self, reason: str, what: str) -> None:
        """Count what is left out.

        Args:
            reason (str): In the plural: 'missing images'.
        """
        self.dropped[reason] += 1
        self.example = self.example or f'{what}: {reason}'

    def add(self,
            image: bytes,
            known: Mapping,
            captions: Sequence[str],
            tags: Sequence[int],
            number: int | None = None) -> None:
        """Take in an image with captions, if it has any and is readable.

        Args:
            image (bytes): The encoded image.
            known (Mapping): ``file_name``, and where it is within a shard;
                other keys are left out.
            tags (Sequence[int]): Positions of classes.
            number (int, optional): Its id.
        """
        kept = clean_captions(captions, self.dropped)
        if not kept:
            self.drop('images without a caption', known['file_name'])
            return
        try:
            width, height = image_size(image)
        except UnreadableImageError as error:
            self.drop(f'unreadable images: {error.reason}', known['file_name'])
            return
        place = {k: known[k] for k in _PLACE if k in known}
        self.samples.append(
            dict(
                place,
                width=width,
                height=height,
                captions=kept,
                tags=list(tags),
                **({} if number is None else dict(id=number))))


def read_image(folder: Path, name: str, part: Part) -> bytes | None:
    """An encoded image of a folder.

    Args:
        part (Part): Counts one that can not be read, for which there is None.
    """
    if not is_text(name):
        part.drop('images whose name is not UTF-8', repr(name))
        return None
    try:
        return read_regular(folder / name)
    except FileNotFoundError:
        part.drop('missing images', name)
    except OSError as error:
        part.drop(f'unreadable images: {error.strerror or "no regular file"}',
                  name)
    return None


def read_shard(path: str, part: Part) -> Iterator[tuple[dict, bytes]]:
    """The images of a webdataset shard.

    Args:
        part (Part): Counts a shard that can not be read.

    Yields:
        tuple[dict, bytes]: What the shard says of an image, see
        :func:`~mmdet_clim.datasets.caption_sources.shard_samples`, named
        with the shard's name without its folder; and the encoded image.
    """
    name = Path(path).name
    try:
        if not is_text(name):
            raise ValueError('its name is not UTF-8')
        members = list(shard_samples(path))
    except (OSError, ValueError) as error:
        part.drop('unreadable shards', f'{path!r} ({error})')
        return
    for member in members:
        if 'problem' in member:
            part.drop(member['problem'], f"{name}/{member['where']}")
            continue
        file_name = f"{name}/{member['file_name']}"
        try:
            image = read_regular(path, member['shard_offset'],
                                 member['shard_size'])
        except OSError:
            part.drop('unreadable images: too long, or cut short', file_name)
            continue
        yield dict(member, file_name=file_name, shard_path=name), image


def _check_distinct(parts: Callable[[], Iterable[Part]], where: str) -> None:
    """Raise if two images have one id or one file, or only some have an id.

    Numbers are kept of them, eight bytes each, not the names.
    """
    ids, names, without_id = array('q'), array('q'), 0
    for part in parts():
        for sample in part.samples:
            names.append(image_key(sample['file_name']))
            if 'id' in sample:
                ids.append(sample['id'])
            else:
                without_id += 1
    if ids and without_id:
        raise ValueError(f"{where}: expected an 'id' of every image or of "
                         f'none, got {len(ids)} with one and {without_id} '
                         'without')
    for key, values in (('id', ids), ('file_name', names)):
        for repeated in repeated_values(values)[:1]:
            value = next(s[key] for part in parts() for s in part.samples
                         if repeated in (s.get('id'),
                                         image_key(s['file_name'])))
            raise ValueError(
                f'{where}: key {key!r} is {value!r} more than once, expected '
                'unique values')


def captioned_entries(parts: Iterable[Part],
                      classes: TagClasses | None,
                      counts: FileCounts,
                      as_ids: bool = True) -> Iterator[dict]:
    """The images as they stand in a file, counted.

    Args:
        parts (Iterable[Part]): The images.
        classes (TagClasses, optional): The classes of the tags.
        counts (FileCounts): Of tags.
        as_ids (bool): Whether tags are ``pos_category_ids``, and not names.
    """
    for part in parts:
        counts.dropped.update(part.dropped)
        counts.noted.update(part.noted)
        for sample in part.samples:
            entry = dict(id=sample.get('id', counts.totals['images'] + 1))
            entry.update((key, sample[key]) for key in _KEYS)
            counts.totals['images'] += 1
            counts.totals['captions'] += len(sample['captions'])
            if classes is not None:
                tags = sorted(sample['tags'])
                if not tags:
                    counts.totals['images without a tag'] += 1
                for tag in tags:
                    counts.add_class(classes.names[tag])
                if as_ids:
                    entry['pos_category_ids'] = sorted(classes.ids[tag]
                                                       for tag in tags)
                else:
                    entry['tags'] = [classes.names[tag] for tag in tags]
            entry.update((k, sample[k]) for k in SHARD_KEYS if k in sample)
            yield entry


def write_captioned_images(path: Path, parts: Callable[[], Iterable[Part]],
                           classes: TagClasses | None,
                           where: str) -> dict[str, Any]:
    """Write what :class:`~mmdet_clim.datasets.ImageTextDataset` reads.

    Args:
        path (Path): ``.json``: COCO's format, with ``categories`` and
            ``pos_category_ids``; ``.jsonl``: an object per line, with
            ``tags`` by name. The latter is read line by line, so it is the
            better one for millions of images.
        parts (Callable[[], Iterable[Part]]): Gives the images, each time
            that it is called.
        classes (TagClasses, optional): The classes of the tags.

    Returns:
        dict: Counts of the file.

    Raises:
        ValueError: If not one image is left, or ids are wrong.
    """
    counts = FileCounts(() if classes is None else classes.names, 'tags')
    as_ids = path.suffix == '.json'
    _check_distinct(parts, where)
    entries = captioned_entries(parts(), classes, counts, as_ids)
    if as_ids:
        categories = [] if classes is None else classes.categories()
        write_coco(path, dict(images=entries, categories=categories))
    else:
        with whole_file(path) as file:
            for entry in entries:
                file.write(json.dumps(entry) + '\n')
    if not counts.totals['images']:
        path.unlink()
        example = next((part.example for part in parts() if part.example), '')
        raise ValueError(
            f'{where}: expected at least one readable image with a caption, '
            f'got none; dropped: {dict(counts.dropped)}'
            f"{'; the first: ' if example else ''}{example}")
    return counts.as_dict()


def check_output(out: Path) -> None:
    """Raise if the file to write has a suffix that no dataset reads.

    Raises:
        ValueError: Unless it is one of ``SUFFIXES``.
    """
    if out.suffix not in SUFFIXES:
        raise ValueError(f'{out}: expected a file name that ends in one of '
                         f'{SUFFIXES}, got {out.suffix!r}')

# Licensed under the Apache License, Version 2.0.
r"""Damage annotation and caption files at random and see how each ends.

Every input ends in a result, in one with something repaired or left out, or
in an error of one line that names the file. Anything else ends this program:
another exception, a result that contradicts itself, another result from a
file that means the same. Images are damaged by another program.

    python benchmarks/fuzz_data.py --inputs 50000 --seed 0
"""
import argparse
import copy
import json
import logging
import random
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import mmdet_clim  # noqa: F401  isort: skip
import cv2
import numpy as np

from mmdet_clim.datasets import ImageTextDataset
from mmdet_clim.datasets.coco_annotations import (
    CocoChecker,
    PanopticChecker,
    check_coco,
    read_coco,
    read_detections,
)
from mmdet_clim.datasets.preparation.captioned_images import Part
from mmdet_clim.datasets.preparation.own_captions import (
    Columns,
    Entry,
    EntryWorker,
    ShardWorker,
    json_entries,
    table_entries,
)

#: How an input may end.
RESULT, COUNTED, REFUSED = 'a result', 'repaired or left out', 'refused'

_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 7, 10**30, 2**63, -2**63, 0.5, -0.0, 1e-9,
    1e300,
    float('nan'),
    float('inf'), -float('inf'), '', ' ', '1', '01', '-1', '1.0', '1e3', 'nan',
    '٣', 'cat', ' person', 'é', '\ud83d', '\0', 'a' * 300, [], {}, [[]], [1],
    [1, 2, 3, 4], ['1', 2, '3.5', 4], [1, 2, 3, 4, 5], [[1, 2], [3, 4]], {
        'a': 1
    }, {
        'size': [9, 9],
        'counts': 'X6'
    }, {
        'size': [40, 60],
        'counts': [2400]
    }, [[1, 2, 9, 2, 5, 8]], '../../x.jpg', 'http://x/y.jpg'
]
_BYTES = [
    b'"', b'""', b"'", b'\0', b'\xff', b'\xff\xfe', b'\xef\xbb\xbf', b'\r',
    b'\r\n', b'\n', b'\t', b',', b';', b'\xe9', b'\xc3\xa9', b'\xe2\x80\xa8',
    b'\\ud83d', b'\\u0000', b'NaN', b'-Infinity', b'1e999', b'[' * 50,
    b'{"a":' * 50, b'}', b']', b':', b' ', b'-', b'9' * 400, b'\xf0\x9f\x98'
]


def good_annotations(rng: random.Random) -> dict:
    """A small file that is right, every box within its image."""
    images = [
        dict(
            id=number,
            file_name=f'{number}.jpg',
            width=rng.randint(20, 200),
            height=rng.randint(20, 200))
        for number in rng.sample(range(1, 50), rng.randint(1, 3))
    ]
    categories = [
        dict(id=number, name=name) for number, name in zip(
            rng.sample(range(1, 91), 2), ('person', 'dog'))
    ]
    annotations = []
    for number in rng.sample(range(1, 99), rng.randint(1, 4)):
        image = rng.choice(images)
        x, y = rng.randint(0, 9), round(rng.uniform(0, 9), 2)
        width, height = rng.randint(1, 9), round(rng.uniform(1, 9), 2)
        annotations.append(
            dict(
                id=number,
                image_id=image['id'],
                category_id=rng.choice(categories)['id'],
                bbox=[x, y, width, height],
                area=width * height,
                iscrowd=rng.randint(0, 1)))
        if rng.random() < .3:
            annotations[-1]['segmentation'] = [[
                x, y, x + width, y, x + width, y + height
            ]]
    return dict(images=images, categories=categories, annotations=annotations)


def meaning(content: dict) -> list:
    """What a file says, whatever ids and forms it says it in."""
    files = {
        i['id']: (i['file_name'], i['width'], i['height'])
        for i in content['images']
    }
    names = {c['id']: c['name'] for c in content['categories']}
    return sorted((*files[a['image_id']], names[a['category_id']],
                   *map(float, a['bbox']), a['iscrowd'])
                  for a in content['annotations'])


def said_otherwise(content: dict, rng: random.Random) -> None:
    """Change a file's form and not its meaning."""

    def as_text(number: int) -> Any:
        forms = [number, str(number), f'{number:012d}', float(number)]
        return rng.choice(forms)

    for entry in content['images']:
        for key in ('id', 'width', 'height'):
            entry[key] = as_text(entry[key])
        entry['license'] = rng.choice(_VALUES)
    for entry in content['categories']:
        entry['id'] = as_text(entry['id'])
        entry['name'] = rng.choice(['', ' ']) + entry['name']
        entry['supercategory'] = rng.choice(_VALUES)
    for entry in content['annotations']:
        for key in ('id', 'image_id', 'category_id'):
            entry[key] = as_text(entry[key])
        entry['bbox'] = [
            str(value) if rng.random() < .2 else value
            for value in entry['bbox']
        ]
        entry['iscrowd'] = rng.choice(
            [entry['iscrowd'],
             bool(entry['iscrowd']),
             str(entry['iscrowd'])])
        if rng.random() < .3:
            entry['area'] = rng.choice([0, None, '', -1, float('nan')])
        elif rng.random() < .3:
            del entry['area']
        if not entry['iscrowd'] and rng.random() < .3:
            del entry['iscrowd']
    if rng.random() < .2:
        for entry in content['annotations']:
            del entry['id']
    for entries in content.values():
        rng.shuffle(entries)


def damage(value: Any, rng: random.Random) -> Any:
    """Put something else at a random place of a JSON value."""
    if isinstance(value, dict) and value and rng.random() < .9:
        key = rng.choice(sorted(value))
        if rng.random() < .15:
            del value[key]
        else:
            value[key] = damage(value[key], rng)
        return value
    if isinstance(value, list) and value and rng.random() < .9:
        place = rng.randrange(len(value))
        kind = rng.random()
        if kind < .1:
            del value[place]
        elif kind < .2:
            value.append(copy.deepcopy(value[place]))
        else:
            value[place] = damage(value[place], rng)
        return value
    return copy.deepcopy(rng.choice(_VALUES))


def damage_bytes(data: bytes, rng: random.Random) -> bytes:
    """Change some bytes of a file."""
    for _ in range(rng.randint(1, 3)):
        place = rng.randint(0, len(data))
        end = min(len(data), place + rng.randint(0, 20))
        kind = rng.randrange(6)
        if kind == 0:
            data = data[:place] + rng.choice(_BYTES) + data[place:]
        elif kind == 1:
            data = data[:place] + rng.choice(_BYTES) + data[end:]
        elif kind == 2:
            data = data[:place] + data[end:]
        elif kind == 3:
            data = data[:end] + data[place:]
        elif kind == 4:
            data = data[:place]
        else:
            data = data[:place] + rng.randbytes(end - place) + data[end:]
    if rng.random() < .1:
        encoding = rng.choice(['utf-16', 'utf-8-sig', 'latin-1', 'utf-16-be'])
        data = data.decode('utf-8', 'replace').encode(encoding, 'replace')
    return data


def assert_consistent(content: dict, clip: bool) -> None:
    """What every file must fulfil that was let through."""
    sizes = {i['id']: (i['width'], i['height']) for i in content['images']}
    names = [c['name'] for c in content['categories']]
    categories = {c['id'] for c in content['categories']}
    ids = [a['id'] for a in content['annotations']]
    assert len(sizes) == len(content['images']) > 0
    assert len(set(names)) == len(names) == len(categories) > 0
    assert len(set(ids)) == len(ids)
    assert all(type(i) is int for i in [*sizes, *categories, *ids])
    assert all(
        type(n) is int and n > 0 for size in sizes.values() for n in size)
    for name in [*names, *(i['file_name'] for i in content['images'])]:
        assert isinstance(name, str) and name.encode()
    for entry in content['annotations']:
        assert entry['category_id'] in categories
        x, y, width, height = entry['bbox']
        assert width > 0 < height and entry['area'] > 0
        assert type(entry['iscrowd']) is int and entry['iscrowd'] in (0, 1)
        across, down = sizes[entry['image_id']]
        assert not clip or (min(x, y) >= -.02 and x + width <= across + .021
                            and y + height <= down + .021)
        assert all(abs(value) < 1e10 for value in entry['bbox'])


class Fuzzer:
    """Makes inputs of every kind, each known again by its number.

    Args:
        folder (Path): For the files.
        seed (int): Of all inputs.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.seed = seed
        for name in ('a.jpg', 'b.jpg'):
            cv2.imwrite(str(folder / name), np.zeros((9, 12, 3), np.uint8))
        self.picture = (folder / 'a.jpg').read_bytes()
        self.kinds: dict[str, Callable[[random.Random], str]] = {
            'annotations that mean the same': self.same_annotations,
            'damaged annotations': self.annotations,
            'damaged bytes of annotations': self.annotation_bytes,
            'damaged panoptic annotations': self.panoptic,
            'damaged detections': self.detections,
            'tables that mean the same': self.same_table,
            'damaged tables': self.table,
            'damaged JSON of captions': self.captions,
            'damaged JSON lines': self.json_lines,
            'damaged texts': self.texts,
            'damaged shards': self.shard,
        }

    def run(self, number: int) -> tuple:
        """Make the input of a number; give its kind and how it ended."""
        rng = random.Random(f'{self.seed} {number}')
        kind = rng.choice(list(self.kinds))
        try:
            return kind, self.kinds[kind](rng)
        except Exception as error:
            raise AssertionError(
                f'input {number} of seed {self.seed} ({kind}): '
                f'{type(error).__name__}: {error}') from error

    def _end(self, file: str, read: Callable[[], bool]) -> str:
        """How a reading ends; an error must name the file."""
        try:
            return COUNTED if read() else RESULT
        except (ValueError, FileNotFoundError) as error:
            assert type(error) in (ValueError, FileNotFoundError), error
            assert file in str(error), f'does not name {file}: {error}'
            assert '\n' not in str(error), f'several lines: {error}'
            return REFUSED

    def _checked(self, content: Any, rng: random.Random) -> bool:
        """Check annotations in memory, and what comes out."""
        clip = rng.random() < .5
        checker = CocoChecker('x.json', clip=clip)
        assert_consistent(check_coco(content, checker), clip)
        return bool(checker.repaired or checker.dropped)

    def same_annotations(self, rng: random.Random) -> str:
        content = good_annotations(rng)
        expected = meaning(content)
        said_otherwise(content, rng)
        path = self.folder / 'same.json'
        path.write_text(json.dumps(content), rng.choice(['utf-8', 'utf-16']))
        found = read_coco(path, clip=True)
        assert meaning(found) == expected
        assert_consistent(found, True)
        return RESULT

    def annotations(self, rng: random.Random) -> str:
        content: Any = good_annotations(rng)
        if rng.random() < .3:
            said_otherwise(content, rng)
        for _ in range(rng.randint(1, 3)):
            content = damage(content, rng)
        return self._end('x.json', lambda: self._checked(content, rng))

    def annotation_bytes(self, rng: random.Random) -> str:
        text = json.dumps(good_annotations(rng)).encode()
        path = self.folder / 'bytes.json'
        path.write_bytes(damage_bytes(text, rng))

        def read() -> bool:
            assert_consistent(read_coco(path), False)
            return False

        return self._end(str(path), read)

    def panoptic(self, rng: random.Random) -> str:
        content: Any = good_annotations(rng)
        for category in content['categories']:
            category['isthing'] = rng.randint(0, 1)
        content['annotations'] = [
            dict(
                image_id=image['id'],
                file_name='a.png',
                segments_info=[
                    a for a in content['annotations']
                    if a['image_id'] == image['id']
                ]) for image in content['images']
        ]
        content = damage(content, rng)

        def read() -> bool:
            found = check_coco(content, PanopticChecker('x.json'))
            for entry in found['annotations']:
                for segment in entry['segments_info']:
                    assert min(segment['bbox'][2:]) > 0 < segment['area']
            return False

        return self._end('x.json', read)

    def detections(self, rng: random.Random) -> str:
        content: Any = [
            dict(a, score=rng.random())
            for a in good_annotations(rng)['annotations']
        ]
        content = damage(content, rng)
        path = self.folder / 'x.bbox.json'
        path.write_text(json.dumps(content))

        def read() -> bool:
            for entry in read_detections(path, categories=range(1, 99)):
                assert abs(entry['score']) < 1e10 > max(entry['bbox'])
                assert min(entry['bbox'][2:]) >= 0
            return False

        return self._end(str(path), read)

    def _part(self, part: Part) -> bool:
        """What was prepared can be written, and is not empty."""
        for sample in part.samples:
            assert sample['captions'] and all(c.strip() == c != ''
                                              for c in sample['captions'])
            assert json.dumps(sample, ensure_ascii=False).encode()
        return bool(part.dropped)

    def same_table(self, rng: random.Random) -> str:
        """Captions of any characters but those that end a cell or a line."""
        letters = 'abc é"\'\\,;☃\u2028😀'
        rows = [(rng.choice(['a.jpg', 'b.jpg']),
                 ''.join(rng.choices(letters, k=rng.randint(1, 8))))
                for _ in range(rng.randint(1, 5))]
        end = rng.choice(['\n', '\r\n'])
        if rng.random() < .5:
            path, cells = self.folder / 'same.csv', [[
                f'"{caption.replace(chr(34), chr(34) * 2)}"'
                for _, caption in rows
            ]]
            lines = [f'{n},{c}' for (n, _), c in zip(rows, cells[0])]
            head = 'file_name,caption'
        else:
            path, head = self.folder / 'same.tsv', 'file_name\tcaption'
            rows = [(n, c) for n, c in rows
                    if not (c.startswith('"') and c.endswith('"'))]
            lines = ['\t'.join(row) for row in rows]
        encoding = rng.choice(['utf-8', 'utf-8-sig', 'utf-16'])
        path.write_bytes((end.join([head, *lines]) + end).encode(encoding))
        found = [(entry.file_name, caption)
                 for entry in table_entries(path, Columns())
                 for caption in entry.captions]
        assert found == rows, (found, rows)
        return RESULT

    def table(self, rng: random.Random) -> str:
        tab = rng.choice([',', '\t'])
        path = self.folder / ('x.csv' if tab == ',' else 'x.tsv')
        text = ''.join(f'{a}{tab}{b}\n'
                       for a, b in (('file_name', 'caption'),
                                    ('a.jpg', 'a dog'), ('a.jpg', 'ein Käse'),
                                    ('b.jpg', 'two cats'), ('c.jpg', 'none')))
        path.write_bytes(damage_bytes(text.encode(), rng))
        worker = EntryWorker(None, self.folder)
        return self._end(
            str(path),
            lambda: self._part(worker(table_entries(path, Columns()))))

    def _prepared_and_trained_on(self, path: Path) -> str:
        worker = EntryWorker(None, self.folder)
        end = self._end(
            str(path), lambda: self._part(worker(json_entries(path))))
        again = self._end(str(path), lambda: self._trained_on(path))
        return end if end != RESULT else again

    def _trained_on(self, path: Path) -> bool:
        dataset = ImageTextDataset(str(path))
        for number in range(len(dataset)):
            sample = dataset.get_data_info(number)
            assert sample['captions'] and all(
                c.strip() == c != '' and c.encode()
                for c in sample['captions'])
        return False

    def captions(self, rng: random.Random) -> str:
        if rng.random() < .5:
            content: Any = [
                dict(file_name='a.jpg', caption='a dog'),
                dict(file_name='b.jpg', captions=['a', 'b'], tags=['x'])
            ]
        else:
            content = dict(
                images=[
                    dict(id=1, file_name='a.jpg', height=9, width=12),
                    dict(id=2, file_name='b.jpg', pos_category_ids=[3])
                ],
                annotations=[
                    dict(image_id=1, caption='a dog'),
                    dict(image_id=2, caption='a cat')
                ],
                categories=[dict(id=3, name='cat')])
        path = self.folder / 'x.json'
        data = json.dumps(damage(content, rng)).encode()
        path.write_bytes(
            damage_bytes(data, rng) if rng.random() < .3 else data)
        return self._prepared_and_trained_on(path)

    def json_lines(self, rng: random.Random) -> str:
        lines = [
            dict(file_name='a.jpg', caption='a dog', id=1),
            dict(image='b.jpg', captions=['a cat'], tags=['x'], id=2)
        ]
        data = '\n'.join(
            json.dumps(damage(line, rng) if rng.random() < .5 else line)
            for line in lines).encode()
        path = self.folder / 'x.jsonl'
        path.write_bytes(
            damage_bytes(data, rng) if rng.random() < .5 else data)
        return self._prepared_and_trained_on(path)

    def texts(self, rng: random.Random) -> str:
        (self.folder / 'a.txt').write_bytes(
            damage_bytes('Zwei Käse\n\n a dog \r\n'.encode(), rng))
        part = EntryWorker(None, self.folder)([Entry('a.jpg', text='a.txt')])
        return COUNTED if self._part(part) else RESULT

    def shard(self, rng: random.Random) -> str:
        data = BytesIO()
        with tarfile.open(fileobj=data, mode='w') as shard:
            for name, member in (('1.jpg', self.picture),
                                 ('1.txt', 'ein Käse'.encode()),
                                 ('2.jpg', self.picture),
                                 ('2.json',
                                  json.dumps(
                                      damage(
                                          dict(caption='a', tags=['b']),
                                          rng)).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(member)
                shard.addfile(info, BytesIO(member))
        path = self.folder / 'x.tar'
        data = data.getvalue()
        if rng.random() < .7:
            # Most of a tar is padding: damage a header or what follows it.
            start = 512 * rng.randrange(len(data) // 512)
            data = data[:start] + damage_bytes(data[start:start + 300],
                                               rng) + data[start + 300:]
        path.write_bytes(data)
        part = ShardWorker(None)(str(path))
        end = COUNTED if self._part(part) else RESULT
        again = self._end(str(path), lambda: self._trained_on(path))
        return end if again == RESULT else again


def fuzz(inputs: int, seed: int, first: int = 0) -> Counter:
    """Run inputs in this process.

    Args:
        inputs (int): How many.
        seed (int): Of all of them.
        first (int): Number of the first, to see one again.

    Returns:
        Counter: How many of each kind ended how.

    Raises:
        AssertionError: At the first that ends otherwise; it names the number.
    """
    ends: Counter = Counter()
    logging.disable(logging.CRITICAL)
    try:
        with tempfile.TemporaryDirectory() as folder:
            fuzzer = Fuzzer(Path(folder), seed)
            for number in range(first, first + inputs):
                ends[fuzzer.run(number)] += 1
    finally:
        logging.disable(logging.NOTSET)
    return ends


def main() -> None:
    """Run them and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--inputs', type=int, default=50_000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--first', type=int, default=0, help='number of the first input')
    args = parser.parse_args()
    start = time.process_time()
    ends = fuzz(args.inputs, args.seed, args.first)
    columns = RESULT, COUNTED, REFUSED
    print('| kind | ' + ' | '.join(columns) + ' |')
    print('|---' * (len(columns) + 1) + '|')
    for kind in dict.fromkeys(kind for kind, _ in sorted(ends)):
        cells = [str(ends[kind, end]) for end in columns]
        print(f'| {kind} | ' + ' | '.join(cells) + ' |')
    print(f'\n{args.inputs} inputs of seed {args.seed}, '
          f'{time.process_time() - start:.0f} s of CPU time')


if __name__ == '__main__':
    main()

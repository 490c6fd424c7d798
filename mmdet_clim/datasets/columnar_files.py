# Licensed under the Apache License, Version 2.0.
"""Captions and images in Parquet and in the folders of Hugging Face datasets.

They are read by pyarrow as columns of data; nothing of what they name is run.
"""
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute, parquet

from .json_checks import typed_list, typed_value
from .json_files import read_json
from .made_once import made_once

_IMAGES = ('file_name', 'image', 'image_path')
_CAPTIONS = ('captions', 'caption', 'text')
_OTHERS = ('height', 'width', 'tags')
# A part of a split, as Hugging Face names it.
_SPLIT = re.compile(r'([^/\\]+)-\d{5}-of-\d{5}[^/\\]*\.parquet$')
# At a time, which hold their images in memory.
_ROWS = 512


def folder_files(folder: str) -> list[str]:
    """The files of a data set that is a folder.

    Args:
        folder (str): What ``datasets.Dataset.save_to_disk`` wrote, or a
            folder of Parquet files.

    Returns:
        list[str]: Its ``.arrow`` or ``.parquet`` files, in order.

    Raises:
        ValueError: If it is neither, or holds several splits.
    """
    state = Path(folder, 'state.json')
    if state.is_file():
        content = read_json(state)
        content = content if isinstance(content, dict) else {}
        files = typed_list(content, '_data_files', dict, str(state))
        if content.get('_indices_data_files'):
            raise ValueError(
                f'{state}: expected all rows of its files, got a selection '
                "('_indices_data_files'); save it again with "
                'flatten_indices() before')
        if not files:
            raise ValueError(f"{state}: expected files under '_data_files', "
                             'got none')
        return [
            str(Path(folder, typed_value(file, 'filename', str, str(state))))
            for file in files
        ]
    splits = sorted(p.parent.name for p in Path(folder).glob('*/state.json'))
    if splits:
        raise ValueError(f'ann_file={folder!r}: expected one split, such as '
                         f'{str(Path(folder, splits[0]))!r}, got the folder '
                         f'of {splits}')
    found = sorted(map(str, Path(folder).glob('*.parquet')))
    if not found:
        raise ValueError(
            f'ann_file={folder!r}: expected a folder of Parquet files, or one '
            'that datasets.save_to_disk wrote, got one without *.parquet and '
            'state.json')
    names = {match[1] for match in map(_SPLIT.search, found) if match}
    if len(names) > 1:
        split = str(Path(folder, sorted(names)[-1]))
        raise ValueError(f'ann_file={folder!r}: expected one split, such as '
                         f"'{split}-*.parquet', got files of {sorted(names)}")
    return found


@contextmanager
def _errors_of(path: str, kind: str) -> Iterator[None]:
    """Errors of pyarrow, with the file."""
    try:
        yield
    except pa.ArrowException as error:
        reason = str(error).partition('\n')[0]
        raise ValueError(f'ann_file={path!r}: expected {kind} ({reason})') \
            from error


def _choose(schema: pa.Schema, path: str) -> tuple[str, list[str]]:
    """The columns of the image and of what else is read."""
    twice = [
        name for name in (*_IMAGES, *_CAPTIONS, *_OTHERS, 'id')
        if schema.names.count(name) > 1
    ]
    if twice:
        raise ValueError(f'{path}: expected columns of different names, got '
                         f'{twice[0]!r} twice')
    images = [n for n in _IMAGES if n in schema.names]
    captions = [n for n in _CAPTIONS if n in schema.names]
    if not images or not captions:
        raise ValueError(
            f'{path}: expected a column of {_IMAGES} and one of {_CAPTIONS}, '
            f'got {schema.names}')
    others = [n for n in _OTHERS if n in schema.names]
    # Texts that tell rows apart are no ids of images.
    if 'id' in schema.names and pa.types.is_integer(schema.field('id').type):
        others.append('id')
    # Beside the images themselves, names are those that the files had.
    image = next((n for n in images if _holds_images(schema.field(n).type)),
                 images[0])
    return image, captions + others


def _holds_images(kind: pa.DataType) -> bool:
    """Whether values of a type are encoded images, some with their names."""
    if pa.types.is_struct(kind):
        return any(field.name == 'bytes' for field in kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _encoded(column: pa.Array) -> tuple[pa.Array | None, Any]:
    """The encoded images of a column, and their names, None of each."""
    if pa.types.is_struct(column.type):
        # Of a row that is null, its fields may be anything: flatten() says so.
        fields = dict(
            zip((field.name for field in column.type), column.flatten()))
        return fields.get('bytes'), fields.get('path')
    return (column, None) if _holds_images(column.type) else (None, column)


def _rows(batch: pa.RecordBatch, path: str, first: int,
          places: tuple[np.ndarray, np.ndarray] | None) -> Iterator[dict]:
    """The objects of some rows, as a JSON line would hold them.

    Args:
        first (int): The number of the first one.
        places (tuple[ndarray, ndarray], optional): Offset and size of each
            image that the file holds; a size of -1 for none.
    """
    image, others = _choose(batch.schema, path)
    _, names = _encoded(batch.column(image))
    named = [None] * len(batch) if names is None else names.to_pylist()
    columns = {name: batch.column(name).to_pylist() for name in others}
    offsets, sizes = [[-1] * len(batch)] * 2 if places is None else [
        part.tolist() for part in places
    ]
    for row in range(len(batch)):
        raw = {name: values[row] for name, values in columns.items()}
        if raw.get('id', 0) is None:
            del raw['id']
        raw['image' if image == 'image' else 'file_name'] = named[row]
        if sizes[row] >= 0:
            raw.update(
                file_name=str(first + row),
                shard_path='',
                shard_offset=offsets[row],
                shard_size=sizes[row])
        yield raw


def parquet_rows(path: str) -> Iterator[dict]:
    """The rows of a Parquet file, as JSON lines would hold them.

    Yields:
        dict: Where the row holds its image, with an empty ``shard_path`` and
        ``shard_offset`` and ``shard_size`` in :func:`parquet_images`.

    Raises:
        ValueError: If it is no Parquet file, or lacks a column.
    """
    first = position = 0
    with _errors_of(path, 'a Parquet file'), parquet.ParquetFile(path) as file:
        image, others = _choose(file.schema_arrow, path)
        for batch in file.iter_batches(_ROWS, columns=[image, *others]):
            data, _ = _encoded(batch.column(image))
            places = None
            if data is not None:
                lengths = compute.binary_length(data)
                sizes = compute.fill_null(
                    lengths,
                    -1).to_numpy(zero_copy_only=False).astype(np.int64)
                ends = position + sizes.clip(0).cumsum()
                places = ends - sizes.clip(0), sizes
                position = int(ends[-1])
            yield from _rows(batch, path, first, places)
            first += len(batch)


def parquet_images(path: str) -> str:
    """The images that a Parquet file holds, one after the other in a file.

    Returns:
        str: That file; it is made if there is none.
    """

    def write(out: Path) -> None:
        with open(out, 'wb') as images, _errors_of(
                path, 'a Parquet file'), parquet.ParquetFile(path) as file:
            image, _ = _choose(file.schema_arrow, path)
            for batch in file.iter_batches(_ROWS, columns=[image]):
                data, _ = _encoded(batch.column(image))
                for value in data or ():
                    if value.is_valid:
                        images.write(value.as_buffer())

    return str(made_once(path, 'images.bin', write))


def arrow_rows(path: str) -> Iterator[dict]:
    """The rows of a file of ``save_to_disk``, as JSON lines would hold them.

    Args:
        path (str): An ``.arrow`` file, in Arrow's format of a stream or of
            a file.

    Yields:
        dict: Where the row holds its image, with an empty ``shard_path`` and
        ``shard_offset`` and ``shard_size`` in the file.

    Raises:
        ValueError: If it is no such file, is compressed, or lacks a column.
    """
    first = 0
    with _errors_of(path, 'an Arrow file'), _mapped(path) as file:
        whole = file.read_buffer()
        for batch in _arrow_batches(file):
            batch.validate(full=True)
            image, _ = _choose(batch.schema, path)
            data, _ = _encoded(batch.column(image))
            places = None if data is None else _places(data, whole, path)
            yield from _rows(batch, path, first, places)
            first += len(batch)


def _mapped(path: str) -> pa.MemoryMappedFile:
    try:
        return pa.memory_map(path)
    except OSError as error:
        # An empty file cannot be mapped.
        raise pa.ArrowInvalid(str(error)) from error


def _arrow_batches(file: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    """The batches of either format."""
    file.seek(0)
    if file.read(6) == b'ARROW1':
        with pa.ipc.open_file(file) as reader:
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)
    else:
        file.seek(0)
        with pa.ipc.open_stream(file) as reader:
            yield from reader


def _places(data: pa.Array, whole: pa.Buffer,
            path: str) -> tuple[np.ndarray, np.ndarray]:
    """Offset and size in bytes of each value within the file, size -1 of none.

    Args:
        data (BinaryArray | LargeBinaryArray): Of the file, mapped.
        whole (Buffer): All of the file, mapped.
    """
    kind = np.int64 if pa.types.is_large_binary(data.type) else np.int32
    _, ends, values = data.buffers()
    if values is None or not len(data):
        start = 0
    else:
        start = values.address - whole.address
        if not 0 <= start <= whole.size:
            raise ValueError(f'ann_file={path!r}: its columns are compressed, '
                             'expected them as save_to_disk writes them')
    edges = np.frombuffer(ends, kind)[data.offset:data.offset + len(data) +
                                      1].astype(np.int64)
    sizes = np.diff(edges)
    sizes[data.is_null().to_numpy(zero_copy_only=False)] = -1
    return start + edges[:-1], sizes

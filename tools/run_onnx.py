# Licensed under the Apache License, Version 2.0.
"""Run an exported detector: needs onnxruntime and NumPy, and no PyTorch.

    python run_onnx.py model.onnx names.npz street.npy

The image is a .npy of uint8 (H, W, 3) in BGR, or an image file, which takes
OpenCV, Pillow and a copy of mmdet_clim/datasets/images.py beside this file:
the code that training and inference read images by. It prints one JSON object
per image.
"""
import argparse
import importlib.util
import json
import math
import sys
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from types import ModuleType
from zipfile import ZipFile

import numpy as np

#: Of the arrays in a file of embeddings; compressed, 4 MB can hold 4 GB.
MAX_ARRAY_BYTES = 1 << 30
#: Least score of a box of a class that has none of its own.
SCORE = 0.3


class OnnxRunner:
    """A detector exported by tools/export_onnx.py.

    Args:
        file (str or Path): The graph.
        providers (Sequence[str], optional): Of onnxruntime.
    """

    def __init__(self,
                 file: str | Path,
                 providers: Sequence[str] = ('CPUExecutionProvider', )):
        import onnxruntime
        try:
            # Its content, not its path: beside a file, onnxruntime before
            # 1.24 reads weights from wherever the graph says.
            self.session = onnxruntime.InferenceSession(
                Path(file).read_bytes(), providers=list(providers))
        # Its errors have no base class of their own.
        except Exception as error:
            raise ValueError(f'{file}: no graph that onnxruntime reads '
                             f'({str(error).splitlines()[0]})') from error
        self.inputs = {i.name: i for i in self.session.get_inputs()}
        meta = self.session.get_modelmeta().custom_metadata_map
        open_classes = 'base_names' in meta and \
            'class_embeddings' in self.inputs
        if not open_classes and 'class_names' not in meta:
            raise ValueError(f'{file}: expected a graph of '
                             'tools/export_onnx.py, got another')
        #: The classes, where they are part of the graph.
        self.class_names = None if open_classes else json.loads(
            meta['class_names'])
        self.base_names = set(json.loads(meta.get('base_names', '[]')))

    def __call__(self, image: np.ndarray, names: Sequence[str],
                 vectors: np.ndarray) -> dict[str, object]:
        """Find classes in an image.

        Args:
            image (ndarray): uint8, shape (H, W, 3), BGR.
            names (Sequence[str]): C class names.
            vectors (ndarray): Their embeddings (C, D), of any norm. If the
                graph has classes of its own, these have to be the names, and
                the embeddings are not used.

        Returns:
            dict: ``boxes`` (n, 4), absolute xyxy pixels, ``scores`` (n,),
            best first, and ``names``.

        Raises:
            ValueError: If the image or the embeddings have another form, or
                one of these has no direction.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError('image: expected uint8 (H, W, 3), got '
                             f'{image.dtype} {image.shape}')
        given = dict(image=image)
        if self.class_names is None:
            given.update(
                class_embeddings=self._unit_vectors(names, vectors),
                is_base=np.array([name in self.base_names for name in names]))
        elif list(names) != self.class_names:
            raise ValueError('names: the graph has classes of its own, '
                             f'expected {self.class_names}, got {list(names)}')
        boxes, scores, labels = self.session.run(
            ['boxes', 'scores', 'labels'],
            {key: given[key]
             for key in self.inputs})
        return dict(
            boxes=boxes,
            scores=scores,
            names=[names[label] for label in labels])

    def _unit_vectors(self, names: Sequence[str],
                      vectors: np.ndarray) -> np.ndarray:
        width = self.inputs['class_embeddings'].shape[1]
        if vectors.shape != (len(names), width) or not len(names):
            raise ValueError(
                f'vectors: expected ({len(names)}, {width}), one for each '
                f'of at least one name, got {vectors.shape}')
        vectors = np.asarray(vectors, np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(norms) & (norms > 0)).all():
            raise ValueError(
                'vectors: expected finite, non-zero vectors, got norms '
                f'from {norms.min()} to {norms.max()}')
        return vectors / norms


def read_embeddings(file: str | Path) -> tuple[Sequence[str], np.ndarray]:
    """Names and vectors of a file of tools/embeddings/embed_classes.py.

    Raises:
        ValueError: If it is no such file, or would fill the memory.
    """
    try:
        with ZipFile(file) as archive:
            missing = {'names.npy', 'vectors.npy'} - set(archive.namelist())
            if missing:
                raise ValueError(f'missing: {sorted(n[:-4] for n in missing)}')
            names, vectors = (
                _array(archive, f'{key}.npy') for key in ('names', 'vectors'))
        if names.dtype.kind != 'U' or vectors.dtype.kind not in 'fiu':
            raise ValueError(f'names are {names.dtype}, vectors '
                             f'{vectors.dtype}')
        return names.tolist(), vectors
    # zlib's, zipfile's and NumPy's own.
    except Exception as error:
        raise ValueError(f'{file}: expected a .npz of names and vectors '
                         f'({type(error).__name__}: {error})') from error


def read_thresholds(model: Path) -> dict[str, float]:
    """The least scores of classes that a fine-tuning left beside a graph.

    Args:
        model (Path): Of the graph; ``thresholds.json`` is its neighbour.

    Returns:
        dict: By class name; empty without such a file.

    Raises:
        ValueError: If the file holds something else.
    """
    file = model.with_name('thresholds.json')
    if not file.is_file():
        return {}
    try:
        chosen = json.loads(file.read_text(encoding='utf-8'))
        least = {
            name: float(of['threshold'])
            for name, of in chosen.items() if of['threshold'] is not None
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{file}: expected an object of class names, each '
                         'with a threshold '
                         f'({type(error).__name__}: {error})') from error
    for name, score in least.items():
        if not 0 <= score <= 1:
            raise ValueError(f'{file}: {name!r}: threshold is {score}, '
                             'expected a number from 0 to 1')
    return least


def _array(archive: ZipFile, name: str) -> np.ndarray:
    """A member, read when neither it nor its header says too much."""
    size = archive.getinfo(name).file_size
    if size > MAX_ARRAY_BYTES:
        raise ValueError(f'{name} of {size} bytes, expected at most '
                         f'{MAX_ARRAY_BYTES}')
    with archive.open(name) as member:
        data = BytesIO(member.read(size))
    version = np.lib.format.read_magic(data)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) \
        else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(data)
    if math.prod(shape) * dtype.itemsize > size or min(shape, default=0) < 0:
        raise ValueError(
            f'{name}: its header says {shape} {dtype}, but it has '
            f'{size} bytes')
    data.seek(0)
    return np.load(data, allow_pickle=False)


def read_image(file: Path) -> np.ndarray:
    """An image as the detector is to see it.

    Args:
        file (Path): Of the image.

    Returns:
        ndarray: uint8 (H, W, 3), BGR.

    Raises:
        FileNotFoundError: If images.py is not found.
        ValueError: If the file is no image, broken or too large.
    """
    if not file.is_file():
        raise FileNotFoundError(f'{file}: no such file')
    if file.suffix.lower() == '.npy':
        try:
            return np.load(file, mmap_mode='r', allow_pickle=False)
        except (EOFError, ValueError, OverflowError) as error:
            raise ValueError(f'{file}: expected an array ({error})') from error
    decoder = _decoder()
    if file.stat().st_size > 4 * decoder.MAX_PIXELS:
        raise ValueError(f'{file}: {file.stat().st_size} bytes, expected at '
                         f'most {4 * decoder.MAX_PIXELS}')
    try:
        image, full = decoder.decode_image(file.read_bytes())
    except ValueError as error:
        raise ValueError(f'{file}: {error}') from error
    if image.shape[:2] != full:
        raise ValueError(f'{file}: {full[1]}x{full[0]} pixels, expected at '
                         f'most {decoder.MAX_PIXELS}')
    return image


@lru_cache(maxsize=None)
def _decoder() -> ModuleType:
    """The package's images.py, without the package, which needs PyTorch."""
    here = Path(__file__).resolve()
    # Copied beside, in the repository, and installed with the package.
    places = [
        here.with_name('images.py'),
        here.parents[1] / 'mmdet_clim' / 'datasets' / 'images.py',
        here.parents[2] / 'datasets' / 'images.py'
    ]
    for place in places:
        if place.is_file():
            spec = importlib.util.spec_from_file_location('images', place)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise FileNotFoundError(
        f'{places[0]}: expected a copy of mmdet_clim/datasets/images.py, to '
        'read an image file by; a .npy needs none')


def main() -> None:
    """Print what is found."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', type=Path)
    parser.add_argument(
        'embeddings', type=Path, help='.npz of the class embeddings')
    parser.add_argument('images', type=Path, nargs='+')
    parser.add_argument(
        '--score-thr',
        type=float,
        help='minimum score of a box, for all classes (default: that of the '
        'class in thresholds.json beside the model, or 0.3)')
    args = parser.parse_args()
    if args.score_thr is not None and not 0 <= args.score_thr <= 1:
        parser.error(f'--score-thr: expected 0 to 1, got {args.score_thr}')
    for file in (args.model, args.embeddings, *args.images):
        if not file.is_file():
            parser.error(f'{file} does not exist')
    run = OnnxRunner(args.model)
    names, vectors = read_embeddings(args.embeddings)
    own = read_thresholds(args.model) if args.score_thr is None else {}
    other = SCORE if args.score_thr is None else args.score_thr
    for file in args.images:
        found = run(read_image(file), names, vectors)
        kept = found['scores'] >= np.array(
            [own.get(name, other) for name in found['names']])
        print(
            json.dumps(
                dict(
                    image=str(file),
                    boxes=found['boxes'][kept].tolist(),
                    scores=found['scores'][kept].tolist(),
                    names=[
                        name for name, is_kept in zip(found['names'], kept)
                        if is_kept
                    ])))


if __name__ == '__main__':
    try:
        main()
    except (OSError, ValueError, KeyError, ImportError) as error:
        sys.exit(f'error: {error}')

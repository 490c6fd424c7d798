# Licensed under the Apache License, Version 2.0.
"""Run an exported detector: needs onnxruntime and NumPy, and no PyTorch.

    python run_onnx.py model.onnx names.npz street.npy

The image is a .npy of uint8 (H, W, 3) in BGR, or, where Pillow is installed,
any that it reads. It prints one JSON object per image.
"""
import argparse
import json
import sys
from pathlib import Path
from typing import Dict, Sequence, Tuple, Union

import numpy as np
import onnxruntime


class OnnxRunner:
    """A detector exported by tools/export_onnx.py.

    Args:
        file (str or Path): The graph.
        providers (Sequence[str], optional): Of onnxruntime.
    """

    def __init__(self,
                 file: Union[str, Path],
                 providers: Sequence[str] = ('CPUExecutionProvider', )):
        try:
            self.session = onnxruntime.InferenceSession(
                str(file), providers=list(providers))
        # Its errors have no base class of their own.
        except Exception as error:
            raise ValueError(f'{file}: no graph that onnxruntime reads '
                             f'({str(error).splitlines()[0]})') from error
        self.inputs = {i.name: i for i in self.session.get_inputs()}
        meta = self.session.get_modelmeta().custom_metadata_map
        if 'base_names' not in meta or 'class_embeddings' not in self.inputs:
            raise ValueError(f'{file}: expected a graph of '
                             'tools/export_onnx.py, got another')
        self.base_names = set(json.loads(meta['base_names']))

    def __call__(self, image: np.ndarray, names: Sequence[str],
                 vectors: np.ndarray) -> Dict[str, object]:
        """Find classes in an image.

        Args:
            image (ndarray): uint8, shape (H, W, 3), BGR.
            names (Sequence[str]): C class names.
            vectors (ndarray): Their embeddings (C, D), of any norm.

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
        width = self.inputs['class_embeddings'].shape[1]
        if vectors.shape != (len(names), width) or not len(names):
            raise ValueError(
                f'vectors: expected ({len(names)}, {width}), one for each '
                f'of at least one name, got {vectors.shape}')
        vectors = np.asarray(vectors, np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(norms) & (norms > 0)).all():
            raise ValueError('vectors: expected finite ones other than zero, '
                             f'got norms from {norms.min()} to {norms.max()}')
        vectors = vectors / norms
        given = dict(
            image=image,
            class_embeddings=vectors,
            is_base=np.array([name in self.base_names for name in names]))
        boxes, scores, labels = self.session.run(
            ['boxes', 'scores', 'labels'],
            {key: given[key]
             for key in self.inputs})
        return dict(
            boxes=boxes,
            scores=scores,
            names=[names[label] for label in labels])


def read_embeddings(
        file: Union[str, Path]) -> Tuple[Sequence[str], np.ndarray]:
    """Names and vectors of a file of tools/embeddings/embed_classes.py."""
    with np.load(file) as arrays:
        missing = {'names', 'vectors'} - set(arrays.files)
        if missing:
            raise ValueError(f'{file}: expected the arrays names and vectors, '
                             f'lacks {sorted(missing)}')
        return arrays['names'].tolist(), arrays['vectors']


def read_image(file: Path) -> np.ndarray:
    """uint8 (H, W, 3), BGR."""
    if file.suffix == '.npy':
        return np.load(file)
    from PIL import Image, ImageOps

    # Upright, as the images of training are: cameras only note the rotation.
    image = ImageOps.exif_transpose(Image.open(file))
    return np.array(image.convert('RGB'))[..., ::-1].copy()


def main() -> None:
    """Print what is found."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', type=Path)
    parser.add_argument('embeddings', type=Path, help='.npz')
    parser.add_argument('images', type=Path, nargs='+')
    parser.add_argument('--score-thr', type=float, default=0.3)
    args = parser.parse_args()
    for file in (args.model, args.embeddings, *args.images):
        if not file.is_file():
            parser.error(f'{file} does not exist')
    run = OnnxRunner(args.model)
    names, vectors = read_embeddings(args.embeddings)
    for file in args.images:
        found = run(read_image(file), names, vectors)
        kept = found['scores'] >= args.score_thr
        print(
            json.dumps(
                dict(
                    image=str(file),
                    boxes=found['boxes'][kept].tolist(),
                    scores=found['scores'][kept].tolist(),
                    names=found['names'][:int(kept.sum())])))


if __name__ == '__main__':
    try:
        main()
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f'error: {error}')

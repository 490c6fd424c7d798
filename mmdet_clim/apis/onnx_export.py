# Licensed under the Apache License, Version 2.0.
"""A detector as an ONNX file, its classes being an input."""
import json
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Pad, Resize
from mmengine.config import Config
from torch import nn

from mmdet_clim.engine.finetuning import resize_scale
from mmdet_clim.files import atomic_path
from mmdet_clim.models.families import family_of
from mmdet_clim.registry import TRANSFORMS

from .onnx_operators import replace_boolean_where, roi_align_of_onnx


def write_onnx(detector: nn.Module,
               cfg: Config,
               file: Path,
               scale: tuple[int, int] | None = None) -> Path:
    """Write a detector as a graph, and the embeddings of its classes.

    Args:
        detector (nn.Module): Of a family that can be exported.
        cfg (Config): Its config, whose test pipeline says how an image is
            prepared.
        file (Path): Of the graph, in ``.onnx``.
        scale (tuple[int, int], optional): Sides in pixels that an image is
            resized into; those of the test pipeline if not given.

    Returns:
        Path: File of the embeddings, the same name in ``.npz``; of a graph
        of fixed classes, their names with embeddings of no numbers.

    Raises:
        TypeError: If the detector can not be exported.
        ValueError: If the test pipeline has no ``Resize`` that keeps the
            aspect ratio.
    """
    steps = {
        str(step.type).rpartition('.')[2]: step
        for step in cfg.test_dataloader.dataset.pipeline
    }
    padding, resize = (
        TRANSFORMS.build(steps[name]) if name in steps else None for name in (
            'Pad',
            'FixScaleResize' if 'FixScaleResize' in steps else 'Resize'))
    graph = export_onnx(detector, scale or resize_scale(cfg), file, padding,
                        resize)
    embeddings = file.with_suffix('.npz')
    if graph.classifiers:
        names = graph.classifiers[0].vocabulary.names
        vectors = graph.classifiers[0].class_embeddings.numpy()
    else:
        names = graph.class_names
        vectors = np.zeros((len(names), 0), np.float32)
    with atomic_path(embeddings) as beside, open(beside, 'wb') as stream:
        np.savez(stream, names=np.array(names), vectors=vectors)
    return embeddings


def export_onnx(detector: nn.Module,
                scale: tuple[int, int],
                file: Path,
                padding: Pad | None = None,
                resize: Resize | None = None) -> Any:
    """Write a detector as one ONNX graph (opset 17).

    Inputs are ``image``, uint8 (H, W, 3) in BGR of any size,
    ``class_embeddings``, float32 unit vectors (C, D) of any number of
    classes, and for :class:`FViT` ``is_base``, bool (C,). Outputs are
    ``boxes`` (n, 4), absolute xyxy pixels of the image, ``scores`` (n,) and
    ``labels`` (n,), best first. The graph of a Grounding DINO has only the
    image as its input.

    Args:
        detector (nn.Module): Of a family that can be exported.
        scale (tuple[int, int]): Sides in pixels that an image is resized
            into.
        file (Path): It never holds half of a graph.
        padding (Pad, optional): That of the test pipeline.
        resize (Resize, optional): The same, where it is not mmdet's default.

    Returns:
        nn.Module: What was traced.

    Raises:
        ImportError: If onnx is not installed.
        TypeError: If the detector can not be exported.
        ValueError: If it is not on the CPU.
    """
    # An optional package; torch's own error hides it.
    import onnx  # noqa: F401
    device = next(detector.parameters()).device
    if device.type != 'cpu':
        raise ValueError('export: expected a detector on the CPU, as '
                         f'detector.cpu() gives it, got one on {device}')

    # The exporter gives a module back its mode, and its parts with it.
    graph = family_of(detector).onnx_graph(detector, scale, padding).eval()
    if resize is not None:
        graph.prepare.resample_as(resize)
    classifiers = graph.classifiers
    if any(c.vocabulary.phrases is not None for c in classifiers):
        raise TypeError(
            'export: the classes of a graph are an input, one embedding each; '
            'expected one phrase per class, got several')
    before = [classifier.class_embeddings for classifier in classifiers]
    # An odd size, so that no dimension is taken for a constant.
    inputs = dict(image=torch.randint(256, (187, 241, 3), dtype=torch.uint8))
    if classifiers:
        inputs['class_embeddings'] = before[0].clone()
        inputs['is_base'] = torch.tensor(classifiers[0].vocabulary.is_base)
        notes = dict(base_names=json.dumps(graph.base_names))
    else:
        notes = dict(class_names=json.dumps(graph.class_names))
    axes = dict.fromkeys(inputs, {0: 'classes'})
    axes['image'] = {0: 'height', 1: 'width'}
    outputs = dict.fromkeys(('boxes', 'scores', 'labels'), {0: 'detections'})
    try:
        with atomic_path(file) as beside:
            with torch.no_grad(), roi_align_of_onnx(), _quiet():
                torch.onnx.export(
                    graph,
                    tuple(inputs.values()),
                    beside,
                    input_names=list(inputs),
                    output_names=list(outputs),
                    dynamic_axes={
                        **axes,
                        **outputs
                    },
                    opset_version=17,
                    # The exporter that takes operators of our own as symbols,
                    # and no look into their Python.
                    dynamo=False,
                    autograd_inlining=False)
            _complete(beside, notes)
    finally:
        for classifier, embeddings in zip(classifiers, before):
            classifier.class_embeddings = embeddings
    return graph


def _complete(file: Path, notes: dict[str, str]) -> None:
    """Make a graph one that onnxruntime loads, with its meta data."""
    import onnx
    graph = onnx.load(file)
    replace_boolean_where(graph)
    onnx.helper.set_model_props(graph, notes)
    onnx.save(graph, file)


@contextmanager
def _quiet():
    """Without the tracer's warnings of sizes that become constants.

    Which do is known: tests run graphs on images of other sizes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', torch.jit.TracerWarning)
        warnings.filterwarnings('ignore', module=r'torch\.onnx\.')
        yield

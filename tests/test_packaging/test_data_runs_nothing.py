# Licensed under the Apache License, Version 2.0.
"""What docs/security.md says of data, each with a file made against it.

Checkpoints and the configs in them, images, videos, names of files and the
page have tests of their own.
"""
import json
import os
import pickle
import runpy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from mmdet_clim.datasets import ImageTextDataset, build_vocabulary
from mmdet_clim.engine.published_checkpoints.reading import read_weights
from mmdet_clim.models.text_encoders.precomputed import load_vectors


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f'touch {self.trace}', )


@pytest.fixture
def trace(tmp_path):
    """A file that is there if something was run."""
    path = tmp_path / 'trace'
    yield path
    assert not path.exists()


@pytest.fixture
def write_file(tmp_path):
    """Write captions as JSON lines."""

    def write(texts):
        path = tmp_path / 'a.jsonl'
        path.write_text('\n'.join(
            json.dumps(dict(file_name=f'{n}.jpg', caption=text))
            for n, text in enumerate(texts)))
        return str(path)

    return write


def test_embeddings(tmp_path, trace):
    vectors = np.array([Runs(trace)], dtype=object)
    np.savez(tmp_path / 'a.npz', names=np.array(['cat']), vectors=vectors)
    torch.save(
        dict(names=['cat'], vectors=torch.ones(1, 2), more=Runs(trace)),
        tmp_path / 'a.pth')
    for name in ('a.npz', 'a.pth'):
        with pytest.raises((ValueError, pickle.UnpicklingError)):
            load_vectors(str(tmp_path / name))


def test_weights_of_detectron2(tmp_path, trace):
    with open(tmp_path / 'a.pkl', 'wb') as file:
        pickle.dump(dict(model=dict(a=Runs(trace))), file, protocol=2)
    with pytest.raises(pickle.UnpicklingError):
        read_weights(tmp_path / 'a.pkl')


@pytest.mark.parametrize('suffix', ['.txt', '.json', '.yaml', '.csv'])
def test_vocabularies(tmp_path, trace, suffix):
    """A YAML of tags that a full loader would follow, in any file."""
    path = tmp_path / f'names{suffix}'
    path.write_text('names: !!python/object/apply:os.system '
                    f'["touch {trace}"]\n')
    try:
        build_vocabulary(str(path))
    except ValueError as error:
        assert '\n' not in str(error)


def test_captions(tmp_path, trace, write_file):
    """A text that is code, formats or an entity is a text."""
    texts = [
        f'__import__("os").system("touch {trace}")', '{0.__class__}',
        '{{$HOME}}', '%(message)s', '<!ENTITY a SYSTEM "file:///etc/passwd">'
    ]
    dataset = ImageTextDataset(write_file(texts))
    assert [
        dataset.get_data_info(i)['captions'][0] for i in range(len(texts))
    ] == texts


def test_a_graph_of_other_operators(tmp_path, trace):
    value = helper.make_tensor_value_info
    graph = helper.make_graph([
        helper.make_node(
            'PyOp', ['x'], ['y'],
            domain='ai.onnx.contrib',
            code=f'open({str(trace)!r}, "w")')
    ], 'g', [value('x', TensorProto.FLOAT, [1])],
                              [value('y', TensorProto.FLOAT, [1])])
    onnx.save(
        helper.make_model(
            graph,
            opset_imports=[
                helper.make_opsetid('', 17),
                helper.make_opsetid('ai.onnx.contrib', 1)
            ],
            ir_version=8), tmp_path / 'a.onnx')
    with pytest.raises(Exception, match='PyOp|contrib'):
        onnxruntime.InferenceSession(str(tmp_path / 'a.onnx'))


def test_a_graph_whose_weights_lie_elsewhere(repository, tmp_path):
    """They are in the graph, or it is refused."""
    tensor = helper.make_tensor('w', TensorProto.FLOAT, [1], [1.])
    tensor.ClearField('float_data')
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (('location', '../../../../etc/passwd'), ('length', '4')):
        tensor.external_data.add(key=key, value=text)
    graph = helper.make_graph(
        [helper.make_node('Identity', ['w'], ['y'])], 'g', [],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, [1])], [tensor])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    (tmp_path / 'a.onnx').write_bytes(model.SerializeToString())
    tool = runpy.run_path(str(repository / 'tools/run_onnx.py'))
    with pytest.raises(ValueError, match='a.onnx: no graph that onnxruntime'):
        tool['OnnxRunner'](tmp_path / 'a.onnx')

# Licensed under the Apache License, Version 2.0.
"""The code in docs/ runs."""
import importlib
import json
import re
import runpy

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.hub import get_config
from mmengine.registry import Registry, init_default_scope
from mmengine.structures import InstanceData
from scipy import stats

from mmdet_clim import registry
from mmdet_clim.models.families import FAMILIES, family_of
from mmdet_clim.models.objectives import TilesAlone
from mmdet_clim.models.region_readers import (
    DenseFeatureReader,
    build_region_reader,
)
from mmdet_clim.models.text_encoders import PrecomputedTextEncoder
from mmdet_clim.registry import MODELS


def python_blocks(page):
    return re.findall(r'```python\n(.*?)```', page.read_text(), re.DOTALL)


def test_an_objective_of_your_own(repository, tmp_path):
    names = ['cat', 'a cat on a mat', 'dog']
    torch.save(dict(names=names, vectors=torch.eye(3)), tmp_path / 'texts.pth')
    encoder = PrecomputedTextEncoder(str(tmp_path / 'texts.pth'))
    module, config = python_blocks(repository / 'docs' / 'own_objective.md')
    exec(module, dict(__name__='my_objectives'))
    found = {}
    exec(config, found)
    objective = MODELS.build(found['model']['objectives']['longest'])
    sample = DetDataSample(
        metainfo=dict(
            captions=[['cat', 'a cat on a mat'], ['dog']], mosaic_grid=(1, 2)))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[0., 0, 4, 4], [4., 0, 8, 4]]))
    context = TilesAlone([sample], text_encoder=encoder)
    regions = objective.sample(context.tiles, context.stages[0])
    assert regions.members.tolist() == [[True, False], [False, True]]
    embeddings = torch.tensor([[0., 1, 0], [1., 0, 0]], requires_grad=True)
    out = objective.compare(embeddings, regions, context, True)
    # The first tile is nearest to its longer caption, the second to no text.
    assert out['recall@1'] == 50
    out['loss'].backward()
    assert embeddings.grad.isfinite().all()


def test_a_detector_of_your_own(repository):
    module, config = python_blocks(repository / 'docs' / 'own_detector.md')
    exec(module, dict(__name__='my_readers'))
    found = {}
    exec(config, found)
    init_default_scope('mmdet')
    cfg = get_config('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py').model
    cfg.backbone.init_cfg = None
    detector = MODELS.build(cfg)
    try:
        family = family_of(detector)
        assert type(build_region_reader(
            None, detector, 6)).__name__ == type(family).readers[0].__name__
        with pytest.raises(TypeError, match='no part of a graph'):
            family.onnx_graph(detector, (8, 8))
        level, = family.feature_maps(detector, torch.rand(1, 3, 128, 256))
        assert level.shape == (1, 256, 1, 2)
    finally:
        FAMILIES.remove(family)
    assert family_of(detector).readers == (DenseFeatureReader, )
    reader = build_region_reader(found['model']['region_reader'], detector, 6)
    feats = reader.extract_feat(detector, torch.rand(1, 3, 128, 256))
    assert len(reader.propose(detector, feats)[0]) == 0
    # Both halves of the one row of the coarsest map.
    rois = torch.tensor([[0., 0, 0, 128, 128], [0., 128, 0, 256, 128]])
    stage, = reader.stages(detector, feats)
    read = stage.read(rois)
    left, right = feats.levels[-1][0].flatten(1).t()
    torch.testing.assert_close(read, reader.head(torch.stack([left, right])))
    read.sum().backward()
    assert detector.neck.fpn_convs[-1].conv.weight.grad.abs().sum() > 0
    empty = stage.read(rois[:0])
    assert empty.shape == (0, 6) and empty.requires_grad
    detector.neck = None
    with pytest.raises(TypeError, match='RetinaNet has none'):
        reader.check(detector)


def test_the_reference_has_all_that_a_config_can_name(repository):
    page = (repository / 'docs' / 'api.md').read_text()
    modules = re.findall(r'automodule:: (\S+)', page)
    named = {
        name
        for module in modules
        for name in importlib.import_module(module).__all__
    }
    for kind in vars(registry).values():
        if isinstance(kind, Registry):
            kind.import_from_location()
            # Tests before this one register the examples of the pages.
            assert {
                name
                for name, part in kind.module_dict.items()
                if part.__module__.startswith('mmdet_clim.')
            } <= named


def linked_files(page):
    """What a page links to within the repository."""
    targets = re.findall(r'\]\(([^)#\s]+)', page.read_text())
    return [(page.parent / target).resolve() for target in targets
            if '://' not in target]


def test_links_lead_somewhere(repository):
    # The zoo is made with the documentation and is not in the repository.
    pages = [
        repository / 'README.md', *(page
                                    for page in repository.glob('docs/*.md')
                                    if page.name != 'model_zoo.md')
    ]
    assert [
        file for page in pages for file in linked_files(page)
        if not file.exists()
    ] == []
    from_readme = set(linked_files(pages[0]))
    # The index lists the others, as the README does.
    assert {
        page
        for page in pages[1:]
        if page.name != 'index.md' and page not in from_readme
    } == set()
    index = (repository / 'docs' / 'index.md').read_text().splitlines()
    assert {page.stem for page in pages[1:]} <= {*index, 'index'}


def test_the_readme_has_the_short_config(repository):
    """Its lines are those of the page's whole config, put shortly."""
    short, = [
        block for block in python_blocks(repository / 'README.md')
        if '_base_' in block
    ]
    whole, = python_blocks(repository / 'docs' / 'own_config.md')
    for name in ('mmdet_clim::_base_/clim/openmoji_captions_tags.py',
                 'mmdet_clim.CLIMDetector', '_base_.clim_objectives',
                 '_base_.clim_text_encoder'):
        assert name in short and name in whole


def test_the_zoo_tells_published_and_measured_apart(repository, run_tool,
                                                    tmp_path):
    page = tmp_path / 'zoo.md'
    code, log = run_tool('misc/model_zoo.py', page)
    assert code == 0, log
    rows = {
        re.match(r'\| \[([^\]]+)\]', line)[1]: line.split(' | ')[2:]
        for line in page.read_text().splitlines() if line.startswith('| [')
    }
    published, measured = rows['detic_r50-caffe-c4_45k_ov-coco_captions-tags']
    assert published == 'novel AP50 27.8, all AP50 45.0'
    assert measured.strip(' |') == ''
    published, measured = rows['faster-rcnn_r18-c4_256_captions-tags_clim']
    assert published.strip() == '' and 'novel AP50 33.6' in measured
    configs = {file.stem for file in repository.glob('configs/*/**/*.py')}
    assert set(rows) <= configs


def test_the_table_of_comparisons_is_that_of_the_logs(repository, run_tool,
                                                      tmp_path):
    docs = repository / 'docs'
    shown = (docs / 'ablation.md').read_text()
    mark = '<!-- begin of ablation_table.py -->\n'
    page = tmp_path / 'ablation.md'
    table = shown.split(mark)[1].split('<!-- end -->')[0]
    page.write_text(shown.replace(table, 'an old table\n'))
    code, log = run_tool('misc/ablation_table.py', page)
    assert code == 0, log
    assert page.read_text() == shown
    # One line, by scipy.
    values = {
        row['name']: row['novel_ap50']['values']
        for row in json.loads((docs / 'logs/demo_seeds.json').read_text())
    }
    difference = stats.ttest_rel(values['(3) + CLIM mosaics'],
                                 values['(2) + captions and tags'])
    low, high = difference.confidence_interval(.95)
    line, = [row for row in table.splitlines() if '[demo_seeds]' in row]
    assert f'[{low:+.1f}, {high:+.1f}]' in line and line.endswith('above |')
    # The last cell of one line of the summary.
    values = {
        row['name'].partition('captions-tags_')[2]: row['novel_ap50']['values']
        for row in json.loads((docs /
                               'logs/fcos_equal.json').read_text())['rows']
    }
    difference = stats.ttest_rel(values['clim_best_softmax_equal-views'],
                                 values['best_softmax, 10 whole images'])
    low, high = difference.confidence_interval(.95)
    line, = [row for row in table.splitlines() if row.startswith('| FCOS | *')]
    assert f'[{low:+.1f}, {high:+.1f}]**; +1.1 (5) |' in line.split(' | ')[-1]
    # What is missing ends neither table early.
    tool = runpy.run_path(str(repository / 'tools/misc/ablation_table.py'))
    tool['SUMMARY']['FCOS'] = [('fcos', '8', '9')]
    with pytest.raises(SystemExit, match=r"FCOS: expected \('fcos', '8', '9'"):
        tool['summary']()
    with pytest.raises(SystemExit, match=r"demo\.json: expected a row '9'"):
        tool['_row']('demo', '9')
    page.write_text('no marks')
    code, log = run_tool('misc/ablation_table.py', page)
    assert code == 1 and 'ablation.md: expected' in log

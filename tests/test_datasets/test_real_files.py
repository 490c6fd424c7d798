# Licensed under the Apache License, Version 2.0.
"""Published and users' own files, where they are beside the repository."""
import json
import shutil

import pytest

from mmdet_clim.datasets import ImageTextDataset, OVCocoDataset
from mmdet_clim.datasets.coco_annotations import (
    PanopticChecker,
    check_coco,
    read_coco,
)
from mmdet_clim.datasets.json_files import read_json
from mmdet_clim.datasets.preparation.cc3m import RowFile
from mmdet_clim.evaluation import OVCocoMetric, OVLVISMetric


@pytest.fixture(scope='module')
def real(repository):
    folder = repository.parent / 'shared' / 'real'
    if not folder.is_dir():
        pytest.skip(f'{folder} is absent')
    return folder


def test_published_files_are_left_as_they_are(real, monkeypatch):
    said = []
    monkeypatch.setattr('mmdet_clim.datasets.coco_annotations.print_log',
                        lambda text, *_: said.append(text))
    files = [
        path for folder in (real / 'published' / 'coco', real / 'photos')
        for path in sorted(folder.rglob('instances*.json'))
    ]
    assert len(files) > 3
    for path in files:
        assert read_coco(path, clip=True) == json.loads(path.read_text())
    lvis = real / 'published' / 'lvis' / 'lvis_val_100.json'
    found = read_coco(lvis, lvis=True, clip=True)
    assert found == json.loads(lvis.read_text())
    panoptic = (
        real / 'published' / 'panopticapi' / 'sample_data' /
        'panoptic_examples.json')
    content = check_coco(panoptic, PanopticChecker(str(panoptic)))
    assert content == json.loads(panoptic.read_text())
    assert not said


def test_published_files_are_evaluated(real):
    for path in sorted((real / 'published' / 'coco').rglob('inst*.json')):
        OVCocoMetric(str(path))
    OVLVISMetric(str(real / 'published' / 'lvis' / 'lvis_val_100.json'))


def test_published_captions(real):
    captions = ImageTextDataset(
        str(real / 'published' / 'coco' / 'captions_val2017.json'))
    assert len(captions) == 5000
    rows = RowFile(real / 'published' / 'cc3m_validation_head.tsv')
    found = list(rows.rows(0, rows.count))
    assert len(found) == 3000
    assert all(row.caption and '://' in row.url for row in found)


def test_the_export_of_a_labelling_service(real, tmp_path):
    """Ids from 0, a class of no box, an image without boxes."""
    folder = real / 'own' / 'chess' / 'valid'
    content = read_json(folder / '_annotations.coco.json')
    names = [category['name'] for category in content['categories']]
    dataset = OVCocoDataset(
        ann_file=str(folder / '_annotations.coco.json'),
        data_prefix=dict(img=str(folder)),
        metainfo=dict(classes=names),
        pipeline=[dict(type='mmdet.LoadImageFromFile')])
    boxes = sum(
        len(s['instances'])
        for s in map(dataset.get_data_info, range(len(dataset))))
    assert (len(dataset), boxes) == (len(content['images']),
                                     len(content['annotations']))
    assert dataset[0]['img_shape'] == (1371, 2048)
    # A copy without sizes gets them from the images.
    for image in content['images']:
        del image['width'], image['height']
        shutil.copy(folder / image['file_name'], tmp_path)
    (tmp_path / 'a.json').write_text(json.dumps(content))
    found = read_coco(tmp_path / 'a.json', images=tmp_path)
    assert {(i['width'], i['height'])
            for i in found['images']} == {(2048, 1371)}

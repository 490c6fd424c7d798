# Licensed under the Apache License, Version 2.0.
"""The commands that prepare data, on OpenMoji data in COCO's layout."""
import json
import runpy
import sys

import pytest

from mmdet_clim.datasets.openmoji import DatasetParameters, build_dataset
from mmdet_clim.datasets.preparation.ov_coco import (
    CAPTIONS,
    CAPTIONS_TAGS,
    TRAIN_BASE,
)


def read(path):
    return json.loads(path.read_text(encoding='utf-8'))


@pytest.fixture
def run(repository, monkeypatch, capsys):
    """Run a command in this process; its output."""

    def _run(name, *args):
        script = str(repository / 'tools/datasets' / f'{name}.py')
        monkeypatch.setattr(sys, 'argv', [script, *map(str, args)])
        runpy.run_path(script, run_name='__main__')
        return capsys.readouterr().out

    return _run


@pytest.fixture(scope='module')
def lvis_root(tmp_path_factory):
    root = tmp_path_factory.mktemp('lvis') / 'data'
    build_dataset(
        root,
        DatasetParameters(
            train=16, val=1, captioned=16, seed=0, size=64, vocabulary='lvis'),
        1)
    return root


def test_ov_coco(run, openmoji_root, tmp_path):
    """The generator writes the same files on its own: they must agree."""
    notes = openmoji_root / 'annotations'
    tagged = read(notes / CAPTIONS_TAGS)
    coco = tmp_path / 'annotations'
    coco.mkdir()
    for name in ('instances_train2017.json', 'instances_val2017.json'):
        (coco / name).symlink_to(notes / name)
    captions = [
        dict(id=10 * image['id'] + i, image_id=image['id'], caption=caption)
        for image in tagged['images']
        for i, caption in enumerate(image['captions'])
    ]
    (coco / CAPTIONS).write_text(
        json.dumps(dict(images=tagged['images'], annotations=captions)))
    output = run('prepare_ov_coco', tmp_path)
    assert read(coco / TRAIN_BASE) == read(notes / TRAIN_BASE)
    found = read(coco / CAPTIONS_TAGS)['images']
    assert len(found) == len(tagged['images'])
    for image, expected in zip(found, tagged['images']):
        for key in ('id', 'file_name', 'captions', 'height', 'width'):
            assert image[key] == expected[key]
        # words that photos' captions mean otherwise name nothing
        assert set(image['pos_category_ids']) <= set(
            expected['pos_category_ids'])
    assert 'base_classes: 48\nnovel_classes: 17\n' in output
    assert f'{CAPTIONS_TAGS}: {len(found)} images' in output
    assert output.endswith('made\n')
    assert run('prepare_ov_coco',
               tmp_path).endswith('already complete, nothing to do\n')
    again = json.loads(run('prepare_ov_coco', tmp_path, '--json'))
    assert again['made'] is False
    assert again['files'][CAPTIONS_TAGS]['images'] == len(found)


def test_ov_lvis_and_cc3m(run, lvis_root, tmp_path):
    notes = lvis_root / 'annotations'
    output = run('prepare_ov_lvis', notes / 'lvis_v1_train.json', '--out-dir',
                 tmp_path)
    assert read(tmp_path / 'lvis_v1_train_norare.json') == read(
        notes / 'lvis_v1_train_norare.json')
    assert (tmp_path / 'lvis_v1_train_classes.txt').read_text() == (
        notes / 'lvis_v1_classes.txt').read_text()
    # the generator counted on its own
    categories = read(notes / 'lvis_v1_train.json')['categories']
    info = read(tmp_path / 'lvis_v1_train_cat_info.json')
    assert info == categories
    assert 'classes_whose_counts_the_file_says_differently: []' in output

    tagged = read(notes / 'captions_captioned2017_tags.json')['images']
    tsv = tmp_path / 'Train_GCC-training.tsv'
    tsv.write_text(''.join(f"{image['captions'][0]}\thttp://x/{i}\n"
                           for i, image in enumerate(tagged)))
    first = tagged[0]['id']
    # the images of the web split are numbered one after the other
    folder = tmp_path / 'images'
    folder.mkdir()
    for image in tagged[1:]:
        (folder / f"{image['id'] - first}.jpg").symlink_to(
            lvis_root / 'captioned2017' / image['file_name'])
    output = run('prepare_cc3m', tsv, '--images', folder, '--categories',
                 tmp_path / 'lvis_v1_train_cat_info.json', '--out',
                 tmp_path / 'cc3m.json', '--workers', 1)
    for image, expected in zip(
            read(tmp_path / 'cc3m.json')['images'], tagged[1:]):
        assert image['captions'] == expected['captions'][:1]
        assert (image['height'], image['width']) == (expected['height'],
                                                     expected['width'])
        assert set(image['pos_category_ids']) <= set(
            expected['pos_category_ids'])
    assert f'cc3m.json: {len(tagged) - 1} images' in output
    assert '  dropped: 1 missing images\n' in output


def test_image_text(run, openmoji_root, tmp_path):
    images = read(openmoji_root / 'annotations' / CAPTIONS_TAGS)['images']
    table = tmp_path / 'mine.csv'
    table.write_text('image,text\n' + ''.join(
        f"{image['file_name']},\"{image['captions'][0]}\"\n"
        for image in images))
    (tmp_path / 'names.txt').write_text('person\ncat\n')
    (tmp_path / 'words.json').write_text('{"person": ["man", "woman"]}')
    arguments = [
        table, '--images', openmoji_root / 'train2017', '--image-column',
        'image', '--caption-column', 'text', '--vocabulary',
        tmp_path / 'names.txt', '--synonyms', tmp_path / 'words.json', '--out',
        tmp_path / 'mine.jsonl', '--workers', 1
    ]
    output = run('prepare_image_text', *arguments)
    lines = (tmp_path / 'mine.jsonl').read_text().splitlines()
    for line, image in zip(lines, images, strict=True):
        assert json.loads(line)['file_name'] == image['file_name']
        assert json.loads(line)['height'] == image['height']
    assert 'tags per class, the most: ' in output
    table.write_text('nothing')
    with pytest.raises(SystemExit, match=r'^error: .*mine.csv: line 1: '):
        run('prepare_image_text', *arguments, '--overwrite')

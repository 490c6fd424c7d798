# Licensed under the Apache License, Version 2.0.
"""The generator of OpenMoji-COCO and its command."""
import filecmp
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mmdet_clim.datasets.openmoji import (
    CaptionNoise,
    DatasetParameters,
    build_dataset,
    coco_classes,
    frequencies,
    lvis_classes,
)
from mmdet_clim.datasets.openmoji.captions import (
    plural,
    singular,
    tag_finder,
    with_article,
)
from mmdet_clim.datasets.openmoji.glyphs import (
    RENDER_SIZES,
    glyph_at,
    render_glyph,
    svg_path,
)
from mmdet_clim.datasets.openmoji.noise import noisy_captions
from mmdet_clim.datasets.openmoji.scenes import name_colour
from mmdet_clim.datasets.openmoji.splits import encode_mask, trace_mask
from mmdet_clim.datasets.ov_coco import OVCocoDataset

TOOL = Path(
    __file__).parents[2] / 'tools' / 'datasets' / 'make_openmoji_coco.py'
SMALL = DatasetParameters(train=24, val=6, captioned=10, seed=3, size=128)
SMALL_LVIS = DatasetParameters(
    train=24, val=6, captioned=10, seed=3, size=128, vocabulary='lvis')


def _run_tool(monkeypatch, *args):
    spec = importlib.util.spec_from_file_location('make_openmoji_coco', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, args)])
    tool.main()


def _read(path):
    return json.loads(path.read_text())


def _files(folder):
    return sorted(
        str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file())


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    out = tmp_path_factory.mktemp('coco') / 'data'
    assert build_dataset(out, SMALL, workers=1)
    return out


@pytest.fixture(scope='module')
def lvis(tmp_path_factory):
    out = tmp_path_factory.mktemp('lvis') / 'data'
    assert build_dataset(out, SMALL_LVIS, workers=1)
    return out


def test_every_class_and_glyph_exists():
    classes = coco_classes()
    names = tuple(cls.name for cls in classes)
    assert names == OVCocoDataset.METAINFO['classes']
    assert {c.name
            for c in classes
            if c.novel} == set(OVCocoDataset.METAINFO['novel_classes'])
    assert [c.id for c in classes] == sorted({c.id for c in classes})
    # ids of COCO's own files
    ids = {c.name: c.id for c in classes}
    assert (ids['person'], ids['cat'], ids['scissors']) == (1, 17, 87)
    assert sum(bool(c.glyphs) for c in classes) == 56
    long_tailed = lvis_classes()
    assert len(long_tailed) == len({c.name for c in long_tailed}) > 400
    for cls in classes + long_tailed:
        for glyph in cls.glyphs:
            assert svg_path(glyph.code).is_file()


def test_unknown_glyph_is_named():
    with pytest.raises(FileNotFoundError, match="'NOPE'"):
        svg_path('NOPE')


def test_glyph_is_cut_to_its_visible_part():
    glyph = coco_classes()[0].glyphs[0]
    image = render_glyph(glyph, 64)
    alpha = image[..., 3]
    for edge in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]):
        assert edge.any()
    assert max(glyph_at(glyph, 100).shape) >= 100
    # nothing larger is rendered than the largest size
    assert max(glyph_at(glyph, 9999).shape) <= RENDER_SIZES[-1]


def test_fork_and_knife_are_halves_of_one_drawing():
    glyphs = {c.name: c.glyphs for c in coco_classes()}
    fork, knife = glyphs['fork'][0], glyphs['knife'][1]
    assert fork.code == knife.code == '1F374'
    whole = render_glyph(type(fork)('1F374'), 128).shape[1]
    for glyph in (fork, knife):
        assert render_glyph(glyph, 128).shape[1] < whole / 2


@pytest.mark.parametrize(
    'parameters', [SMALL, SMALL_LVIS], ids=['coco', 'lvis'])
def test_same_files_for_any_number_of_workers(parameters, request, tmp_path):
    first = request.getfixturevalue(parameters.vocabulary)
    again = tmp_path / 'again'
    build_dataset(again, parameters, workers=2)
    assert _files(again) == _files(first)
    _, differ, errors = filecmp.cmpfiles(
        first, again, _files(first), shallow=False)
    assert not differ and not errors
    assert not list(tmp_path.glob('.*'))


def test_another_seed_gives_another_image(coco, tmp_path):
    other = DatasetParameters(train=1, val=1, captioned=0, seed=4, size=128)
    build_dataset(tmp_path / 'other', other, workers=1)
    name = 'train2017/000000000001.jpg'
    assert (tmp_path / 'other' / name).read_bytes() != (coco /
                                                        name).read_bytes()
    # no captioned scenes were asked for
    assert not (tmp_path / 'other' / 'captioned2017').exists()


def test_images_differ_from_each_other(coco):
    contents = [p.read_bytes() for p in coco.rglob('*.jpg')]
    assert len(contents) == len(set(contents)) == 24 + 6 + 10


@pytest.mark.parametrize('name', ['train2017', 'val2017'])
def test_boxes_are_the_extents_of_masks_inside_images(coco, name):
    api = COCO(str(coco / 'annotations' / f'instances_{name}.json'))
    assert api.anns
    for annotation in api.anns.values():
        image = api.imgs[annotation['image_id']]
        drawn = cv2.imread(str(coco / name / image['file_name']))
        assert drawn.shape == (image['height'], image['width'], 3)
        mask = api.annToMask(annotation)
        rows, cols = np.nonzero(mask)
        x, y, w, h = annotation['bbox']
        assert (x, y) == (cols.min(), rows.min())
        assert (x + w, y + h) == (cols.max() + 1, rows.max() + 1)
        assert 0 <= x and x + w <= image['width']
        assert 0 <= y and y + h <= image['height']
        assert annotation['area'] == mask.sum() > 0


def test_masks_of_an_image_do_not_overlap(coco):
    api = COCO(str(coco / 'annotations' / 'instances_train2017.json'))
    for image_id in api.imgs:
        masks = [
            api.annToMask(a)
            for a in api.loadAnns(api.getAnnIds(imgIds=[image_id]))
        ]
        assert 1 <= len(masks) <= 7
        assert np.sum(masks, axis=0).max() == 1


def test_novel_objects_are_seen_and_named_but_never_boxed(coco):
    notes = coco / 'annotations'
    novel = {c.id for c in coco_classes() if c.novel}
    full = _read(notes / 'instances_train2017.json')
    base = _read(notes / 'instances_train2017_base.json')
    captions = _read(notes / 'captions_train2017_tags.json')
    assert base['images'] == full['images']
    assert base['categories'] == full['categories']
    assert base['annotations'] == [
        a for a in full['annotations'] if a['category_id'] not in novel
    ]
    assert len(base['annotations']) < len(full['annotations'])
    tags = {i for im in captions['images'] for i in im['pos_category_ids']}
    assert tags & novel


@pytest.mark.parametrize('name', ['train2017', 'captioned2017'])
def test_captions_and_tags(coco, name):
    content = _read(coco / 'annotations' / f'captions_{name}_tags.json')
    assert len(content['categories']) == 65
    find_tags = tag_finder(coco_classes())
    for image in content['images']:
        assert (coco / name / image['file_name']).is_file()
        assert 1 <= len(image['captions']) <= 5
        assert all(caption.endswith('.') for caption in image['captions'])
        assert image['pos_category_ids'] == find_tags(image['captions']) != []


def test_tags_name_only_what_the_image_holds(coco):
    notes = coco / 'annotations'
    held = {}
    for a in _read(notes / 'instances_train2017.json')['annotations']:
        held.setdefault(a['image_id'], set()).add(a['category_id'])
    for image in _read(notes / 'captions_train2017_tags.json')['images']:
        assert set(image['pos_category_ids']) <= held[image['id']]


@pytest.mark.parametrize(
    'caption, names',
    [
        ('a photo of a cat.', ['cat']),
        # plurals, irregular ones too
        ('Two knives and three sheep.', ['sheep', 'knife']),
        # a synonym, and the longest name: no 'computer' without its mouse
        ('a computer mouse on a sofa.', ['couch', 'mouse']),
        # the noun of one drawing
        ('there is a poodle.', ['dog']),
        # a class name within a word is not one
        ('a category of carpets and a catalogue.', []),
        ('', []),
    ])
def test_tags_of_a_caption(caption, names):
    classes = coco_classes()
    by_id = {cls.id: cls.name for cls in classes}
    assert [by_id[i] for i in tag_finder(classes)([caption])] == names


@pytest.mark.parametrize('noun, one, many', [
    ('dog', 'a dog', 'dogs'),
    ('orange', 'an orange', 'oranges'),
    ('umbrella', 'an umbrella', 'umbrellas'),
    ('unicorn', 'a unicorn', 'unicorns'),
    ('hourglass', 'an hourglass', 'hourglasses'),
    ('toothbrush', 'a toothbrush', 'toothbrushes'),
    ('kitchen knife', 'a kitchen knife', 'kitchen knives'),
    ('scissors', 'a pair of scissors', 'pairs of scissors'),
    ('bread', 'a loaf of bread', 'loaves of bread'),
    ('spool of thread', 'a spool of thread', 'spools of thread'),
    ('puppy', 'a puppy', 'puppies'),
    ('donkey', 'a donkey', 'donkeys'),
    ('ox', 'an ox', 'oxen'),
])
def test_english(noun, one, many):
    assert with_article(singular(noun)) == one
    assert plural(noun) == many


@pytest.mark.parametrize('bgr, name', [
    ((0, 0, 255), 'red'),
    ((255, 0, 0), 'blue'),
    ((255, 255, 255), 'white'),
    ((0, 0, 0), 'black'),
])
def test_colour_names(bgr, name):
    drawing = np.full((4, 4, 4), 255, np.uint8)
    drawing[..., :3] = bgr
    assert name_colour(drawing) == name


def test_polygons_follow_pixel_edges():
    mask = np.zeros((9, 12), bool)
    mask[2:6, 3:10] = True
    polygon = np.reshape(trace_mask(mask)[0], (-1, 2))
    assert {tuple(p)
            for p in polygon.tolist()} == {(3, 2), (10, 2), (10, 6), (3, 6)}
    # a single pixel, and one that touches the border
    mask = np.zeros((5, 5), bool)
    mask[4, 4] = True
    (polygon, ) = trace_mask(mask)
    assert set(polygon) == {4, 5} and len(polygon) == 8
    assert trace_mask(np.zeros((5, 5), bool)) == []


def test_run_lengths_give_the_mask_back():
    mask = np.random.default_rng(0).random((7, 5)) > 0.5
    encoded = json.loads(json.dumps(encode_mask(mask)))
    assert np.array_equal(coco_mask.decode(encoded).astype(bool), mask)


NOISE = CaptionNoise(wrong=.2, missing=.3, partial=1)


@pytest.fixture(scope='module')
def noisy(tmp_path_factory):
    out = tmp_path_factory.mktemp('noisy') / 'data'
    build_dataset(out, replace(SMALL, caption_noise=NOISE), workers=1)
    return out


def test_noise_changes_the_captioned_scenes_captions_alone(coco, noisy):
    changed = {
        'openmoji_coco.json', '.openmoji_coco.job.json',
        'annotations/captions_captioned2017_tags.json'
    }
    same = [name for name in _files(coco) if name not in changed]
    _, differ, errors = filecmp.cmpfiles(coco, noisy, same, shallow=False)
    assert not differ and not errors
    name = 'annotations/captions_captioned2017_tags{}.json'
    assert _files(noisy) == sorted([*_files(coco), name.format('_clean')])
    assert (noisy / name.format('_clean')).read_bytes() == (
        coco / name.format('')).read_bytes()
    assert 'caption_noise' not in _read(coco / 'openmoji_coco.json')
    assert _read(noisy / 'openmoji_coco.json')['caption_noise'] == dict(
        wrong=.2, missing=.3, partial=1)


def test_noisy_captions_say_of_which_kind_they_are(noisy):
    notes = noisy / 'annotations'
    clean = _read(notes / 'captions_captioned2017_tags_clean.json')
    found = _read(notes / 'captions_captioned2017_tags.json')
    assert found['categories'] == clean['categories']
    # of ten scenes; five keep their own, some of these name two classes
    kinds = [image.get('noise') for image in found['images']]
    assert kinds.count('wrong') == 2 and kinds.count('missing') == 3
    find_tags = tag_finder(coco_classes())
    partial = 0
    for image, own in zip(found['images'], clean['images']):
        kind = image.pop('noise', None)
        tags, own_tags = image['pos_category_ids'], own['pos_category_ids']
        assert tags == find_tags(image['captions'])
        if kind is None:
            assert image == own and len(tags) == 1
        elif kind == 'missing':
            assert image['captions'] == tags == []
        elif kind == 'wrong':
            assert image['captions'] in [
                other['captions'] for other in clean['images']
                if other['id'] != image['id']
            ]
        else:
            partial += 1
            assert len(own_tags) == 2 and len(tags) == 1
            assert set(tags) < set(own_tags)
    assert partial


@pytest.mark.parametrize('noise, number', [
    (CaptionNoise(.25, 0, 0), dict(wrong=2)),
    (CaptionNoise(0, .5, 0), dict(missing=4)),
    (CaptionNoise(.5, .5, 1), dict(wrong=4, missing=4)),
    (CaptionNoise(0, 0, .5), dict(partial=2)),
    (CaptionNoise(0, 0, 0), dict()),
    (CaptionNoise(1, 0, 0), dict(wrong=8)),
])
def test_shares_of_noise(noise, number):
    own = [[f'own {i}'] for i in range(8)]
    partial = [[f'part {i}'] for i in range(8)]
    several = [True] * 4 + [False] * 4
    found = noisy_captions(
        np.random.default_rng(0), noise, own, several, partial)
    kinds = [kind for _, kind in found]
    assert {k: kinds.count(k) for k in set(kinds) - {None}} == number
    for index, (captions, kind) in enumerate(found):
        if kind == 'wrong':
            assert captions in own and captions != own[index]
        else:
            assert captions == {
                None: own,
                'missing': [[]] * 8,
                'partial': partial
            }[kind][index]
        assert kind != 'partial' or several[index]


@pytest.mark.parametrize('shares, message', [
    ((1.1, 0, 0), 'wrong: expected 0 to 1, got 1.1'),
    ((0, -.1, 0), 'missing: expected 0 to 1, got -0.1'),
    ((0, 0, 2), 'partial: expected 0 to 1, got 2'),
    ((.5, .75, 0), r'wrong \+ missing: expected 0 to 1, got 1.25'),
])
def test_shares_of_noise_out_of_range(shares, message):
    with pytest.raises(ValueError, match=message):
        CaptionNoise(*shares)


def test_noise_takes_captioned_scenes():
    message = 'captioned: expected at least 2 with caption_noise, got 1'
    with pytest.raises(ValueError, match=message):
        DatasetParameters(
            train=1, val=1, captioned=1, seed=0, caption_noise=NOISE)


def test_lvis_reads_the_long_tailed_files(lvis):
    from lvis import LVIS
    notes = lvis / 'annotations'
    api = LVIS(str(notes / 'lvis_v1_train.json'))
    assert len(api.imgs) == 24
    counts = {}
    for annotation in api.anns.values():
        counts.setdefault(annotation['category_id'],
                          set()).add(annotation['image_id'])
        image = api.imgs[annotation['image_id']]
        x, y, w, h = annotation['bbox']
        assert x + w <= image['width'] and y + h <= image['height']
        mask = api.ann_to_mask(annotation)
        assert mask[y:y + h, x:x + w].sum() == mask.sum()
        # equal but for filled holes and cut corners
        assert mask.sum() > 0.8 * annotation['area']
    for category in api.cats.values():
        assert category['image_count'] == len(counts.get(category['id'], ()))
        assert category['frequency'] in 'rcf'
        assert category['synset'] and category['synonyms']
    for image in api.imgs.values():
        shown = {a['category_id'] for a in api.img_ann_map[image['id']]}
        assert image['neg_category_ids']
        assert not shown & set(image['neg_category_ids'])
        assert image['not_exhaustive_category_ids'] == []
    names = (notes / 'lvis_v1_classes.txt').read_text().splitlines()
    assert names == [api.cats[i]['name'] for i in sorted(api.cats)]


def test_mmdet_reads_the_long_tailed_files(lvis):
    from mmdet.datasets import LVISV1Dataset
    names = tuple((lvis / 'annotations' /
                   'lvis_v1_classes.txt').read_text().splitlines())
    dataset = LVISV1Dataset(
        ann_file='annotations/lvis_v1_val.json',
        data_root=str(lvis),
        data_prefix=dict(img=''),
        metainfo=dict(classes=names),
        test_mode=True,
        pipeline=[])
    assert len(dataset) == 6
    assert Path(dataset.get_data_info(0)['img_path']).is_file()


def test_rare_classes_have_no_boxes_in_the_base_file(lvis):
    notes = lvis / 'annotations'
    full = _read(notes / 'lvis_v1_train.json')
    base = _read(notes / 'lvis_v1_train_norare.json')
    rare = {c['id'] for c in full['categories'] if c['frequency'] == 'r'}
    assert base['images'] == full['images']
    assert rare and base['annotations'] == [
        a for a in full['annotations'] if a['category_id'] not in rare
    ]
    captions = _read(notes / 'captions_captioned2017_tags.json')
    tags = {i for im in captions['images'] for i in im['pos_category_ids']}
    assert tags & rare


def test_lvis_frequencies():
    # of 4,000 images: rare up to 5, common up to 50
    assert frequencies([0, 5, 6, 50, 51], 4000) == list('rrccf')
    assert frequencies([1, 2, 10, 11], 3) == list('rccf')
    assert frequencies([], 10) == []


def test_finished_folder_is_kept(coco):
    before = (coco / 'openmoji_coco.json').stat().st_mtime_ns
    assert not build_dataset(coco, SMALL, workers=1)
    assert (coco / 'openmoji_coco.json').stat().st_mtime_ns == before


def test_other_parameters_need_overwrite(tmp_path):
    out = tmp_path / 'data'
    first = DatasetParameters(train=2, val=1, captioned=0, seed=0, size=64)
    second = DatasetParameters(train=1, val=1, captioned=0, seed=5, size=64)
    build_dataset(out, first, workers=1)
    with pytest.raises(FileExistsError, match=r'seed 0 \(wanted 5\)'):
        build_dataset(out, second, workers=1)
    assert len(list((out / 'train2017').iterdir())) == 2
    assert build_dataset(out, second, workers=1, overwrite=True)
    assert len(list((out / 'train2017').iterdir())) == 1
    assert [p.name for p in tmp_path.iterdir()] == ['data']


def test_a_lost_file_shows_and_overwriting_draws_again(tmp_path):
    out = tmp_path / 'data'
    parameters = DatasetParameters(
        train=2, val=1, captioned=0, seed=0, size=64)
    build_dataset(out, parameters, workers=1)
    # Trainings leave the tables of the captions.
    table = out / 'annotations' / '.mmdet_clim' / 'table'
    table.parent.mkdir()
    table.touch()
    assert not build_dataset(out, parameters, workers=1)
    image = next((out / 'train2017').iterdir())
    drawn = image.read_bytes()
    image.write_bytes(drawn[:-9])
    with pytest.raises(FileExistsError, match='changed since it was made'):
        build_dataset(out, parameters, workers=1)
    assert build_dataset(out, parameters, workers=1, overwrite=True)
    assert image.read_bytes() == drawn


def test_foreign_folder_is_never_overwritten(tmp_path):
    (tmp_path / 'thesis.txt').write_text('mine')
    with pytest.raises(FileExistsError, match='left alone'):
        build_dataset(tmp_path, SMALL, workers=1, overwrite=True)
    assert (tmp_path / 'thesis.txt').read_text() == 'mine'


def test_an_interrupted_run_ends_and_goes_on(tmp_path):
    """It does not draw the rest first, nor again what it has drawn."""
    out, drawn = tmp_path / 'data', []
    small = DatasetParameters(train=9, val=1, captioned=0, seed=0, size=64)

    def watch(images, total):
        assert total == 10
        for image in images:
            drawn.append(image['id'])
            if len(drawn) == 6:
                raise KeyboardInterrupt
            yield image

    with pytest.raises(KeyboardInterrupt):
        build_dataset(out, small, workers=1, watch=watch)
    assert [p.name for p in out.iterdir()] == ['.openmoji_coco.partial']
    images = out / '.openmoji_coco.partial' / 'train2017'
    before = {p.name: p.stat().st_mtime_ns for p in images.iterdir()}
    assert len(before) == 8
    assert build_dataset(out, small, workers=1)
    assert len(list((out / 'train2017').iterdir())) == 9
    assert {
        name: (out / 'train2017' / name).stat().st_mtime_ns
        for name in before
    } == before


def test_a_replaced_data_set_leaves_nothing(tmp_path):
    out = tmp_path / 'data'
    old = DatasetParameters(train=1, val=1, captioned=1, seed=0, size=64)
    build_dataset(out, old, workers=1)
    # One of before there were records is taken as it is.
    (out / '.openmoji_coco.job.json').unlink()
    assert not build_dataset(out, old, workers=1)
    new = DatasetParameters(train=1, val=1, captioned=0, seed=0, size=64)
    with pytest.raises(FileExistsError, match='train2017: is not of this'):
        build_dataset(out, new, workers=1)
    assert build_dataset(out, new, workers=1, overwrite=True)
    assert not (out / 'captioned2017').exists()


def test_licence_and_attribution_lie_beside_the_images(coco):
    assert 'OpenMoji' in (coco / 'README.txt').read_text()
    assert 'CC BY-SA 4.0' in (coco / 'README.txt').read_text()
    licence = (coco / 'OPENMOJI_LICENSE').read_text()
    assert licence.startswith('Attribution-ShareAlike 4.0 International')


@pytest.mark.parametrize('wrong, message', [
    (dict(train=0), 'train: expected 1 to 999999, got 0'),
    (dict(val=-1), 'val: .* got -1'),
    (dict(captioned=1_000_000), 'captioned: .* got 1000000'),
    (dict(seed=-1), 'seed: .* got -1'),
    (dict(size=10), 'size: .* got 10'),
    (dict(vocabulary='voc'), "vocabulary: .* got 'voc'"),
])
def test_wrong_parameters(wrong, message):
    good = dict(train=1, val=1, captioned=0, seed=0)
    with pytest.raises(ValueError, match=message):
        DatasetParameters(**{**good, **wrong})


def test_command(tmp_path, monkeypatch, capsys):
    out = tmp_path / 'data'
    args = ('--out-dir', out, '--train', 2, '--val', 1, '--seed', 1, '--size',
            64, '--workers', 1)
    _run_tool(monkeypatch, *args)
    # as many captioned scenes as training scenes
    assert len(list((out / 'captioned2017').iterdir())) == 2
    _run_tool(monkeypatch, *args)
    assert 'complete' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='val 1 .wanted 3.'):
        _run_tool(monkeypatch, '--out-dir', out, '--train', 2, '--val', 3,
                  '--seed', 1, '--size', 64)
    with pytest.raises(SystemExit, match='workers: .* got 0'):
        _run_tool(monkeypatch, '--out-dir', tmp_path / 'x', '--train', 2,
                  '--val', 3, '--seed', 1, '--workers', 0)
    with pytest.raises(SystemExit, match='caption_noise None .wanted {'):
        _run_tool(monkeypatch, *args, '--caption-noise', .5, 0, 0)

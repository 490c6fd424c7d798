# Licensed under the Apache License, Version 2.0.
"""Boxes as labelling tools export them."""
import json
import textwrap

import pytest
from PIL import Image

from mmdet_clim.datasets.box_formats import read_boxes

# Image -> its size, and its boxes (x, y, width, height).
SCENES = {
    'a.jpg': ((200, 100), [('cat', [20, 10, 100, 50]),
                           ('traffic light', [0, 0, 10, 20])]),
    'b.png': ((100, 80), [('cat', [50, 40, 50, 40])]),
    'empty.jpg': ((64, 64), []),
}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    for name, (size, _) in SCENES.items():
        Image.new('RGB', size).save(folder / name)
    return folder


def found(boxes):
    """As in SCENES."""
    names = {c['id']: c['name'] for c in boxes.content['categories']}
    scenes = {}
    for image in boxes.content['images']:
        assert (boxes.images / image['file_name']).is_file()
        scenes[image['file_name'].rpartition('/')[2]] = ((
            image['width'], image['height']), [
                (names[a['category_id']],
                 [pytest.approx(v, abs=1e-3) for v in a['bbox']])
                for a in boxes.content['annotations']
                if a['image_id'] == image['id']
            ])
    return scenes


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def yolo_labels(folder):
    write(folder / 'a.txt', '0 0.35 0.35 0.5 0.5\n1 0.025 0.1 0.05 0.2\n')
    # A polygon: its box counts.
    write(folder / 'b.txt', '0 0.5 0.5 1.0 0.5 1.0 1.0 0.7 0.9 \n')
    write(folder / 'empty.txt', '')


@pytest.mark.parametrize('content', [
    'names: [cat, traffic light]\ntrain: images\n',
    'names: {0: cat, 1: traffic light}\nnc: 2\ntrain: ../images\n',
    'path: .\nnames:\n  0: cat\n  1: traffic light\ntrain: [list.txt]\n',
])
def test_yolo(images, tmp_path, content):
    yolo_labels(tmp_path / 'labels')
    write(tmp_path / 'list.txt',
          ''.join(f'images/{name}\n' for name in SCENES))
    file = write(tmp_path / 'data.yaml', content)
    assert found(read_boxes(file)) == SCENES
    # The folder, and images that are elsewhere.
    assert found(read_boxes(tmp_path)) == SCENES
    (tmp_path / 'labels' / 'empty.txt').unlink()
    assert found(read_boxes(tmp_path, images)) == SCENES
    with pytest.raises(ValueError, match='data.yaml: expected val or valid'):
        read_boxes(file, split='val')


@pytest.mark.parametrize(
    'file, content, images_to, labels',
    [
        # Numbers in quotes; a folder of a notebook.
        ('data.yaml', "names: {'0': cat, '1': traffic light}\n"
         'train: /content/set/train/images\n', 'train/images', 'train/labels'),
        # Roboflow.
        ('data.yaml', 'names: [cat, traffic light]\ntrain: ../train/images\n',
         'train/images', 'train/labels'),
        # A set that was elsewhere, and has the texts beside its images.
        ('data.yaml', 'path: /home/me/set\nnames: [cat, traffic light]\n'
         'train: images/one\n', 'images/one', 'images/one'),
        ('data.yaml',
         'names: [cat, traffic light]\ntrain: [list.txt, list.txt]',
         'set/images', 'set/labels'),
        # Label Studio, and CVAT with a list.
        ('classes.txt', 'cat\ntraffic light\n', 'images', 'labels'),
        ('obj.names', 'cat\n\ntraffic light\n', 'obj_train_data',
         'obj_train_data'),
    ])
def test_yolo_sets_made_elsewhere(images, tmp_path, file, content, images_to,
                                  labels):
    place = tmp_path / 'here'
    (place / images_to).parent.mkdir(parents=True, exist_ok=True)
    images.rename(place / images_to)
    # What macOS writes into archives.
    (place / images_to / '._a.jpg').write_bytes(b'Mac')
    yolo_labels(place / labels)
    text = (place / labels / 'a.txt').read_text()
    (place / labels /
     'a.txt').write_bytes(b'\xef\xbb\xbf' +
                          text.replace('\n', ' \r\n').encode() + b'\r\n ')
    write(place / file, content)
    for name in ('list.txt', 'train.txt'):
        write(place / name,
              ''.join(f'data/{images_to}/{image}\n' for image in SCENES))
    if file != 'obj.names':
        (place / 'train.txt').unlink()
    assert found(read_boxes(place)) == SCENES
    if file == 'classes.txt':
        assert found(read_boxes(place, split='val')) == SCENES
    for path in (place / labels).glob('*.txt'):
        path.unlink()
    with pytest.raises(ValueError, match='expected texts of boxes below'):
        read_boxes(place)


def test_yolo_boxes_beyond_their_image(images, tmp_path):
    yolo_labels(tmp_path / 'labels')
    write(
        tmp_path / 'labels' / 'a.txt', '0 0.05 0.5 0.2 1.2\n'
        '1 0.5 -0.25 0.5 0.1\n1 0.5 0.5 0 0.5\n1 0.4 0.4 0.7 1.1 1.5 0.4\n')
    file = write(tmp_path / 'data.yaml', 'names: [a, b]\ntrain: images')
    boxes = read_boxes(file)
    assert [a['bbox'] for a in boxes.content['annotations'][:2]] == [
        pytest.approx([0, 0, 30, 100]),
        pytest.approx([80, 40, 120, 60])
    ]
    assert '2 boxes that reached out of their image (clipped)' in boxes.notes
    assert '1 boxes outside of their image' in boxes.notes
    assert '1 boxes without width or height' in boxes.notes
    # Keypoints after the box are no polygon.
    write(tmp_path / 'labels' / 'a.txt', '0 0.5 0.5 0.5 0.5 0.1 0.1 2 0 0 0\n')
    write(file, f'{file.read_text()}\nkpt_shape: [2, 3]\n')
    boxes = read_boxes(file).content['annotations']
    assert boxes[0]['bbox'] == pytest.approx([50, 25, 100, 50])


@pytest.mark.parametrize('line, message', [
    ('2 .1 .1 .1 .1', 'a.txt: line 2: expected a class from 0 to 1, got 2'),
    ('0.5 .1 .1 .1 .1', 'expected a class from 0 to 1'),
    ('0 2.5 .1 .1 .1', 'expected fractions of the image'),
    ('0 10 20 30 40', 'expected fractions of the image'),
    ('0 .1 .1 .1', 'got 4 numbers'),
    ('0 .1 .1 .1 .1 .9', 'got 6 numbers'),
    ('cat .1 .1 .1 .1', "expected numbers, got 'cat'"),
    ('0 nan .1 .1 .1', "expected numbers, got 'nan'"),
])
def test_wrong_lines_of_yolo(images, tmp_path, line, message):
    yolo_labels(tmp_path / 'labels')
    write(tmp_path / 'labels' / 'a.txt', f'0 0.5 0.5 0.5 0.5\n{line}\n')
    file = write(tmp_path / 'data.yaml', 'names: [a, b]\ntrain: images')
    with pytest.raises(ValueError, match=message):
        read_boxes(file)


@pytest.mark.parametrize('content, message', [
    ('a: [', 'not valid YAML'),
    ('- a', 'expected a YOLO data set'),
    ('train: images', "key 'names'"),
    ('names: {0: a, 2: b}\ntrain: images', "key 'names'"),
    ('names: [a, no]\ntrain: images', 'got False as number 2; YAML'),
    ('names: [a, a]\ntrain: images', 'given twice'),
    ('names: [a]\ntrain: nowhere', 'nowhere does not exist'),
    ('names: [a]\ntrain: labels', 'expected images'),
    ('!!python/object/apply:os.system ["touch x"]', 'not valid YAML'),
])
def test_wrong_yaml(images, tmp_path, content, message):
    yolo_labels(tmp_path / 'labels')
    file = write(tmp_path / 'data.yaml', content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_boxes(file)
    assert not (tmp_path / 'x').exists()


def voc(name, size, boxes):
    objects = ''.join(f"""
        <object><name>{label}</name><difficult>0</difficult><bndbox>
            <xmin>{x}</xmin><ymin>{y}</ymin>
            <xmax>{x + w}</xmax><ymax>{y + h}</ymax>
        </bndbox></object>""" for label, (x, y, w, h) in boxes)
    return f"""<annotation><filename>{name}</filename><size>
        <width>{size[0]}</width><height>{size[1]}</height></size>
        {objects}</annotation>"""


@pytest.mark.parametrize('layout', ['beside', 'VOC', 'elsewhere'])
def test_pascal_voc(images, tmp_path, layout):
    folder = dict(
        beside=images,
        VOC=tmp_path / 'set' / 'Annotations',
        elsewhere=tmp_path / 'xml')[layout]
    if layout == 'VOC':
        images = images.rename(
            tmp_path / 'set' /
            'JPEGImages') if (tmp_path / 'set').mkdir() is None else images
    for name, (size, boxes) in SCENES.items():
        # A size of 0, and a name with a folder of another machine.
        size = (0, 0) if name == 'b.png' else size
        shown = 'C:\\images\\a.jpg' if name == 'a.jpg' else name
        write(folder / name.replace(name[-4:], '.xml'),
              voc(shown, size, boxes))
    source = dict(VOC=tmp_path / 'set').get(layout, folder)
    given = images if layout == 'elsewhere' else None
    assert found(read_boxes(source, given)) == SCENES


def test_voc_sets_made_elsewhere(images, tmp_path):
    place = tmp_path / 'set'
    (place / 'JPEGImages').mkdir(parents=True)
    images.rename(place / 'JPEGImages' / 'one')
    for name, (size, boxes) in SCENES.items():
        # The name before the files were renamed, no size, and coordinates
        # with a point.
        text = voc('IMG_1.JPG', size, boxes).replace('</xm', '.0</xm')
        text = text.replace(f'>{size[0]}</width', '></width')
        write(place / 'Annotations' / 'one' / f'{name[:-4]}.xml', text)
    write(place / 'Annotations' / 'one' / '._a.xml', 'Mac')
    assert found(read_boxes(place)) == SCENES
    main = place / 'ImageSets' / 'Main'
    write(main / 'train.txt', 'a\n"one/empty"\n\n')
    write(main / 'test.txt', 'b\n')
    assert set(found(read_boxes(place))) == {'a.jpg', 'empty.jpg'}
    assert set(found(read_boxes(place, split='val'))) == {'b.png'}
    write(main / 'val.txt', 'c\n')
    with pytest.raises(ValueError, match='val.txt: expected names of some of'):
        read_boxes(place, split='val')


def test_wrong_pascal_voc(images, tmp_path):

    def read(text):
        return read_boxes(write(images / 'a.xml', text))

    for boxes, number in (([('cat', [5, 5, 0,
                                     9])], 0), ([('cat', [5, 5, -3, 9]),
                                                 ('dog', [1, 1, 2, 2])], 1)):
        text = voc('a.jpg', (200, 100), boxes)
        if number:
            assert len(read(text).content['annotations']) == number
        else:
            with pytest.raises(ValueError, match='expected boxes, got none'):
                read(text)
    good = voc('a.jpg', (200, 100), [('cat', [1, 2, 3, 4])])
    for text, message in (
        (good[:-5], 'a.xml: not valid XML'),
        (good.replace('<xmin>1</xmin>', ''), 'object 0: bndbox: expected num'),
        (good.replace('>1<', '>one<'), "expected numbers, got 'one'"),
        (good.replace('cat', ' '), 'object 0: expected a <name>'),
        ('<svg/>', 'expected <annotation> of Pascal VOC, got <svg>'),
        ('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>' +
         good.replace('cat', '&b;'), 'not valid XML'),
        ('<!DOCTYPE a [<!ENTITY b "bb">]>' + good.replace('cat', '&b;'),
         'not valid XML'),
    ):
        with pytest.raises(ValueError, match=message):
            read(text)
    # Not to be found, and no mistake.
    hard = good.replace('0</difficult>', '1</difficult>')
    assert read(hard).content['annotations'][0]['iscrowd'] == 1


def test_cvat(images, tmp_path):
    shapes = {
        'a.jpg': """<box label="cat" xtl="20" ytl="10" xbr="120" ybr="60"/>
            <polygon label="traffic light" points="0,0;10,0;10,20;3,20"/>""",
        'b.png': '<box label="cat" xtl="50" ytl="40" xbr="100" ybr="80"/>',
        'empty.jpg': ''
    }
    text = ''.join(
        f'<image id="{n}" name="{name}" width="{SCENES[name][0][0]}" '
        f'height="{SCENES[name][0][1]}">{shape}</image>'
        for n, (name, shape) in enumerate(shapes.items()))
    file = write(tmp_path / 'annotations.xml',
                 f'<annotations><version>1.1</version>{text}</annotations>')
    assert found(read_boxes(file, images)) == SCENES
    for old, new, message in (
        ('xtl="20"', '', 'a.jpg.: <box> 0: expected numbers, got None'),
        (' label="cat" xtl="20"', ' xtl="20"', "expected 'label' in <box>"),
        ('<version>', '<track/><version>', 'CVAT for images'),
    ):
        write(
            file,
            f'<annotations><version>1.1</version>{text}</annotations>'.replace(
                old, new, 1))
        with pytest.raises(ValueError, match=message):
            read_boxes(file, images)


def test_cvat_shapes_and_folders(images, tmp_path):
    (tmp_path / 'set' / 'images').mkdir(parents=True)
    images.rename(tmp_path / 'set' / 'images' / 'Train')
    file = write(
        tmp_path / 'set' / 'annotations.xml', """<annotations>
        <image name="a.jpg" subset="Train" width="200" height="100">
        <box label="cat" xtl="40" ytl="40" xbr="80" ybr="60" rotation="90.0"/>
        <ellipse label="cat" cx="50" cy="50" rx="20" ry="10" rotation="90"/>
        <mask label="dog" rle="3, 4" left="5" top="6" width="7" height="8"/>
        <polyline label="cat" points="1,2;3,4"/><tag label="night"/>
        </image></annotations>""")
    boxes = read_boxes(file)
    (_, scene), = found(boxes).values()
    # Turned around the centre.
    assert scene == [('cat', [50, 30, 20, 40]), ('cat', [40, 30, 20, 40]),
                     ('dog', [5, 6, 7, 8])]
    assert 'dropped 1 shapes <polyline> (the first: ' in boxes.notes
    write(file, file.read_text().replace('polyline', 'polygon'))
    write(file, file.read_text().replace('1,2;3,4', '1,2;3'))
    with pytest.raises(ValueError, match='<polygon> 3: expected points of x'):
        read_boxes(file)


def label_studio_value(size, box):
    return dict(
        x=box[0] / size[0] * 100,
        y=box[1] / size[1] * 100,
        width=box[2] / size[0] * 100,
        height=box[3] / size[1] * 100,
        rotation=0)


ADDRESSES = {
    'a.jpg': '/data/upload/3/0a1b2c3d-a.jpg',
    'b.png': '/data/local-files/?d=set/images/b.png',
    'empty.jpg': 'https://host/bucket/empty.jpg?token=1'
}


def test_label_studio(images, tmp_path):
    tasks = []
    for name, (size, boxes) in SCENES.items():
        result = [
            dict(
                type='rectanglelabels',
                original_width=size[0],
                original_height=size[1],
                value=dict(
                    label_studio_value(size, box), rectanglelabels=[label]))
            for label, box in boxes
        ]
        result.append(dict(type='choices', value=dict(choices=['good'])))
        tasks.append(
            dict(
                data=dict(image=ADDRESSES[name], note='x'),
                annotations=[
                    dict(result=result),
                    dict(result=[], was_cancelled=True)
                ]))
    # Nobody has looked at it.
    tasks.append(dict(data=dict(image='new.jpg'), annotations=[]))
    file = tmp_path / 'export.json'
    file.write_text(json.dumps(tasks))
    boxes = read_boxes(file, images)
    assert found(boxes) == SCENES and boxes.file is None
    least = [
        dict(
            image=ADDRESSES[name],
            annotator=1,
            label=[
                dict(
                    label_studio_value(size, box),
                    original_width=size[0],
                    original_height=size[1],
                    rectanglelabels=[label]) for label, box in boxes
            ]) for name, (size, boxes) in SCENES.items()
    ]
    file.write_text(json.dumps(least))
    assert found(read_boxes(file, images)) == SCENES
    # A quarter turn to the right around the upper left corner.
    least[0]['label'][0].update(rotation=90)
    file.write_text(json.dumps(least))
    first = read_boxes(file, images, clip=False).content['annotations'][0]
    assert first['bbox'] == pytest.approx([20 - 50, 10, 50, 100])
    del least[0]['label'][0]['x']
    file.write_text(json.dumps(least))
    with pytest.raises(ValueError, match=r'\[0\]: region 0: expected numbers'):
        read_boxes(file, images)
    file.write_text(json.dumps([dict(data=dict(text='a'), annotations=[{}])]))
    with pytest.raises(ValueError, match='expected the address of an image'):
        read_boxes(file, images)


def test_label_studio_regions(images, tmp_path):

    def result(**value):
        return dict(original_width=200, original_height=100, value=value)

    (images / 'a.jpg').rename(images / 'My photo.JPG')
    task = dict(
        data=dict(image='/data/local-files/?d=set%5CMy%20photo.jpg'),
        annotations=[
            dict(result=[
                # <Rectangle> and <Labels>; several classes of one.
                result(x=10, y=10, width=50, height=50),
                result(x=10, y=10, width=50, height=50, labels=['cat', 'red']),
                result(
                    x=50,
                    y=50,
                    radiusX=10,
                    radiusY=10,
                    rotation=90,
                    ellipselabels=['dog']),
                result(points=[[10, 10], [20, 30], [15, 40]], labels=['cat']),
                result(format='rle', rle=[1, 2], brushlabels=['cat']),
                result(x=5, y=5, width=1, labels=['point']),
                dict(value=dict(start=0, end=3, labels=['word'])),
                dict(value=None),
            ])
        ])
    file = tmp_path / 'export.json'
    file.write_text(
        json.dumps([task, dict(data=dict(image='b.png'), annotations=[])]))
    boxes = read_boxes(file, images)
    (_, scene), = found(boxes).values()
    assert scene == [('cat', [20, 10, 100, 50]), ('red', [20, 10, 100, 50]),
                     ('dog', [90, 30, 20, 40]), ('cat', [20, 10, 20, 30])]
    assert 'dropped 3 regions that are no boxes' in boxes.notes
    assert '1 tasks that nobody has labelled' in boxes.notes
    (images / 'My photo.JPG').rename(images / 'a #2.JPG')
    task['data']['image'] = 'C:\\photos\\a #2.jpg'
    file.write_text(json.dumps([task]))
    assert set(found(read_boxes(file, images))) == {'a #2.JPG'}
    for wrong in (dict(task, annotations=3), dict(task, annotations=[3]),
                  dict(task, annotations=[dict(result='x')])):
        file.write_text(json.dumps([wrong]))
        with pytest.raises(ValueError, match='expected a list of objects'):
            read_boxes(file, images)


def coco():
    content = dict(
        images=[dict(id=n, file_name=name) for n, name in enumerate(SCENES)],
        # As Roboflow writes it: a class of classes that no box has.
        categories=[
            dict(id=0, name='things'),
            dict(id=1, name='cat'),
            dict(id=2, name='traffic light')
        ],
        annotations=[])
    for n, (_, boxes) in enumerate(SCENES.values()):
        for label, box in boxes:
            content['annotations'].append(
                dict(
                    id=len(content['annotations']),
                    image_id=n,
                    category_id=1 + (label != 'cat'),
                    bbox=box))
    return content


def test_coco(images, tmp_path):
    (images / '_annotations.coco.json').write_text(json.dumps(coco()))
    for source in (images, images / '_annotations.coco.json'):
        boxes = read_boxes(source)
        assert found(boxes) == SCENES
        assert boxes.file == images / '_annotations.coco.json'
    wrong = dict(coco(), annotations=[dict(id=1)])
    (images / '_annotations.coco.json').write_text(json.dumps(wrong))
    with pytest.raises(ValueError, match="--boxes: .*'image_id' is missing"):
        read_boxes(images, shown='--boxes: ')


@pytest.mark.parametrize('file, prefix, below', [
    ('annotations/instances_default.json', '', 'images/default'),
    ('result.json', 'images\\', 'images'),
    ('_annotations.coco.json', '/data/set/', ''),
])
def test_coco_sets_made_elsewhere(images, tmp_path, file, prefix, below):
    place = tmp_path / 'set'
    (place / below).parent.mkdir(parents=True, exist_ok=True)
    images.rename(place / below)
    content = coco()
    for image in content['images']:
        image['file_name'] = prefix + image['file_name']
    write(place / file, json.dumps(content))
    boxes = read_boxes(place)
    # The names in the file are others, and it is not to be used as it is.
    assert found(boxes) == SCENES and boxes.file is None
    content['images'].append(dict(id=9, file_name='other/a.jpg'))
    write(place / file, json.dumps(content))
    with pytest.raises(ValueError, match="'other/a.jpg': expected two images"):
        read_boxes(place)


def test_folders_of_splits(images, tmp_path):
    """Roboflow's sets of COCO and of VOC, and COCO's own layout."""
    for split, name in (('train', 'a.jpg'), ('valid', 'b.png')):
        size, boxes = SCENES[name]
        for kind in 'coco', 'voc':
            (tmp_path / kind / split).mkdir(parents=True)
            Image.new('RGB', size).save(tmp_path / kind / split / name)
        Image.new('RGB', size).save(
            write(tmp_path / 'own' / f'{split[:5]}2017' / name, ''))
        content = dict(
            images=[dict(id=7, file_name=name)],
            categories=[dict(id=9, name='cat')],
            annotations=[
                dict(id=1, image_id=7, category_id=9, bbox=boxes[0][1])
            ])
        for file in (f'coco/{split}/_annotations.coco.json',
                     f'own/annotations/instances_{split[:5]}2017.json'):
            write(tmp_path / file, json.dumps(content))
        write(tmp_path / 'voc' / split / f'{name[:-4]}.XML',
              voc(name, size, boxes[:1]))
    for kind in ('coco', 'voc'):
        for split, name in (('train', 'a.jpg'), ('val', 'b.png')):
            size, boxes = SCENES[name]
            assert found(read_boxes(tmp_path / kind, split=split)) == {
                name: (size, boxes[:1])
            }
    assert set(found(read_boxes(tmp_path / 'own'))) == {'a.jpg'}
    (tmp_path / 'voc' / 'valid' / 'b.XML').unlink()
    with pytest.raises(ValueError, match='or a folder val or valid or test'):
        read_boxes(tmp_path / 'voc', split='val')


def test_boxes_of_masks_alone(images):
    """A hand-made RLE: 30 columns of 100 rows, then 10 rows of the next."""
    content = coco()
    box, other = content['annotations'][:2]
    for entry in (box, other):
        del entry['bbox']
    box['segmentation'] = [[20, 10, 120, 10, 60, 60]]
    other['segmentation'] = dict(
        size=[100, 200], counts=[3010, 40, 20000 - 3050])
    (images / 'labels.json').write_text(json.dumps(content))
    boxes = read_boxes(images)
    assert [a['bbox']
            for a in boxes.content['annotations'][:2]] == [[20, 10, 100, 50],
                                                           [30, 10, 1, 40]]
    assert '2 boxes that were missing, now those of the masks' in boxes.notes
    other['segmentation']['counts'][0] += 1
    (images / 'labels.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"annotations\[1\]: key 'bbox' is"):
        read_boxes(images)


def test_messages_name_the_entries_of_the_set(images, tmp_path):
    """Not those of the COCO JSON that it becomes."""
    for name, (size, boxes) in SCENES.items():
        write(tmp_path / 'set' / f'{name[:-4]}.xml', voc(name, size, boxes))
    text = voc('b.png', (100, 80), [('a', [1, 1, 0, 4]), ('b', [1, 1, 4, 4])])
    write(tmp_path / 'set' / 'b.xml', text)
    notes = read_boxes(tmp_path / 'set', images).notes
    assert '(the first: b.xml: object 0)' in notes
    write(tmp_path / 'set' / 'c.xml', text)
    (images / 'c.png').write_bytes((images / 'b.png').read_bytes())
    yolo_labels(tmp_path / 'labels')
    write(tmp_path / 'labels' / 'empty.txt', '\n0 .5 .5 0 .5\n')
    file = write(tmp_path / 'data.yaml', 'names: [a, b]\ntrain: images\nnc: 2')
    assert '(the first: labels/empty.txt: line 2)' in read_boxes(file).notes
    write(file, 'names: [a, b]\ntrain: images\nnc: 3')
    with pytest.raises(ValueError, match="'nc': expected 2, .*got 3"):
        read_boxes(file)
    main = tmp_path / 'voc' / 'ImageSets' / 'Main'
    for name in 'ab':
        write(tmp_path / 'voc' / 'Annotations' / f'{name}.xml',
              voc(f'{name}.jpg', (9, 9), [('cat', [1, 1, 4, 4])]))
    write(main / 'train.txt', 'a.jpg\nb -1\ngone\n')
    notes = read_boxes(tmp_path / 'voc', images).notes
    assert 'ImageSets/Main/train.txt: line 3: gone' in notes
    write(tmp_path / 'one' / 'a.xml', voc('a.jpg', (9, 9), []))
    with pytest.raises(ValueError, match='one: expected boxes, got none in 1'):
        read_boxes(tmp_path / 'one')


def test_label_studio_uploads_and_annotators(images, tmp_path):

    def task(name, label, number=None, **sides):
        region = dict(sides, x=10, y=10, width=50, height=50, rotation=0)
        return dict(
            image=f'/data/upload/1/{name}',
            id=number,
            annotator=1,
            label=[dict(region, rectanglelabels=[label])])

    (images / 'a.jpg').rename(images / 'my photo (1).jpg')
    file = tmp_path / 'export.json'
    file.write_text(
        json.dumps([
            # As Django spells it; a size of 0 is read from the image.
            task('0a1b2c3d-my_photo_1.jpg', 'dog', 1, original_width=0),
            task('0a1b2c3d-my_photo_1.jpg', 'cat', 1),
            task('abc-b.png', 'cat', 2)
        ]))
    boxes = read_boxes(file, images)
    assert found(boxes) == {
        'my photo (1).jpg': ((200, 100), [('cat', [20, 10, 100, 50])]),
        'b.png': ((100, 80), [('cat', [10, 8, 50, 40])])
    }
    assert '1 annotations of tasks with a later one (the first: [0])' in \
        boxes.notes
    for wrong in ([1], 5, {'cat': 1}, [None]):
        file.write_text(json.dumps([task('b.png', None, 1)]))
        content = json.loads(file.read_text())
        content[0]['label'][0]['rectanglelabels'] = wrong
        file.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r'\[0\]: region 0: key .rect'):
            read_boxes(file, images)
    for wrong in (3, [], [None]):
        content[0]['label'][0].update(rectanglelabels=['cat'], points=wrong)
        file.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r'\[0\]: region 0: .*points'):
            read_boxes(file, images)
    # A shape that nobody gave a class.
    content[0]['label'] = [dict(x=1, y=1, width=5, height=5)]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match='dropped 1 regions without a label'):
        read_boxes(file, images)


def test_what_is_none_of_these(images, tmp_path):
    for name in ('one.json', 'two.json'):
        (tmp_path / name).write_text('{}')
    with pytest.raises(ValueError, match='2 JSON files'):
        read_boxes(tmp_path)
    with pytest.raises(ValueError, match='expected COCO JSON, YOLO'):
        read_boxes(images)
    with pytest.raises(ValueError, match="key 'categories'"):
        read_boxes(tmp_path / 'one.json')
    with pytest.raises(FileNotFoundError):
        read_boxes(tmp_path / 'none.json')

# Licensed under the Apache License, Version 2.0.
"""Images that have names of classes and no captions."""
import pytest

from mmdet_clim.datasets.preparation.own_tags import tagged_images
from mmdet_clim.datasets.vocabulary import build_vocabulary

NAMES = build_vocabulary(['cat | kitten', 'traffic light | stop light'])


@pytest.mark.parametrize(
    'name, text',
    [
        ('t.csv', 'file_name,tags\na.jpg,cat;traffic light\nb.jpg,dog\n'),
        ('t.csv', 'label,image\r\nCat,a.jpg\r\ntraffic_light,a.jpg\r\n'
         'dog,b.jpg\r\ndog,b.jpg'),
        ('t.tsv', 'path\tlabels\na.jpg\tcat, Traffic-Light\n\nb.jpg\t dog \n'),
        ('t.csv', 'filename, cat, traffic_light, dog\na.jpg,1,1,0\n'
         'b.jpg, 0, , 1\n'),
        ('t.csv', 'file_name;tags\na.jpg;cat,traffic light\nb.jpg;dog\n'),
        # Without names of columns, and with others besides.
        ('t.csv', 'a.jpg,cat,traffic light\nb.jpg,dog\n'),
        ('t.csv', 'a.jpg;"cat;traffic light"\r\nb.jpg;dog\r\n'),
        ('t.csv', ',filename,class,xmin\n0,a.jpg,cat,5\n1,a.jpg,traffic light,'
         '8\n2,b.jpg,dog,9\n'),
        ('t.csv', 'img,cat,traffic light,dog\na.jpg,True,1.0,False\n'
         'b.jpg,false,no,yes\n'),
        # Tabs, Excel's first line, lists of Python, blanks and empty rows.
        ('t.csv', 'image\ttags\na.jpg\tcat;traffic light\nb.jpg\tdog\n'),
        ('t.csv', '\ufeffsep=;\nimage;tags\na.jpg;kitten,stop light\n'
         'b.jpg;dog\n;\n'),
        ('t.csv', 'image, tags\na.jpg, "[\'cat\', \'traffic light\']"\n'
         'b.jpg,[dog]\n,\n'),
    ])
def test_tables(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert tagged_images(tmp_path / name, tmp_path, NAMES) == [
        dict(
            file_name='a.jpg',
            caption='cat, traffic light',
            tags=['cat', 'traffic light']),
        dict(file_name='b.jpg', caption='dog', tags=['dog'])
    ]


def test_a_table_of_one_class(tmp_path):
    (tmp_path / 't.csv').write_text('image,cat\na.jpg,1\nb.jpg,0\n')
    found = tagged_images(tmp_path / 't.csv', tmp_path, NAMES)
    assert found == [dict(file_name='a.jpg', caption='cat', tags=['cat'])]


def test_a_quotation_mark_swallows_no_rows(tmp_path):
    (tmp_path / 't.tsv'
     ).write_text('image\ttags\na.jpg\t"cat\nb.jpg\tdog\nc.jpg\tbird"\n')
    found = tagged_images(tmp_path / 't.tsv', tmp_path, NAMES)
    assert [image['tags'] for image in found] == [['"cat'], ['dog'], ['bird"']]
    (tmp_path / 't.csv').write_text('image,tags\na.jpg,"cat\nb.jpg,dog\n')
    with pytest.raises(ValueError, match='t.csv: .*after line 3'):
        tagged_images(tmp_path / 't.csv', tmp_path, NAMES)
    # U+2028 ends no row.
    (tmp_path / 't.csv').write_text('image,tags\na.jpg,c\u2028at\n')
    found = tagged_images(tmp_path / 't.csv', tmp_path, NAMES)
    assert found[0]['tags'] == ['c\u2028at']


def test_linked_folders(tmp_path):
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'elsewhere' / '1.jpg').touch()
    (tmp_path / 'photos' / 'cat').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere' / 'back').symlink_to(tmp_path / 'photos')
    assert tagged_images('folders', tmp_path / 'photos', NAMES) == [
        dict(file_name='cat/1.jpg', caption='cat', tags=['cat'])
    ]


def test_folders(tmp_path):
    for name in ('cat/1.jpg', 'traffic_light/2.PNG', 'more/dog/3.jpg',
                 'loose.jpg', 'cat/notes.txt'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = tagged_images('folders', tmp_path, NAMES)
    assert {
        image['file_name']: image['tags']
        for image in found
    } == {
        'cat/1.jpg': ['cat'],
        'more/dog/3.jpg': ['dog'],
        'traffic_light/2.PNG': ['traffic light'],
    }


def test_folders_above_and_beside(tmp_path):
    """The nearest folder that is a class; accents in either form."""
    for name in ('cat/2021/1.jpg', 'train/cat/2.jpg', 'cafe\u0301/3.jpg',
                 'cat/._1.jpg', '.git/4.jpg', '__MACOSX/cat/5.jpg'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = build_vocabulary(['cat', 'caf\u00e9'])
    found = tagged_images('folders', tmp_path, names)
    assert {
        image['file_name']: image['tags']
        for image in found
    } == {
        'cat/2021/1.jpg': ['cat'],
        'train/cat/2.jpg': ['cat'],
        'cafe\u0301/3.jpg': ['caf\u00e9']
    }
    (tmp_path / 't.csv').write_text(
        'image,tags\nC:\\set\\cat\\2021\\1.JPG,cat\n/home/me/2.jpg,cat\n')
    found = tagged_images(tmp_path / 't.csv', tmp_path / 'train/cat', names)
    assert [image['file_name'] for image in found] == \
        ['C:\\set\\cat\\2021\\1.JPG', '2.jpg']
    found = tagged_images(tmp_path / 't.csv', tmp_path, names)
    assert found[0]['file_name'] == 'cat/2021/1.jpg'


@pytest.mark.parametrize('text, message', [
    ('', 'line 1: expected a column of images'),
    ('name,tags\na.jpg,cat', 'line 1: expected a column of images'),
    ('image\na.jpg', 'line 1: expected a column of images'),
    ('image,tags\na.jpg', 'line 2: expected an image and 2 cells'),
    ('image,tags\n ,cat', 'line 2: expected an image'),
    ('image,cat,dog\na.jpg,1,2', "line 2: expected 0 or 1 .*got '2'"),
    ('image,tags\n', 'expected images with tags'),
    ('a.jpg,cat\nb.jpg,', 'line 2: expected an image and its tags'),
    ('a.jpg,1,0', 'line 1: expected an image and its tags'),
])
def test_wrong_tables(tmp_path, text, message):
    (tmp_path / 't.csv').write_text(text)
    with pytest.raises(ValueError, match=message):
        tagged_images(tmp_path / 't.csv', tmp_path, NAMES)


def test_what_is_no_table(tmp_path):
    with pytest.raises(ValueError, match='expected a .csv or .tsv'):
        tagged_images(tmp_path / 'tags.json', tmp_path, NAMES)
    with pytest.raises(ValueError, match='expected images with tags'):
        tagged_images('folders', tmp_path, NAMES)

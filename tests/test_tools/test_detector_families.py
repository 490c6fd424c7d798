# Licensed under the Apache License, Version 2.0.
"""The tool that tries detector families, on the quickest one."""
import json

MARK = '<!-- what tools/misc/detector_families.py found -->'


def test_one_family_and_the_table(run_tool, tmp_path):
    results = tmp_path / 'families.json'
    code, log = run_tool('misc/detector_families.py', '--results', results,
                         '--families', 'YOLOX', 'AutoAssign')
    assert code == 0, log[-3000:]
    found = json.loads(results.read_text())
    for name in ('YOLOX', 'AutoAssign'):
        assert all(found[name][key] for key in ('builds', 'trains', 'odd',
                                                'ema', 'evaluates')), found
    assert found['YOLOX']['reader'] == 'DenseFeatureReader (classifier)'
    assert found['AutoAssign']['open'].startswith('no: ')
    # Of the three levels, those that regions of a tile's size are read from.
    assert found['YOLOX']['reaches'] == [2, 3]
    assert found['AutoAssign']['reaches'] == [0, 0]

    page = tmp_path / 'page.md'
    page.write_text(f'# Page\n{MARK}\nold\n{MARK}\nend\n')
    code, log = run_tool('misc/detector_families.py', '--results', results,
                         '--docs', page)
    assert code == 0, log
    lines = page.read_text().splitlines()
    assert lines[:2] == ['# Page', MARK] and lines[-2:] == [MARK, 'end']
    assert '| YOLOX | DenseFeatureReader (classifier) | yes | 2 of 3 | yes ' \
        '| yes | yes | yes | yes |  |' in lines
    assert 'old' not in lines
    page.write_text('# Page\n')
    code, log = run_tool('misc/detector_families.py', '--results', results,
                         '--docs', page)
    assert code == 1
    assert 'expected two lines' in log

# Licensed under the Apache License, Version 2.0.
"""Write the summary and the table of all comparisons in docs/ablation.md.

Both are computed from the values of each seed in docs/logs.
"""
import argparse
import json
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / 'docs/logs'
BEGIN, END = '<!-- begin of ablation_table.py -->\n', '<!-- end -->\n'
HEAD = """| what | log | row | compared with | seeds | {0} | {1} | {0} is |
|---|---|---|---|---:|---:|---:|---|
"""
SUMMARY_HEAD = """| | published CLIM | pseudo-labels | whole images | \
with the same options | with the same options, equal views |
|---|---|---|---|---|---|
"""
INTERVAL = '{mean:+.1f} [{low:+.1f}, {high:+.1f}]'
#: The classes or words to be learned, and those that should not be lost.
LEARNED, KEPT = 'new', 'old'
AP50 = ('novel_ap50', 'base_ap50')


class Comparison(NamedTuple):
    """A line of the table.

    Args:
        detector (str): What was trained.
        log (str): File of ``docs/logs``, and where it has parts, its part
            after a ``/``.
        row (str): Name of the row in it.
        other (str): Name of the row that it is compared with; after
            ``FILE:`` of another log on the same data and seeds.
        keys (tuple[str, str]): Metrics of what is learned and what is kept.
    """
    detector: str
    log: str
    row: str
    other: str
    keys: tuple[str, str] = AP50


def _each(detector: str,
          log: str,
          pairs: list[tuple[str, str]],
          keys: tuple[str, str] = AP50) -> list[Comparison]:
    return [
        Comparison(detector, log, row, other, keys) for row, other in pairs
    ]


DETIC = 'Faster R-CNN'
FCOS = 'fcos_r18_256_captions-tags'
DINO = 'dino_r18_256_captions-tags'
BARON = 'baron_r18-c4_256_captions'
LVIS = 'centernet2_r18_lvis'
GROUNDING = 'mm-grounding-dino_r18_256'
NEW_TILES = 'demo_clim_best_softmax_2x2'
WHOLE = 'demo_captions-tags_best_softmax'
COMPETING = [
    (f'{NEW_TILES}_compete', f'{WHOLE}_compete'),
    (f'{NEW_TILES}_compete', f'{WHOLE}_compete_more-whole'),
    (f'{NEW_TILES}_compete', f'{WHOLE}_compete_equal-views'),
]
MORE_WHOLE = f'{NEW_TILES}_compete_more-whole'
RARE = ('box_apr', 'box_apf')
REGIONS = ('roi_all_top1', 'crop_all_top1')
COMPARISONS = [
    *_each(DETIC, 'second_draw', [
        ('demo_clim', 'demo_captions-tags'),
        ('demo_clim', 'demo_captions-tags_equal-views'),
        ('demo_captions-tags_best', 'demo_captions-tags'),
        ('demo_clim, 128 proposals', 'demo_captions-tags, 128 proposals'),
        ('demo_clim, 128 proposals', 'demo_clim'),
        ('demo_clim_best', 'demo_clim, 128 proposals'),
        ('demo_clim_best', 'demo_clim'),
        ('demo_clim_best', 'demo_captions-tags'),
        ('demo_clim_best', 'demo_captions-tags_best'),
        ('demo_clim_best', 'demo_captions-tags_equal-views'),
        ('demo_clim_best_softmax', 'demo_clim_best'),
        ('demo_clim_best_softmax', 'demo_clim, 128 proposals'),
        ('demo_clim_best_softmax', 'demo_clim'),
        ('demo_clim_best_softmax', 'demo_captions-tags'),
        ('demo_clim_best_softmax', WHOLE),
        ('demo_clim_best_softmax', 'demo_captions-tags_equal-views'),
        ('demo_pseudo-labels', 'demo_captions-tags'),
        ('demo_pseudo-labels', 'demo_clim'),
        *((NEW_TILES, other) for other in
          ('demo_clim_best_softmax', 'demo_clim, 128 proposals', 'demo_clim',
           'demo_pseudo-labels', 'demo_captions-tags', WHOLE,
           f'{WHOLE}_equal-views', 'demo_captions-tags_equal-views')),
        *((f'{NEW_TILES}_equal-views', other)
          for other in (NEW_TILES, 'demo_clim_best_softmax', 'demo_clim',
                        'demo_captions-tags_equal-views')),
        *COMPETING,
        *((f'{NEW_TILES}_compete', other) for other in
          (NEW_TILES, 'demo_clim', 'demo_pseudo-labels', 'demo_captions-tags',
           'demo_captions-tags_equal-views')),
        (f'{WHOLE}_compete_equal-views', f'{WHOLE}_equal-views'),
        *((MORE_WHOLE, other) for other in
          (f'{WHOLE}_compete_more-whole', f'{WHOLE}_compete_equal-views',
           f'{NEW_TILES}_compete', 'demo_clim', 'demo_pseudo-labels',
           'demo_captions-tags', 'demo_captions-tags_equal-views')),
        (f'{NEW_TILES}_compete, 4 whole images and a mosaic',
         f'{WHOLE}_compete'),
    ]),
    *_each(DETIC, 'demo', [
        ('(2) + captions and tags', '(1) boxes'),
        ('(3) + CLIM mosaics', '(2) + captions and tags'),
        ('(3) + CLIM mosaics', '(4) as (2), as many views as (3)'),
    ]),
    *_each(DETIC, 'demo_published', [
        ('demo_captions-tags', 'demo_boxes'),
        ('demo_clim', 'demo_captions-tags'),
        ('demo_clim', 'demo_captions-tags_equal-views'),
    ]),
    *_each(DETIC, 'demo_max_proposals', [
        ('demo_captions-tags, 128 proposals',
         'demo_published:demo_captions-tags'),
        ('demo_clim, 128 proposals', 'demo_published:demo_clim'),
        ('demo_clim, 128 proposals', 'demo_captions-tags, 128 proposals')
    ]),
    *_each(DETIC, 'proposal_choice',
           [('demo_clim_best', 'demo_published:demo_clim'),
            ('demo_clim_best', 'demo_max_proposals:demo_clim, 128 proposals'),
            ('demo_clim_best', 'demo_published:demo_captions-tags')]),
    *_each(DETIC, 'tag_softmax',
           [('demo_clim_best_softmax', 'proposal_choice:demo_clim_best'),
            ('demo_clim_best_softmax', 'demo_published:demo_clim'),
            ('demo_clim_best_softmax', 'demo_published:demo_captions-tags'),
            ('demo_clim_best_softmax', WHOLE)]),
    *_each(DETIC, 'new_tiles', [
        (NEW_TILES, 'tag_softmax:demo_clim_best_softmax'),
        (NEW_TILES, 'demo_published:demo_clim'),
        (NEW_TILES, 'demo_pseudo-labels'),
        (NEW_TILES, 'demo_published:demo_captions-tags'),
        (NEW_TILES, 'demo_published:demo_captions-tags_equal-views'),
        ('demo_pseudo-labels', 'demo_published:demo_captions-tags'),
        ('demo_pseudo-labels', 'demo_published:demo_clim'), *(
            (f'{NEW_TILES}_equal-views', other)
            for other in (NEW_TILES, 'tag_softmax:demo_clim_best_softmax',
                          'demo_published:demo_clim',
                          'demo_published:demo_captions-tags_equal-views'))
    ]),
    *_each(DETIC, 'compete', [
        *COMPETING,
        (MORE_WHOLE, f'{NEW_TILES}_compete'),
        (f'{NEW_TILES}_compete', f'new_tiles:{NEW_TILES}'),
        (f'{NEW_TILES}_compete', 'demo_published:demo_clim'),
        (f'{NEW_TILES}_compete', 'new_tiles:demo_pseudo-labels'),
        (f'{NEW_TILES}_compete', 'demo_published:demo_captions-tags'),
        (f'{NEW_TILES}_compete',
         'demo_published:demo_captions-tags_equal-views'),
        (f'{WHOLE}_compete_equal-views', f'{WHOLE}_equal-views'),
    ]),
    *_each(DETIC, 'demo_seeds',
           [('(3) + CLIM mosaics', '(2) + captions and tags')]),
    *_each(DETIC, 'ablation', [(row, 'clim_default') for row in (
        'whole-images', 'pseudo-labels', 'mosaic-augmentation',
        'clim_grid-2x2', 'clim_grid-3x3', 'clim_grid-4x4',
        'clim_grid-mixed-2-3-4', 'clim_no-composition', 'clim_captions-only',
        'clim_tags-only', 'clim_proposals', 'clim_class-names')]),
    *_each('Faster R-CNN, timm', 'photographs_detection', [
        ('captions and tags', 'boxes'),
        ('CLIM', 'captions and tags'),
        ('captions and tags, best proposal', 'captions and tags'),
        ('CLIM', 'captions and tags, best proposal'),
    ]),
    *_each('FCOS', 'fcos', [
        (f'{FCOS}_clim', FCOS),
        (f'{FCOS}_clim_best_softmax', f'{FCOS}_clim'),
        (f'{FCOS}_clim_best_softmax', FCOS),
    ]),
    *_each('FCOS', 'fcos_equal/rows', [
        (f'{FCOS}_clim_best_softmax', f'{FCOS}_best_softmax, 10 whole images'),
        (f'{FCOS}_clim_best_softmax_equal-views',
         f'{FCOS}_best_softmax, 10 whole images'),
        (f'{FCOS}_clim_best_softmax_equal-views', f'{FCOS}_clim_best_softmax'),
        (f'{FCOS}_clim_best_softmax', 'fcos_r18_256_pseudo-labels'),
    ]),
    *_each('DINO', 'dino', [
        (f'{DINO}_clim', DINO),
        (f'{DINO}_clim_query', f'{DINO}_clim'),
        (f'{DINO}_clim_query', DINO),
        (f'{DINO}_clim_query', f'{DINO}_query'),
        (f'{DINO}_clim_query_equal-views', f'{DINO}_query'),
        (f'{DINO}_clim_query_equal-views', DINO),
        (f'{DINO}_clim_query_equal-views', f'{DINO}_clim_query'),
        (f'{DINO}_clim_query', 'dino_r18_256_pseudo-labels'),
    ]),
    *_each('BARON', 'baron', [
        (BARON, 'baron_r18-c4_256_boxes'),
        (f'{BARON}_clim', BARON),
    ]),
    *_each('BARON', 'baron_tags', [
        (f'{BARON}_clim', BARON),
        (f'{BARON}-tags_clim_best_softmax', f'{BARON}_clim'),
        (f'{BARON}-tags_clim_best_softmax', BARON),
        (f'{BARON}-tags_clim_best_softmax', f'{BARON}-tags_best_softmax'),
        (f'{BARON}-tags_best_softmax', BARON),
    ]),
    *_each('CenterNet2', 'long_tail/all proposals', [
        (f'{LVIS}_{row}', f'{LVIS}_boxes')
        for row in ('clim', 'clim_rare-tags', 'clim_grid-schedule')
    ], RARE),
    *_each('CenterNet2', 'long_tail/best 3 proposals',
           [(f'{LVIS}_clim_novel-source', f'{LVIS}_boxes')], RARE),
    *_each('CenterNet2', 'long_tail_softmax/weight 0.3', [
        (f'{LVIS}_clim', f'{LVIS}_captions-tags'),
        (f'{LVIS}_clim_best_softmax, weight 0.3', f'{LVIS}_clim'),
        (f'{LVIS}_clim_best_softmax, weight 0.3', f'{LVIS}_captions-tags'),
    ], RARE),
    *_each('CenterNet2', 'long_tail_softmax/weight 0.1', [
        (f'{LVIS}_clim', f'{LVIS}_captions-tags'),
        (f'{LVIS}_clim_best_softmax', f'{LVIS}_clim'),
        (f'{LVIS}_clim_best_softmax', f'{LVIS}_captions-tags'),
        (f'{LVIS}_clim_best_softmax', f'{LVIS}_captions-tags_best_softmax'),
        *((f'{LVIS}_clim_best_softmax_equal-views', other) for other in
          (f'{LVIS}_captions-tags_best_softmax', f'{LVIS}_clim_best_softmax',
           f'{LVIS}_clim', f'{LVIS}_captions-tags')),
    ], RARE),
    *_each('MM-Grounding-DINO', 'grounding/rows', [
        ('mm-grounding-dino_r18_160_clim', 'mm-grounding-dino_r18_160_boxes')
    ]),
    *_each('MM-Grounding-DINO', 'grounding_256/rows', [
        (f'{GROUNDING}_clim_box', f'{GROUNDING}_captions-tags'),
        (f'{GROUNDING}_clim', f'{GROUNDING}_clim_box'),
        (f'{GROUNDING}_clim', f'{GROUNDING}_captions-tags'),
    ]),
    *_each('CLIP, regions', 'clip',
           [('CLIM 2×2, 3×3 and 4×4', "RegionCLIP's way"),
            ('CLIM 2×2, 3×3 and 4×4', 'self-distillation'),
            ('CLIM 2×2', 'CLIM 2×2, 3×3 and 4×4')], REGIONS),
    *_each('CLIP, regions', 'clip_better/val2017', [
        ('CLIM 2×2, 3×3 and 4×4', 'whole images'),
        ('CLIM 2×2, text-weighted', 'whole images'),
        ('CLIM 2×2, text-weighted', 'CLIM 2×2, 3×3 and 4×4'),
        ('CLIM 2×2, text-weighted', 'CLIM 2×2'),
    ], REGIONS),
    *(Comparison('CLIP, regions', f'clip_equal/{draw}',
                 'CLIM 2×2, text-weighted', 'whole images, equal views',
                 REGIONS) for draw in ('val2017', 'second draw')),
    *_each('F-ViT', 'fvit', [
        ('CLIM', 'original'),
        ('CLIM', "RegionCLIP's way"),
        ('CLIM', 'self-distillation'),
    ]),
]


def _better(log: str, row: str, *others:
            str | None) -> list[tuple[str, str, str] | None]:
    return [other and (log, row, other) for other in others]


#: Of each of the detectors, the comparisons of the better CLIM with what the
#: columns of the summary name: log, row and other of one of COMPARISONS, None
#: where there is none.
SUMMARY = {
    DETIC:
    _better('second_draw', MORE_WHOLE, 'demo_clim', 'demo_pseudo-labels',
            'demo_captions-tags', f'{WHOLE}_compete_equal-views',
            f'{WHOLE}_compete_equal-views'),
    'BARON':
    _better('baron_tags', f'{BARON}-tags_clim_best_softmax', f'{BARON}_clim',
            None, BARON, f'{BARON}-tags_best_softmax', None),
    'CenterNet2':
    _better('long_tail_softmax/weight 0.1',
            f'{LVIS}_clim_best_softmax_equal-views', f'{LVIS}_clim', None,
            f'{LVIS}_captions-tags', f'{LVIS}_captions-tags_best_softmax',
            f'{LVIS}_captions-tags_best_softmax'),
    'MM-Grounding-DINO':
    _better('grounding_256/rows', f'{GROUNDING}_clim', f'{GROUNDING}_clim_box',
            None, f'{GROUNDING}_captions-tags', f'{GROUNDING}_captions-tags',
            None),
    'FCOS': [
        *_better('fcos', f'{FCOS}_clim_best_softmax', f'{FCOS}_clim'),
        *_better('fcos_equal/rows', f'{FCOS}_clim_best_softmax',
                 'fcos_r18_256_pseudo-labels'),
        *_better('fcos', f'{FCOS}_clim_best_softmax', FCOS),
        *_better('fcos_equal/rows', f'{FCOS}_clim_best_softmax',
                 f'{FCOS}_best_softmax, 10 whole images'),
        *_better('fcos_equal/rows', f'{FCOS}_clim_best_softmax_equal-views',
                 f'{FCOS}_best_softmax, 10 whole images'),
    ],
    'DINO': [
        *_better('dino', f'{DINO}_clim_query', f'{DINO}_clim',
                 'dino_r18_256_pseudo-labels', DINO, f'{DINO}_query'),
        *_better('dino', f'{DINO}_clim_query_equal-views', f'{DINO}_query'),
    ],
    'CLIP, regions': [
        *_better('clip_better/val2017', 'CLIM 2×2, text-weighted',
                 'CLIM 2×2, 3×3 and 4×4', None, 'whole images',
                 'whole images'),
        *_better('clip_equal/val2017', 'CLIM 2×2, text-weighted',
                 'whole images, equal views'),
    ],
}


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'page',
        type=Path,
        nargs='?',
        default=ROOT / 'docs/ablation.md',
        help='a Markdown file with the two marks (%(default)s)')
    page = parser.parse_args().page
    text = page.read_text(encoding='utf-8')
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f'{page}: expected {BEGIN.strip()!r} and '
                         f'{END.strip()!r}, once each')
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    # It takes seconds to import.
    from mmdet_clim.files import atomic_path
    with atomic_path(page) as unfinished:
        unfinished.write_text(
            f'{before}{BEGIN}{summary()}\n{table()}{END}{after}',
            encoding='utf-8')


def summary() -> str:
    """The better CLIM of each detector minus the other ways."""
    lines = [SUMMARY_HEAD]
    for detector, compared in SUMMARY.items():
        cells = []
        for which in compared:
            if which is None:
                cells.append('–')
                continue
            of = next(
                (c for c in COMPARISONS if (c.log, c.row, c.other) == which),
                None)
            if of is None:
                raise SystemExit(f'{detector}: expected {which} among the '
                                 'comparisons')
            (learned, kept), seeds = _differences(of)
            cell = INTERVAL.format(**learned)
            if learned['low'] > 0:
                cell = f'**{cell}**'
            cells.append(f"{cell}; {kept['mean']:+.1f} ({seeds})")
        lines.append(f"| {detector} | {' | '.join(cells)} |\n")
    return ''.join(lines)


def table() -> str:
    """All comparisons, in Markdown."""
    return HEAD.format(LEARNED, KEPT) + ''.join(map(_line, COMPARISONS))


def _differences(of: Comparison) -> tuple[list[dict], int]:
    """Of what is learned and what is kept; and of how many seeds."""
    from mmdet_clim.evaluation.tables import add_differences
    row = dict(_row(of.log, of.row))
    name, _, other_row = of.other.rpartition(':')
    other = dict(_row(name or of.log, other_row))
    # One with fewer seeds has the first of them.
    seeds = min(len(r[of.keys[0]]['values']) for r in (row, other))
    row['seeds'] = other['seeds'] = seeds
    add_differences([other, row], [(key, key, 1, 1) for key in of.keys])
    found = row['differences'][other['name']]
    return [found[key] for key in of.keys], seeds


def _line(of: Comparison) -> str:
    differences, seeds = _differences(of)
    cells = ' | '.join(INTERVAL.format(**found) for found in differences)
    learned, _ = differences
    verdict = 'above' if learned['low'] > 0 else \
        'below' if learned['high'] < 0 else 'open'
    log, _, part = of.log.partition('/')
    part = f', {part}' if part not in ('', 'rows') else ''
    other = of.other.rpartition(':')[2]
    return (f'| {of.detector} | [{log}](logs/{log}.json){part} | {of.row} | '
            f'{other} | {seeds} | {cells} | {verdict} |\n')


def _row(log: str, name: str) -> dict[str, dict]:
    """A row of a log with the values of each seed."""
    file, _, part = log.partition('/')
    rows = json.loads((LOGS / f'{file}.json').read_text(encoding='utf-8'))
    if part:
        rows = rows[part]
    row = next((row for row in rows if row['name'] == name), None)
    if row is None:
        # Not a StopIteration, at which `map` would end without a word.
        names = [row['name'] for row in rows]
        raise SystemExit(
            f'docs/logs/{file}.json: expected a row {name!r}, got {names}')
    if isinstance(row['seeds'], dict):
        values = {key: dict(values=of) for key, of in row['seeds'].items()}
        return dict(name=name, **values)
    return row


if __name__ == '__main__':
    main()

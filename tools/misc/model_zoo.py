# Licensed under the Apache License, Version 2.0.
"""Write a page of all configs, from the metafiles (`make docs` does)."""
import argparse
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
HEAD = """# Model zoo

*Published* is what a paper states; nobody has yet run these configs on the
real data. *Measured* is what this project ran itself, on the data that the row
names; the linked pages have commands, seeds and logs.
"""
PREFIXES = ('published', 'measured')


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'out',
        type=Path,
        nargs='?',
        default=ROOT / 'docs' / 'model_zoo.md',
        help='a Markdown file in a folder of the repository (%(default)s)')
    args = parser.parse_args()
    from mmdet_clim.files import atomic_path
    with atomic_path(args.out) as beside:
        beside.write_text(HEAD + ''.join(_collections()), encoding='utf-8')


def _collections() -> list[str]:
    """A table per metafile, in the index's order."""
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    tables = []
    for name in index['Import']:
        metafile = yaml.safe_load((ROOT / name).read_text())
        title = metafile['Collections'][0]['Name']
        rows = [_row(model) for model in metafile['Models']]
        tables.append(f'\n## {title}\n\n'
                      f'How to run them: `{Path(name).parent}/README.md`.\n\n'
                      '| config | data | published | measured |\n'
                      '|---|---|---|---|\n' + '\n'.join(rows) + '\n')
    return tables


def _row(model: dict) -> str:
    """One config: its metrics, told apart by the word they begin with."""
    found: dict[str, list[str]] = {prefix: [] for prefix in PREFIXES}
    for result in model.get('Results', []):
        for metric, value in result['Metrics'].items():
            prefix, _, name = metric.partition(' ')
            if prefix not in found:
                raise ValueError(
                    f'{model["Name"]}: a metric must begin with one of '
                    f'{PREFIXES}, got {metric!r}')
            found[prefix].append(f'{name} {value}')
    cells = [
        f'[{model["Name"]}](../{model["Config"]})',
        model['Metadata']['Training Data'],
        *(', '.join(found[prefix]) for prefix in PREFIXES)
    ]
    return '| ' + ' | '.join(cells) + ' |'


if __name__ == '__main__':
    main()

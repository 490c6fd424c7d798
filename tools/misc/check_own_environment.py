# Licensed under the Apache License, Version 2.0.
"""Refuse to set up an environment that is not the project's to change.

Called by the Python of an existing environment, with the Python that was
asked for.
"""
import argparse
import importlib.util
import subprocess
import sys
from importlib import metadata


def main() -> None:
    """Stop with a sentence, or return."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('python', help='the Python that was asked for')
    python = parser.parse_args().python
    wanted = subprocess.run(
        [python, '-c', 'import sys; print(*sys.version_info[:2], sep=".")'],
        check=True,
        capture_output=True,
        text=True).stdout.strip()
    present = '.'.join(map(str, sys.version_info[:2]))
    if wanted != present:
        sys.exit(f'{sys.prefix} contains Python {present}, but PYTHON='
                 f'{python} is {wanted}: give another VENV=, or remove '
                 'that folder.')
    installed = {
        distribution.metadata['Name']
        for distribution in metadata.distributions()
    }
    if importlib.util.find_spec('mmdet') and 'mmdet' not in installed:
        sys.exit(f'{sys.prefix} contains a fork of MMDetection, which is left '
                 f'alone: use it with `pip install .` and `make ... VENV= '
                 f'PYTHON={sys.executable}`, or give another VENV=.')


if __name__ == '__main__':
    main()

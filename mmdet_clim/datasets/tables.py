# Licensed under the Apache License, Version 2.0.
"""Tables of people: ``.csv`` and ``.tsv``, with errors that name a line."""
import csv
import re
from collections.abc import Iterable, Iterator
from itertools import chain

#: Suffixes of tables.
TABLES = ('.csv', '.tsv')
# A cell that is quoted as a whole, its own quotation marks written twice.
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
# What Excel reads as the separator of what follows.
_SEPARATOR = re.compile(r'sep=([,;\t])\s*')


def table_rows(lines: Iterable[tuple[int, str]],
               suffix: str,
               where: str,
               skip_blanks: bool = False) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table that are not empty.

    In a ``.tsv`` a quotation mark is a character as any other, but for a cell
    that is quoted as a whole, as spreadsheets write it. A ``.csv`` has
    semicolons or tabs instead of commas where its first line has no comma, as
    spreadsheets write it where commas stand in numbers. The first line may
    say so: ``sep=;``.

    Args:
        lines (Iterable[tuple[int, str]]): Each line with its number, as
            :func:`~.text_files.read_lines` gives them.
        suffix (str): ``.csv`` or ``.tsv``.
        skip_blanks (bool): Whether blanks after a comma are left out.

    Yields:
        tuple[int, list[str]]: The number of its last line, and its cells.

    Raises:
        ValueError: If the quotes of a ``.csv`` are not closed.
    """
    if suffix == '.tsv':
        for number, line in lines:
            if line:
                yield number, [
                    cell[1:-1].replace('""', '"')
                    if _QUOTED.fullmatch(cell) else cell
                    for cell in line.split('\t')
                ]
        return
    lines = iter(lines)
    first = next(lines, (1, ''))[1]
    before, told = 0, _SEPARATOR.fullmatch(first)
    if told:
        before, first = 1, next(lines, (2, ''))[1]
    reader = csv.reader(
        (f'{line}\n' for line in chain([first], (line for _, line in lines))),
        delimiter=told[1] if told else next(
            (sign for sign in ',;\t' if sign in first), ','),
        skipinitialspace=skip_blanks,
        strict=True)
    try:
        for row in reader:
            if row:
                yield before + reader.line_num, row
    except csv.Error as error:
        raise ValueError(f'{where}: not a valid table: after line '
                         f'{before + reader.line_num}: {error}') from error

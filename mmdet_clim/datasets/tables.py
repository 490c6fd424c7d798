# Licensed under the Apache License, Version 2.0.
"""Tables of people: ``.csv`` and ``.tsv``, with errors that name a line."""
import csv
import re
from itertools import chain
from typing import Iterable, Iterator, List, Tuple

#: Suffixes of tables.
TABLES = ('.csv', '.tsv')
# A cell that is quoted as a whole, its own quotation marks written twice.
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


def table_rows(lines: Iterable[Tuple[int, str]],
               suffix: str,
               where: str,
               skip_blanks: bool = False) -> Iterator[Tuple[int, List[str]]]:
    """The rows of a table that are not empty.

    In a ``.tsv`` a quotation mark is a character as any other, but for a cell
    that is quoted as a whole, as spreadsheets write it. A ``.csv`` has
    semicolons instead of commas where its first line has no comma, as
    spreadsheets write it where commas stand in numbers.

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
    reader = csv.reader(
        (f'{line}\n' for line in chain([first], (line for _, line in lines))),
        delimiter=';' if ';' in first and ',' not in first else ',',
        skipinitialspace=skip_blanks,
        strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f'{where}: not a valid table: after line '
                         f'{reader.line_num}: {error}') from error

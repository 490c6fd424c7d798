# Licensed under the Apache License, Version 2.0.
"""Class names out of the texts and files in which people keep them."""
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .coco_annotations import CocoChecker
from .json_files import parse_json
from .tables import TABLES, table_rows
from .text_files import decode_text, read_text_bytes

#: Suffixes of files that hold names.
TEXT_SUFFIXES = ('.txt', '.names', '.labels', '.lst')
YAML_SUFFIXES = ('.yaml', '.yml')
SUFFIXES = (*TEXT_SUFFIXES, '.json', *YAML_SUFFIXES, *TABLES)
#: The longest name, in characters; those of LVIS have up to 34.
LONGEST = 200
# What a column, or the key of a file, of names is called.
HEADERS = ('name', 'names', 'class', 'classes', 'class name', 'class_name',
           'classname', 'category', 'categories', 'category_name', 'label',
           'labels', 'display_name')
KEYS = ('categories', 'names', 'classes')
# A suffix of any kind of file: letters and digits, with a letter first.
_SUFFIX = re.compile(r'\.[A-Za-z][A-Za-z0-9]{0,4}$')
_BRACKETS = {'[': '.json', '{': '.json'}
# Between names in one text, those of Chinese and Japanese included.
_SEPARATORS = re.compile('[,;|\t\n\r\uff0c\uff1b\u3001]')
_QUOTES = {'"': '"', "'": "'", '\u201c': '\u201d'}
_OPEN = {'(': ')', '[': ']', '{': '}'}
# What stands before each line of a list: a dash, or a number of its own.
_BULLET = re.compile(r'[-*\u2022]\s+')
_NUMBER = re.compile(r'(\d+)(\s*[:.),;\t]\s*|\s+)')


def split_names(text: str, is_line: bool = False) -> list[str]:
    """Names that stand in one text.

    Between them are commas, semicolons, bars, line breaks, or points as
    Grounding DINO writes them: ``'cat . dog .'`` or ``'cat. dog.'``. A text
    in brackets is a list as of JSON, Python or YAML.

    Args:
        text (str): Such as ``'cat, traffic light'``.
        is_line (bool): Whether it is a line of a file, in which a name may
            have a point.

    Returns:
        list[str]: The names, in order; empty if there is none.

    Raises:
        ValueError: If a point within the text may or may not end a name, as
            in ``'cat. dog'``, or what is in brackets is no list of names.

    Example:
        >>> split_names('cat. traffic light.')
        ['cat', 'traffic light']
        >>> split_names('U.S. mail box, cat')
        ['U.S. mail box', 'cat']
    """
    if text.lstrip()[:1] in _BRACKETS:
        # YAML reads JSON, Python's quotes, and lists without quotes.
        return clean_names(
            _names_in(parse_yaml(text, 'vocabulary'), 'vocabulary'))
    parts = [part.strip() for part in _SEPARATORS.split(text)]
    alone = len([part for part in parts if part]) == 1
    names = []
    for part in parts:
        # A point at the end, and another one, are of Grounding DINO.
        pointed = bool(re.search(r'(^|\s)\.(\s|$)', part))
        if not pointed and part.endswith('.') and '. ' in part:
            names += re.split(r'\.(?:\s+|$)', part)
        elif re.fullmatch(r'([^.\s]{2,}\.){2,}', part):
            # Without white space; "U.S." is of single letters.
            names += part.split('.')
        elif pointed:
            names += re.split(r'(?:^|\s)\.(?=\s|$)', part)
        elif alone and '. ' in part and not is_line:
            raise ValueError(
                f'vocabulary: {text!r}: expected names with commas between '
                "them, or ' . ' as in 'cat . dog'; a name with a point in it "
                'can be given in a list or a file')
        else:
            names.append(part)
    names = [_unquoted(_without_point(name)) for name in names]
    return [name for name in names if name]


def _unquoted(name: str) -> str:
    """A name without the quotation marks around it."""
    if len(name) > 2 and _QUOTES.get(name[0]) == name[-1]:
        return name[1:-1].strip()
    return name


def _without_point(name: str) -> str:
    """``'cat'`` of ``'cat.'``, and ``'U.S.'`` as it is."""
    name = name.strip()
    return name[:-1].rstrip() if name.find('.') == len(name) - 1 else name


def clean_names(names: Iterable[Any], where: str = 'vocabulary') -> list[str]:
    """Names without white space around them, when they can be names.

    Args:
        names (Iterable): What is to be strings.

    Raises:
        ValueError: If there is none; one is no string, empty, longer than
            ``LONGEST``, has control characters or is a list of names or a
            file of them; or two differ in nothing but case, white space or
            invisible characters.
    """
    cleaned = []
    for number, name in enumerate(names, 1):
        if not isinstance(name, str):
            hint = ''
            if isinstance(name, (bool, int, float)):
                hint = ('; YAML takes yes, no, on, off and numbers for '
                        'themselves where they have no quotes')
            # A few aliases of YAML may stand for gigabytes.
            shown = type(name).__name__ if isinstance(name,
                                                      (list, dict, tuple,
                                                       set)) else repr(name)
            raise ValueError(
                f'{where}: every class name must be a non-empty string, got '
                f'{shown} as number {number}{hint}')
        cleaned.append(_clean(name, f'{where}: name {number}'))
    if not cleaned:
        raise ValueError(f'{where}: expected at least one class name, got '
                         'none')
    same = defaultdict(list)
    for name in cleaned:
        same[compared_name(name)].append(name)
    twice = [found for found in same.values() if len(found) > 1]
    exact = [found[0] for found in twice if len(set(found)) == 1]
    if exact:
        raise ValueError(
            f'{where}: class names must differ, given twice: {exact}')
    if twice:
        raise ValueError(f'{where}: class names must differ in more than '
                         f'case and white space, got {twice[0]}')
    return cleaned


def _clean(name: str, where: str) -> str:
    """One name, checked."""
    bare = ' '.join(name.strip('\ufeff\u200b').split(' ')).strip()
    if not compared_name(bare):
        raise ValueError(f'{where}: every class name must be a non-empty '
                         f'string, got {name!r}')
    if len(bare) > LONGEST:
        raise ValueError(
            f'{where}: expected at most {LONGEST} characters, got '
            f'{len(bare)}: {bare[:60]!r} ...')
    wrong = [c for c in bare if unicodedata.category(c) in ('Cc', 'Cs', 'Zl')]
    if wrong:
        raise ValueError(f'{where}: expected no control characters, got '
                         f'{bare!r}')
    if bare[0] in _QUOTES or not _is_balanced(bare):
        raise ValueError(
            f'{where}: {bare!r} has quotation marks or brackets that are not '
            'closed, expected the name of a class; the text may be the code '
            'of something else')
    if ' . ' in bare or (bare.endswith('.') and '. ' in bare):
        raise ValueError(
            f'{where}: {bare!r} is several names; give each on its own, or '
            'all of them in one text')
    if bare.lower().endswith(SUFFIXES):
        raise ValueError(f'{where}: {bare!r} is the name of a file; give the '
                         'path of one file alone, or names')
    return re.sub(r'\s+', ' ', bare)


def _is_balanced(name: str) -> bool:
    """Whether every bracket in a name is closed."""
    waiting = []
    for character in name:
        if character in _OPEN:
            waiting.append(_OPEN[character])
        elif character in _OPEN.values() and (not waiting
                                              or waiting.pop() != character):
            return False
    return not waiting


def compared_name(name: str) -> str:
    """What two names share that are one for a reader.

    Args:
        name (str): Case, white space and invisible characters do not count.
    """
    name = unicodedata.normalize('NFKC', name).casefold()
    return ' '.join(''.join(
        c for c in name if unicodedata.category(c) != 'Cf').split())


def spelling(name: str) -> str:
    """What a class name and a label of other tools share that mean one class.

    Args:
        name (str): As of :func:`compared_name`; blanks, ``_`` and ``-`` are
            the same.
    """
    return compared_name(re.sub(r'[\s_-]+', ' ', name))


def names_by_spelling(phrases: Iterable[Sequence[str]]) -> Mapping[str, str]:
    """The name of the class that a label means, by :func:`spelling`.

    Args:
        phrases (Iterable[Sequence[str]]): Of each class its name, and what
            else it is called. Names come before other phrases.
    """
    phrases = list(phrases)
    found = {spelling(of[0]): of[0] for of in phrases}
    for of in phrases:
        for phrase in of:
            found.setdefault(spelling(phrase), of[0])
    return found


def is_file_of_names(text: str) -> bool:
    """Whether a text is the path of a file, and not names.

    A text is a path if there is such a file, or if it looks like one: of one
    word with a folder before it or with the suffix of a file.

    Args:
        text (str): What was given as a vocabulary.
    """
    if any(unicodedata.category(c) == 'Cc' for c in text):
        return False
    try:
        if Path(text).expanduser().exists() and (
                not Path(text).is_dir() or re.search(r'[/\\]|^\.+$', text)):
            return True
    except (OSError, ValueError, RuntimeError):
        # Such as a text longer than the name of a file may be.
        return False
    if re.match(r'[/\\]|\.{1,2}[/\\]|~[/\\]|[A-Za-z]:\\', text):
        return True
    if text.lower().endswith(SUFFIXES):
        return len(split_at_commas(text)) == 1
    one_word = not re.search(r'[\s,;]', text.strip())
    return one_word and bool(re.search(r'[/\\]', text) or _SUFFIX.search(text))


def with_files_read(texts: Iterable[str]) -> list[str]:
    """Texts of a command line, in which a file stands for its names.

    Args:
        texts (Iterable[str]): Names or sentences, each as it is, or paths.

    Returns:
        list[str]: The texts; of a path, what :func:`read_class_names` reads.

    Raises:
        OSError: If such a file does not exist.
        ValueError: If one cannot be read as names.
    """
    return [
        name for text in texts for name in (
            read_class_names(text) if is_file_of_names(text) else [text])
    ]


def split_at_commas(text: str) -> list[str]:
    """The parts of a text that are not empty."""
    return [part for part in _SEPARATORS.split(text) if part.strip()]


def read_class_names(path: str | Path) -> list[str]:
    """Read the names that a file holds.

    ======================== ==============================================
    ``.txt`` and others      a name per line, or names in one line
    ``.json``                a list of names; COCO's or LVIS's annotations or
                             their list of categories, in the order of the
                             ids; an object with ``names`` or ``classes``, or
                             with names by their numbers
    ``.yaml``, ``.yml``      a list, or ``names`` as a list or by number, as
                             in Ultralytics' data files
    ``.csv``, ``.tsv``       one column, or one that is called ``name``
    ======================== ==============================================

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is of another kind, can not be decoded, or what it
            holds can not be read as names.
    """
    file = Path(path).expanduser()
    where = f'vocabulary: {file}'
    try:
        if not file.exists():
            raise FileNotFoundError(
                f'{where} does not exist; expected a file of class names '
                f'({" ".join(SUFFIXES)}), or names: a list, or a text with '
                'commas between them')
        if not file.is_file():
            raise ValueError(f'{where} is a folder or no regular file, '
                             'expected a file of class names')
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f'{where} cannot be opened ({error})') from error
    suffix = file.suffix.lower()
    if suffix and suffix not in SUFFIXES:
        raise ValueError(
            f'{where}: class names cannot be read from a {suffix} file, '
            f'expected one of {" ".join(SUFFIXES)}')
    text = decode_text(read_text_bytes(file), where)
    if suffix in TEXT_SUFFIXES or not suffix:
        # JSON under another name is known by its first character.
        suffix = _BRACKETS.get(text.lstrip()[:1], '')
    if suffix == '.json':
        names = _names_in(parse_json(text, where, unique_keys=True), where)
    elif suffix in YAML_SUFFIXES:
        names = _names_in(parse_yaml(text, where), where)
    elif suffix in TABLES:
        names = _column(text, suffix, where)
    else:
        names = _lines(text, where)
    return clean_names(names, where)


def _lines(text: str, where: str) -> list[str]:
    """A name per line, or the names of the only line."""
    lines = [line.strip() for line in text.split('\n')]
    lines = [line for line in lines if line and not line.startswith('#')]
    if lines and re.match(r'\s*<[!?A-Za-z]', lines[0]):
        raise ValueError(f'{where}: expected a class name per line, got a '
                         f'page of markup: {lines[0].strip()[:60]!r}')
    if len(lines) == 1:
        return split_names(lines[0], True)
    if all(map(_BULLET.match, lines)):
        lines = [_BULLET.sub('', line, count=1) for line in lines]
    lines = _without_numbers(lines)
    if all(line.endswith((',', ';')) for line in lines[:-1]):
        lines = [line.rstrip(',; ') for line in lines]
    return [_unquoted(line) for line in lines]


def _without_numbers(lines: list[str]) -> list[str]:
    """Names of lines that are numbered from 0 or 1.

    Behind a number from 1 on must be a point or the like: "1 euro" and
    "2 euro" are names.
    """
    found = [match for match in map(_NUMBER.match, lines) if match]
    if not lines or len(found) < len(lines):
        return lines
    numbers = [int(match[1][:18]) for match in found]
    first = numbers[0]
    if numbers != list(range(first, first + len(lines))) or first > 1 or (
            first == 1 and any(match[2].isspace() and '\t' not in match[2]
                               for match in found)):
        return lines
    return [line[match.end():] for line, match in zip(lines, found)]


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which no object has a key twice; PyYAML takes the last."""

    def construct_mapping(self, node, deep: bool = False) -> dict:
        """As in PyYAML, with an error."""
        merged = any(key.tag == 'tag:yaml.org,2002:merge'
                     for key, _ in node.value)
        found = super().construct_mapping(node, deep)
        if not merged and len(found) < len(node.value):
            raise yaml.constructor.ConstructorError(
                problem='duplicate key', problem_mark=node.start_mark)
        return found


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML, naming the place where it is none.

    Raises:
        ValueError: If it is not valid, nested too deeply, or an object has a
            key twice.
    """
    try:
        return yaml.load(text, _UniqueKeys)  # a SafeLoader
    except RecursionError:
        raise ValueError(f'{where}: not valid YAML (nested too deeply)') \
            from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f'{where}: not valid YAML '
                         f'({" ".join(str(error).split())})') from error


def _names_in(content: Any, where: str, inner: bool = False) -> Sequence:
    """Names in what JSON or YAML holds, or in a part of it."""
    if isinstance(content, str):
        return split_names(content)
    if isinstance(content, list):
        if content and all(isinstance(entry, dict) for entry in content):
            return _of_categories(content, where)
        return content
    if isinstance(content, dict):
        key = next((key for key in KEYS if key in content), None)
        if key is not None and not inner:
            names = _names_in(content[key], f'{where}: {key}', True)
            if content.get('nc', len(names)) != len(names):
                raise ValueError(f'{where}: nc is {content["nc"]!r}, but '
                                 f'{key} has {len(names)} names')
            return names
        numbered = names_by_number(content)
        if numbered is not None:
            return numbered
        raise ValueError(
            f'{where}: expected a list of names, or one under one of the '
            f'keys {", ".join(KEYS)}, got the keys '
            f'{[str(key) for key in content][:8]}')
    raise ValueError(f'{where}: expected a list of names, got '
                     f'{type(content).__name__}')


def names_by_number(content: Mapping) -> list | None:
    """The values in the order of their keys, which are numbers.

    Args:
        content (Mapping): Such as ``{0: 'cat', 1: 'dog'}``.

    Returns:
        list or None: None if a key is no number.
    """
    try:
        numbers = {int(key): value for key, value in content.items()}
    except (TypeError, ValueError):
        return None
    if len(numbers) != len(content) or not numbers:
        return None
    return [numbers[number] for number in sorted(numbers)]


def _of_categories(categories: list[dict], where: str) -> list[str]:
    """Names of COCO's list of categories, in the order of their ids."""
    checker = CocoChecker(where)
    numbered = any(category.get('id') is not None for category in categories)
    for number, category in enumerate(categories):
        checker.category(
            number,
            dict(category) if numbered else dict(category, id=number))
    return [name for _, name in sorted(checker.categories.items())]


def _column(text: str, suffix: str, where: str) -> list[str]:
    """The names of a table."""
    lines = enumerate(text.split('\n'), 1)
    rows = [
        row for _, row in table_rows(lines, suffix, where, skip_blanks=True)
        if any(cell.strip() for cell in row)
    ]
    if not rows:
        return []
    header = [cell.strip().lower() for cell in rows[0]]
    titled = [i for i, cell in enumerate(header) if cell in HEADERS]
    if len(header) == 1:
        column, rows = 0, rows[bool(titled):]
    elif len(titled) == 1:
        column, rows = titled[0], rows[1:]
    elif len(rows) == 1:
        return rows[0]
    else:
        raise ValueError(
            f'{where}: expected one column, or one that is called '
            f'{HEADERS[0]!r}, got {len(header)} columns: {rows[0][:6]}')
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise ValueError(
                f'{where}: expected {len(header)} columns, row {number} has '
                f'{len(row)}: {row[:6]}; quote names that '
                'have commas in them')
    return [row[column] for row in rows]

# Licensed under the Apache License, Version 2.0.
"""Join C++ and CUDA sources, so that their common headers are read once.

Nearly all of the time in which a file of mmcv compiles goes into the headers
of torch. Sources of one folder are therefore included in one file, except for
those that define the same name at file scope: these go to different files.
"""
import re
from pathlib import Path

# A definition at file scope, in text without comments, literals and bodies:
# a type, an alias, a variable, or else the name before the parameters of a
# function that has a body.
TYPE = re.compile(r'\b(?:struct|class|union|enum(?:\s+class)?)\s+(\w+)')
ALIAS = re.compile(r'\busing\s+(\w+)\s*=|\btypedef\b.*?(\w+)\s*$', re.DOTALL)
VARIABLE = re.compile(r'(\w+)\s*(?:\[[^\]]*\]\s*)?=')
FUNCTION = re.compile(r'(\w+)\s*\(')
# Its braces open no scope.
NAMESPACE = re.compile(r'^\s*(?:inline\s+)?(?:namespace\b[^(]*|extern\s*)$')
NO_CODE = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'',
    re.DOTALL)
DIRECTIVE = re.compile(r'^[ \t]*#(?:[^\n]*\\\n)*[^\n]*', re.MULTILINE)
MACRO = re.compile(r'#\s*(define|undef)\s+(\w+)')
INCLUDE = re.compile(r'^[ \t]*#\s*include\s*[<"]([^">]+)[">]', re.MULTILINE)


def macros(text: str) -> set[str]:
    """Names of the macros that are still defined at the end of a source."""
    defined = set()
    for verb, name in MACRO.findall(text):
        (defined.add if verb == 'define' else defined.discard)(name)
    return defined


def definitions(text: str) -> set[str]:
    """Names that a source defines at file scope or in its namespaces."""
    text = NO_CODE.sub(' ', DIRECTIVE.sub(' ', text))
    names, statement, depth = set(), '', 0
    for token in re.split(r'([{};])', text):
        if depth:
            depth += {'{': 1, '}': -1}.get(token, 0)
            if depth == 0:
                statement = ''
        elif token == '{':
            if not NAMESPACE.match(statement):
                names |= _defined(statement, has_body=True)
                depth = 1
            statement = ''
        elif token in ('}', ';'):
            names |= _defined(statement, has_body=False)
            statement = ''
        else:
            statement += token
    return names


def _defined(statement: str, has_body: bool) -> set[str]:
    """The name that a statement at file scope defines, as a set."""
    statement = re.sub(r'\btemplate\s*<[^{}]*?>\s*(?=\w)', ' ', statement)
    alias = ALIAS.search(statement)
    if alias:
        return {alias[1] or alias[2]}
    head = statement.split('(')[0]
    found = None
    if has_body and '(' not in statement:
        found = TYPE.search(statement) or VARIABLE.search(statement)
    elif has_body:
        found = FUNCTION.search(statement)
    elif '=' in head:
        found = VARIABLE.search(head)
    return {found[1]} if found else set()


def texts_of(source: Path, include_dirs: list[Path]) -> dict[Path, str]:
    """A source and the project's own headers that it includes.

    Args:
        source (Path): A source.
        include_dirs (list[Path]): Folders with headers of the project itself.

    Returns:
        dict[Path, str]: Text of each file, the source first.
    """
    texts, files = {}, [source]
    for file in files:
        texts[file] = file.read_text(encoding='utf-8', errors='replace')
        for include in INCLUDE.findall(texts[file]):
            places = (
                folder / include for folder in (file.parent, *include_dirs))
            header = next((place for place in places if place.exists()), None)
            if header is not None and header.resolve() not in files:
                files.append(header.resolve())
    return texts


def names_of(source: Path, include_dirs: list[Path]) -> dict[str, Path]:
    """Where each name is defined that a source brings into a joined file.

    Args:
        source (Path): A source.
        include_dirs (list[Path]): Folders with headers of the project itself.

    Returns:
        dict[str, Path]: Names that the source and the headers that it
        includes define, and the file that does.
    """
    names = {}
    for file, text in texts_of(source, include_dirs).items():
        for name in definitions(text):
            # A source can specialise a template of a header; where another
            # source uses this template, it has to be the header's.
            names.setdefault(name, file)
    return names


def groups(sources: list[Path], include_dirs: list[Path],
           most_lines: int) -> list[list[Path]]:
    """Sources that can be one file each, by first fit.

    Args:
        sources (list[Path]): Sources of one language.
        include_dirs (list[Path]): Folders with headers of the project itself.
        most_lines (int): A group has no more of them, unless it is a single
            source.

    Returns:
        list[list[Path]]: Groups in which no two sources define a name in
        different places.
    """
    found = []
    for source in sorted(sources):
        names = names_of(source, include_dirs)
        lines = len(source.read_text(errors='replace').splitlines())
        for group in found:
            if group['lines'] + lines <= most_lines and all(
                    group['names'].get(name, file) == file
                    for name, file in names.items()):
                break
        else:
            group = dict(lines=0, names={}, sources=[])
            found.append(group)
        group['lines'] += lines
        group['names'].update(names)
        group['sources'].append(source)
    return [group['sources'] for group in found]


def joined_text(sources: list[Path], include_dirs: list[Path]) -> str:
    """A source that includes others, and drops the macros of each.

    Macros that a header of the project defines too are kept: the header is
    read once, for the sources that come later as well.
    """
    lines = []
    for source in sources:
        text, *headers = texts_of(source, include_dirs).values()
        kept = set().union(*map(macros, headers))
        lines.append(f'#include "{source.resolve()}"')
        lines += [f'#undef {name}' for name in sorted(macros(text) - kept)]
    return '\n'.join(lines) + '\n'

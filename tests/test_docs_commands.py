# Licensed under the Apache License, Version 2.0.
"""Commands, links and code of the pages, without running them."""
import argparse
import re
import runpy
import shlex
import sys

import pytest

from mmdet_clim_cli import options
from mmdet_clim_cli.__main__ import COMMANDS, Command

FENCE = re.compile(r'^( *)```([^\n`]*)\n(.*?)^\1```', re.DOTALL | re.MULTILINE)
#: Options that mim takes before it runs a script.
MIMS_OWN = ('--gpus', '--gpus-per-node', '--partition')


def pages(repository):
    # The zoo is made with the documentation.
    return [
        repository / 'README.md',
        *(page for page in sorted(repository.glob('docs/*.md'))
          if page.name != 'model_zoo.md'),
        *sorted(repository.glob('configs/**/README.md'))
    ]


def blocks(page):
    return [(language, re.sub(f'^{indent}', '', text, flags=re.MULTILINE))
            for indent, language, text in FENCE.findall(
                page.read_text(encoding='utf-8'))]


def command_lines(page):
    for language, text in blocks(page):
        if language in ('', 'bash', 'sh'):
            for line in text.replace('\\\n', ' ').splitlines():
                yield line.partition('  #')[0].strip()


def script_and_words(line):
    """The script below tools/ that a line runs, and its words."""
    try:
        words = shlex.split(line.replace('...', ''), comments=True)
    except ValueError:
        return None
    while words and re.fullmatch(r'[A-Z_]+=\S*', words[0]):
        words = words[1:]
    if words[:1] == ['clim']:
        commands = COMMANDS
        for number, word in enumerate(words[1:], 2):
            if word not in commands:
                return None
            if isinstance(commands[word], Command):
                return commands[word].script, words[number:]
            commands = commands[word].commands
        return None
    if words[:2] and words[0] == 'mim' and words[1:3] in ([
            'train', 'mmdet_clim'
    ], ['test', 'mmdet_clim']):
        return f'{words[1]}.py', [
            word for word in words[3:] if word not in MIMS_OWN
        ]
    for number, word in enumerate(words[:4]):
        if word.startswith('tools/') and word.endswith('.py'):
            return word.removeprefix('tools/'), words[number + 1:]
    return None


class Captured(Exception):
    """Carries a parser out of a tool."""


@pytest.fixture
def options_of(repository, monkeypatch):
    """The options that a script of tools/ has, with their old names apart."""
    known = {}

    def capture(self, args=None, namespace=None):
        raise Captured(self)

    def find(script):
        if script not in known:
            with monkeypatch.context() as patch:
                patch.setattr(
                    sys, 'path',
                    [str((repository / 'tools' / script).parent), *sys.path])
                patch.setattr(argparse.ArgumentParser, 'parse_known_args',
                              capture)
                patch.setattr(options.Parser, 'parse_known_args', capture)
                tool = runpy.run_path(str(repository / 'tools' / script))
                try:
                    (tool.get('parse_args') or tool['main'])()
                except Captured as stop:
                    known[script] = set(stop.args[0]._option_string_actions)
        return known[script]

    return find


def test_commands_of_the_pages_have_their_options(repository, options_of):
    checked, wrong = set(), []
    for page in pages(repository):
        for line in command_lines(page):
            found = script_and_words(line)
            if found is None:
                continue
            script, words = found
            if not (repository / 'tools' / script).is_file():
                wrong.append(f'{page.name}: {script}')
                continue
            checked.add(script)
            wrong += [
                f'{page.name}: {script} {word}' for word in words
                if re.match(r'--\w', word)
                and word.partition('=')[0] not in options_of(script)
            ]
    assert wrong == []
    assert len(checked) > 20, checked


def test_scripts_that_the_pages_name_are_there(repository):
    named = {(page, name)
             for page in pages(repository)
             for name in re.findall(
                 r'(?<![\w/.])'
                 r'((?:tools|benchmarks|configs|docs|tests|mmdet_clim)/'
                 r'[\w./-]+\.(?:py|sh|md|yml|yaml|json|ipynb))',
                 page.read_text(encoding='utf-8'))}
    assert len(named) > 100
    missing = [
        (page.name, name) for page, name in named
        if not (repository / name).exists()
        # A pattern such as {train,val}, or what a run writes.
        and not any(c in name for c in '*{<')
    ]
    assert missing == []


def test_modules_that_the_design_notes_name_are_there(repository):
    notes = (repository / 'docs' / 'design_notes.md').read_text('utf-8')
    named = set(re.findall(r'`(\w+\.py)`', notes))
    assert len(named) > 3
    assert named <= {path.name for path in repository.glob('*/**/*.py')}


def test_sections_of_the_published_work_that_the_code_cites(repository):
    page = (repository / 'REFERENCE.md').read_text('utf-8')
    known = set(re.findall(r'^## (\d+)\. ', page, re.MULTILINE))
    cited = {
        number
        for folder in ('mmdet_clim', 'configs', 'tools', 'tests', 'benchmarks')
        for path in (repository / folder).glob('**/*')
        if path.suffix in ('.py', '.yml', '.yaml') for number in re.findall(
            r'REFERENCE(?:\.md)?,?\s*(?:#\s*)?section\s+(\d+)',
            path.read_text('utf-8'))
    }
    assert {'1', '7'} <= cited <= known


def test_python_of_the_pages_is_python(repository):
    count = 0
    for page in pages(repository):
        for language, text in blocks(page):
            if language == 'python':
                compile(text, f'a block of {page.name}', 'exec')
                count += 1
    assert count > 20


def anchor(heading):
    """As Sphinx (MyST) and GitHub make it of a heading."""
    text = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading)
    text = re.sub(r'[^\w\- ]', '', text.strip().lower())
    return text.replace(' ', '-')


def anchors(page):
    text = FENCE.sub('', page.read_text(encoding='utf-8'))
    return {anchor(of) for of in re.findall(r'^#+ (.*)', text, re.MULTILINE)}


def test_links_lead_to_headings(repository):
    count = 0
    for page in pages(repository):
        # Names of the API are checked by Sphinx.
        for target, name in re.findall(
                r'\]\(([^)#\s:]*)#(?!mmdet_clim\.)([^)\s]+)\)',
                page.read_text(encoding='utf-8')):
            file = (page.parent / target).resolve() if target else page
            if file.suffix == '.md':
                assert name in anchors(file), f'{page.name}: {target}#{name}'
                count += 1
    assert count > 10

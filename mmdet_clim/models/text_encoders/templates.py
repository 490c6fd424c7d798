# Licensed under the Apache License, Version 2.0.
"""Prompt templates of class names, and sets of them that have a name."""
import re
from typing import Callable, Dict, List, Sequence, Tuple, Union

from .vild_templates import VILD_TEMPLATES

#: Templates, or the name of a set of them.
Templates = Union[str, Sequence[str]]

DEFAULT_TEMPLATES = ('a photo of a {}.', )
#: Where the name goes, or the name as the data set's file has it; and where
#: "a" or "an" for it.
NAME = '{}'
RAW_NAME = '{raw}'
ARTICLE = '{article}'


def imagenet_templates() -> List[str]:
    """The 80 ImageNet templates of CLIP, from open_clip."""
    import open_clip
    return [fill(NAME) for fill in open_clip.OPENAI_IMAGENET_TEMPLATES]


def vild_templates() -> List[str]:
    """The 63 templates of ViLD; "This is " comes before "a" and "the"."""
    opening = ('a', 'the')
    return [
        f'This is {text}' if text.startswith(opening) else text
        for text in VILD_TEMPLATES
    ]


#: Sets of templates by name.
NAMED_TEMPLATES: Dict[str, Callable[[], List[str]]] = dict(
    imagenet=imagenet_templates, vild=vild_templates)


def resolve_templates(templates: Templates) -> Tuple[str, ...]:
    """Templates of a set, or those that are given.

    Args:
        templates (str or Sequence[str]): ``'vild'``, ``'imagenet'``, or
            templates, each with ``{}`` once where the name goes, or all with
            ``{raw}`` for the vocabulary's raw name. In each, ``{article}``
            becomes "an" for a name that begins with a vowel and "a" for any
            other.

    Returns:
        tuple[str]: At least one template.

    Raises:
        TypeError: If ``templates`` is neither; a single template is not.
        ValueError: If there is no set of that name, there is no template,
            one holds the name not exactly once or another field, or some are
            of names and some of raw ones.
    """
    expected = (f'templates: expected one of the names '
                f'{sorted(NAMED_TEMPLATES)} or a sequence of templates, got ')
    if isinstance(templates, str):
        if templates in NAMED_TEMPLATES:
            return tuple(NAMED_TEMPLATES[templates]())
        wrong = TypeError if NAME in templates else ValueError
        raise wrong(f'{expected}the string {templates!r}')
    if not isinstance(templates, Sequence):
        raise TypeError(f'{expected}{templates!r}')
    if not templates:
        raise ValueError('templates: expected at least one, got none')
    for template in templates:
        _check(template)
    if len({RAW_NAME in template for template in templates}) > 1:
        raise ValueError(f'templates: expected {NAME} in all or {RAW_NAME} in '
                         f'all, got {list(templates)}')
    return tuple(templates)


def _check(template: str) -> None:
    if not isinstance(template, str):
        raise TypeError(f'templates: expected strings, got {template!r}')
    if template.count(NAME) + template.count(RAW_NAME) != 1:
        raise ValueError('templates: expected {} exactly once in each, got '
                         f'{template!r}')
    other = sorted(set(re.findall(r'\{\w+\}', template)) - {ARTICLE, RAW_NAME})
    if other:
        raise ValueError(
            f'templates: expected only the fields {NAME} or {RAW_NAME}, and '
            f'{ARTICLE}, got {other[0]} in {template!r}')


def fill_template(template: str, name: str) -> str:
    """The text of a class.

    Args:
        template (str): As :func:`resolve_templates` gives it.
        name (str): Of the class, not empty; the one that it asks for.

    Example:
        >>> fill_template('a photo of {article} {}.', 'orange')
        'a photo of an orange.'
    """
    article = 'an' if name.strip()[:1].lower() in tuple('aeiou') else 'a'
    template = template.replace(ARTICLE, article).replace(RAW_NAME, NAME)
    return template.replace(NAME, name)

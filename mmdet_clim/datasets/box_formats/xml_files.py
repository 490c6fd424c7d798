# Licensed under the Apache License, Version 2.0.
"""XML that came with data: no entities, no files of others."""
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from ..regular_files import read_regular


def read_xml(path: Path) -> Element:
    """The root of an XML file.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is no XML, or declares entities.
    """
    try:
        return fromstring(read_regular(path))
    except (ParseError, DefusedXmlException, LookupError, ValueError) as error:
        raise ValueError(f'{path}: not valid XML ({error})') from error

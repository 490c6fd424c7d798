# Licensed under the Apache License, Version 2.0.
from .bert import BertLanguageModel

__all__ = ['BertLanguageModel']

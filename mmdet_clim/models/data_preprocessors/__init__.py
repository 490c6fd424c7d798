# Licensed under the Apache License, Version 2.0.
from .branch_data_preprocessor import BOXES_BRANCH, BranchDataPreprocessor

__all__ = ['BOXES_BRANCH', 'BranchDataPreprocessor']

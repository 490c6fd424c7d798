# Licensed under the Apache License, Version 2.0.
"""Mosaics as grounding data."""
from .objective import GroundingObjective

__all__ = ['GroundingObjective']

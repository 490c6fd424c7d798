# Licensed under the Apache License, Version 2.0.
"""Bags of regions, as BARON has them (REFERENCE.md, section 3)."""

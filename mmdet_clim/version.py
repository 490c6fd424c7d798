# Licensed under the Apache License, Version 2.0.
__version__ = '1.0.0'

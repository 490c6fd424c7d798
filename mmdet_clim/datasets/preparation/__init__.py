# Licensed under the Apache License, Version 2.0.
"""From published or own data to the files that the datasets read."""

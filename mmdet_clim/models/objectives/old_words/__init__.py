# Licensed under the Apache License, Version 2.0.
"""What a detector said of words before, kept while it learns others."""

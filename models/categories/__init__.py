"""Photo categories: one label a photo, answered by a residual network. Start at ``spec.py``, then ``system.py``."""

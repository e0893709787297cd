"""From cells to runs with keys: parameters are resolved, what they read is found."""

"""Examining a home at rest: what is wrong with it, and mending what is safely mendable."""

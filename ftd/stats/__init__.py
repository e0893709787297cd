"""The numbers of a summary: pure functions from observations to levels, contrasts and cells.

The only room of the service that imports scipy; loaded by summaries alone.
"""

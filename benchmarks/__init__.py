"""What ftd costs, measured as ratios within one run: ``python -m benchmarks [NAME...]``.

One benchmark per module; ``docs/benchmarks.md`` holds the figures and what they mean.
"""

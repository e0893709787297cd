"""What people write, up to its cells: text, factors, levels, replicates, candidates."""

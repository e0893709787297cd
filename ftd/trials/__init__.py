"""Runs outside any home, interrupted on purpose: what the contract test of a job is made of."""

"""Generators of kernels that fusion never looks into: cumulative sums, sorting, indexing with run-time
checks."""

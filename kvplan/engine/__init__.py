"""The model run for real, in NumPy: caches, attention, layers, and a count of everything they touch."""

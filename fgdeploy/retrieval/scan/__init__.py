"""Exact Hamming search over arrays of packed codes. Needs NumPy; numba makes it fast."""

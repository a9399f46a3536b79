"""What every room stands on: errors, codes, atomic files, the machine. Needs NumPy only."""

"""Token reductions: one file each."""

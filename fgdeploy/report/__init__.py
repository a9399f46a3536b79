"""The report of a bundle: one page with its card, accuracy, speed and failures."""

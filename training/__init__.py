"""From photos to a run: the loop, the objectives, and what they are scored by. Needs `train`."""

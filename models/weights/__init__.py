"""Weights on disk: checkpoints read safely, where a backbone comes from, what a training leaves."""

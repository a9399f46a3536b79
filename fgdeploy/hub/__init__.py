"""Bundles from and to a model hub, kept for use without a network."""

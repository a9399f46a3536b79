"""Engines held to limits: parity, building with proof, timing."""

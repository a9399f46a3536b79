"""Hashing spread over many machines."""

"""Reduced precision: graphs with explicit Q/DQ and FP16 will be written here. Empty so far."""

"""Galleries on servers: the same answers in the same order as an index on this machine gives."""

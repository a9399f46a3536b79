"""The HTTP service: hash, search and enrol for other programs, on loopback by default."""

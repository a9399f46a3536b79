"""Which schedule of a method pays on this device: measured, searched, verified."""

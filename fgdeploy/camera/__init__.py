"""Frames from a camera, stream, file or program, hashed and answered as they come."""

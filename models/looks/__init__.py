"""Looking twice: which part of an image matters, and that part as an image of its own."""

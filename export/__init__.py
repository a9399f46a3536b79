"""From a PyTorch model to a proven bundle. Needs the `export` extra."""

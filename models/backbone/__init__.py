"""Plain timm Vision Transformers: made, checked, embedded into tokens, and blocks in pieces."""

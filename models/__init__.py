"""The published methods as PyTorch networks on timm Vision Transformers, and their weights.

Everything here but `reduce.stages` needs the `export` extra (torch, timm). The way through it is
drawn in docs/models.md.
"""

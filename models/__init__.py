"""The published models as PyTorch modules on timm Vision Transformers, and their checkpoints.

Everything here but `stages` and `macs` needs the `export` extra (torch, timm).
"""

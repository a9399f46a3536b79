"""Bundles as other servers want them: a Triton model repository, a DeepStream configuration."""

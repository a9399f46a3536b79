"""Hash heads: from a network's features to real-valued hashes; a code bit is hash > 0."""

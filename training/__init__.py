"""What is learned from photos: today the hash heads that need no labels (ITQ, LSH)."""

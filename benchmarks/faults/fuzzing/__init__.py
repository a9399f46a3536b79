"""What `fuzz.py` tries: a module for each kind of input, and what they share."""

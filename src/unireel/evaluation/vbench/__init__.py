"""VBench: its prompts and file layout, what of it can be computed without networks, and its aggregation."""

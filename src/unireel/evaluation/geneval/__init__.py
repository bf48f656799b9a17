"""GenEval: its prompts and file layout, and its summary of what its detectors found."""

"""Uni-ViGU: a video generator that learns to speak (arXiv 2604.08121)."""

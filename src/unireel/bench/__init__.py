"""Measuring speed side by side: the same weights in stock diffusers and here, in turns, in one run."""

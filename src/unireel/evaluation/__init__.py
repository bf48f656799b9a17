"""Evaluation: benchmarks with confidence intervals, and the pages that report them."""

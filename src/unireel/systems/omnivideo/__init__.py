"""Omni-Video (arXiv 2507.06119): a language model's visual tokens, adapted into a video decoder's context."""

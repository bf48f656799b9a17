"""Backbones: ordinary diffusers and transformers models, and what this project adds to them."""

"""The World: short films with exact ground truth (scenes, renderer, language, edits, splits, checker)."""

"""Editing: what an edit kept, inside and outside of a mask, how steady it is, and whether it was carried out."""

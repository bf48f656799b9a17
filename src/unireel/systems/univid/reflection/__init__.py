"""Pyramid Reflection: questions about long films, answered from the frames that matter (UniVid, algorithm 1)."""

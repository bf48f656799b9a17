"""Unireel models inside other people's evaluation programs: lmms-eval and VLMEvalKit.

Nothing here is imported by the rest of the package; what these programs bring with them is imported only there.
"""

"""Unireel models in VLMEvalKit, which has no plug-ins; see :mod:`unireel.adapters.vlmevalkit.__main__`."""

"""The web page at ``/``: make films, ask about them, and where the model can, edit and imagine them."""

from unireel.serving.page.mounting import mount

__all__ = ["mount"]

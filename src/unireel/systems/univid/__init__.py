"""UniVid (arXiv 2509.24200): an understanding model that steers a video diffusion decoder, and reflects on films."""

"""Films in and out of files: decoding under limits, encoding, sampling of frames, pictures for people."""

"""Films in and out of files: decoding under limits, encoding, frame sampling, and pictures for people to look at."""

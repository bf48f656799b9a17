"""Questions about videos: the public benchmarks' file formats, joined on ids, and every usual score of answers."""

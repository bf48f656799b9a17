"""Flow matching: paths, objectives and samplers."""

"""Systems: complete models with their configuration, pipeline and training stages."""

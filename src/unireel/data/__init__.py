"""Data: batches of the World, formats of public data sets, converters and feature caches."""

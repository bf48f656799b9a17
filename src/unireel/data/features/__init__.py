"""Features of real films, computed once: shards of safetensors under their own hashes, with a Parquet index."""

from unireel.data.features.building import Built, Source, build
from unireel.data.features.store import FeatureCache, Item

__all__ = ["Built", "FeatureCache", "Item", "Source", "build"]

"""The base system: separate pocket backbones for making and understanding films."""

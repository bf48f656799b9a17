"""Training: one loop for every stage of every system."""

from unireel.training.planning import plan
from unireel.training.recipe import Recipe, load_recipe
from unireel.training.running import export_only, run
from unireel.training.stage import ParameterRule, Stage

__all__ = ["ParameterRule", "Recipe", "Stage", "export_only", "load_recipe", "plan", "run"]

"""Training stages of the base system's components."""

from unireel.systems.base.stages.autoencoder import AutoencoderStage
from unireel.systems.base.stages.generator import GeneratorStage
from unireel.systems.base.stages.planner import PlannerStage
from unireel.systems.base.stages.ranker import RankerStage
from unireel.systems.base.stages.understanding import UnderstandingStage

__all__ = ["AutoencoderStage", "GeneratorStage", "PlannerStage", "RankerStage", "UnderstandingStage"]

"""Training stages of the base system's components."""

from unireel.systems.base.stages.autoencoder import AutoencoderStage
from unireel.systems.base.stages.compression import CompressionStage
from unireel.systems.base.stages.generator import GeneratorStage
from unireel.systems.base.stages.planner import PlannerStage
from unireel.systems.base.stages.ranker import RankerStage
from unireel.systems.base.stages.reinforcement import ReinforcementStage
from unireel.systems.base.stages.understanding import UnderstandingStage

__all__ = [
    "AutoencoderStage",
    "CompressionStage",
    "GeneratorStage",
    "PlannerStage",
    "RankerStage",
    "ReinforcementStage",
    "UnderstandingStage",
]

"""The stages of Omni-Video's training: heads, alignment of the adapter, flow matching, learning from verdicts."""

from unireel.systems.omnivideo.stages.alignment import AlignmentStage
from unireel.systems.omnivideo.stages.flow import FlowStage
from unireel.systems.omnivideo.stages.heads import HeadsStage
from unireel.systems.omnivideo.stages.reinforcement import EditReinforcementStage

__all__ = ["AlignmentStage", "EditReinforcementStage", "FlowStage", "HeadsStage"]

"""The stages of Omni-Video's training: heads, alignment of the adapter, flow matching."""

from unireel.systems.omnivideo.stages.alignment import AlignmentStage
from unireel.systems.omnivideo.stages.flow import FlowStage
from unireel.systems.omnivideo.stages.heads import HeadsStage

__all__ = ["AlignmentStage", "FlowStage", "HeadsStage"]

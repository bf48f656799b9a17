"""WorldBench: films, edits, answers and captions judged against the World's exact ground truth."""

from unireel.evaluation.worldbench.ledger import Ledger
from unireel.evaluation.worldbench.runner import Plan, Result, evaluate
from unireel.evaluation.worldbench.setting import Setting
from unireel.evaluation.worldbench.tasks import all_tasks, chosen_parts

__all__ = ["Ledger", "Plan", "Result", "Setting", "all_tasks", "chosen_parts", "evaluate"]

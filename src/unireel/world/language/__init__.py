"""The World's language: prompts, captions and questions from scenes, and facts back from text."""

from unireel.world.language.captions import (
    CaptionScore,
    caption_facts,
    caption_for,
    caption_score,
    repeated_names,
)
from unireel.world.language.instructions import facts_after, parse_instruction
from unireel.world.language.parser import Reading, parse, read
from unireel.world.language.plans import (
    PLAN_WORDS,
    beyond_first_frame,
    clauses_after,
    in_order_of_mention,
    is_exact,
    named_twice,
    plan_after,
    plan_for,
    plan_numbers,
    plan_worth,
    read_plan,
    rounded,
)
from unireel.world.language.prompts import Prompt, prompt_for
from unireel.world.language.questions import (
    DYNAMIC_TYPES,
    QUESTION_TYPES,
    STATIC_TYPES,
    Question,
    answer_choices,
    questions_for,
    sample_question,
)
from unireel.world.language.vocabulary import unknown_words, vocabulary, words

__all__ = [
    "DYNAMIC_TYPES",
    "PLAN_WORDS",
    "QUESTION_TYPES",
    "STATIC_TYPES",
    "CaptionScore",
    "Prompt",
    "Question",
    "Reading",
    "answer_choices",
    "beyond_first_frame",
    "caption_facts",
    "caption_for",
    "caption_score",
    "clauses_after",
    "facts_after",
    "in_order_of_mention",
    "is_exact",
    "named_twice",
    "parse",
    "parse_instruction",
    "plan_after",
    "plan_for",
    "plan_numbers",
    "plan_worth",
    "prompt_for",
    "questions_for",
    "read",
    "read_plan",
    "repeated_names",
    "rounded",
    "sample_question",
    "unknown_words",
    "vocabulary",
    "words",
]

"""From what is to be fine-tuned on which data to the tokens of a run: what no recipe can know."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.finetuning.asked import Asked
from launcher.finetuning.data import (
    chosen_by,
    evaluation,
    general_data,
    held_out,
    lengths,
    of_data,
    without_choice,
)
from launcher.finetuning.look import FinetuneLook
from launcher.finetuning.model import frozen, new_projections, of_start
from mmpretrain.config.choices import Choices
from mmpretrain.config.compose import compose


@dataclass(frozen=True)
class Tokens:
    """The tokens of the run, and what is worth a note."""

    tokens: tuple[str, ...]
    notes: tuple[str, ...]


def run_tokens(asked: Asked, world_size: int, choices: Choices) -> Tokens:
    """All tokens: what follows from model and data, and over it what the user says.

    Raises ConfigError and ShardError for data that cannot be read, StartError for what does not go together.
    """
    names = list(asked.start.entries)
    first = [*of_start(asked), *frozen(asked, names), *of_data(asked)]
    look = FinetuneLook(asked.start)
    known = compose([*first, *_meanwhile(asked, names), *asked.tokens], None, choices, look)
    asked, unchosen = without_choice(asked, known)
    second, notes = held_out(asked, known, look)
    tokens = [*first, *_meanwhile(asked, names), *second, *asked.tokens]
    known = compose(tokens, None, choices, FinetuneLook(asked.start))
    third, more = lengths(asked, known, world_size)
    second += [*third, *new_projections(asked, known), *evaluation(asked, known)]
    general, told = general_data(asked, names)
    return Tokens((*first, *second, *general, *asked.tokens), (*unchosen, *notes, *more, *told))


def _meanwhile(asked: Asked, names: list[str]) -> list[str]:
    """What stands for what is only known later, since what the user says may rest on it."""
    return [*chosen_by(asked, names), *([] if asked.says("evaluation.every_steps") else ["evaluation.every_steps=1"])]

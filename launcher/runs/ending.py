"""What a completed run leaves on the screen: its scores, its release, and what can be done next."""

from __future__ import annotations

import re

from rich.console import Console
from rich.table import Table
from rich.text import Text

from launcher.runs.show import after_completion
from launcher.runs.view import ABSENT, final_scores, number, shown
from mmpretrain.records import Score, change_lines, read_changes, told_ending
from mmpretrain.run_folder import RunFolder
from mmpretrain.words import command

MOST = 24  # rows; `runs show` has the others
# Of each metric what says most; scores of metrics that have none of these are all shown.
HEADLINES = re.compile(r"accuracy|f1\w*|roc_auc|average_precision|r2|recall@1|recall@10")


def show_end(folder: RunFolder, console: Console) -> None:
    """The scores with intervals and chance, or what became of them since the start; where the release is, and the next
    commands."""
    scores = shown(final_scores(folder))
    rows = headlines(scores)[:MOST]
    if changed := change_lines(read_changes(folder)):
        console.print()
        for line in changed:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    elif rows:
        console.print()
        console.print(score_table(rows))
    lines = [
        *told_ending(folder.status()),
        f"completed: {folder.path}",
        f"release: {folder.release} (its README.md opens it)",
    ]
    if len(rows) < len(scores):
        lines.insert(0, f"all {len(scores)} scores: {command('mmpretrain', 'runs', 'show', folder.path)}")
    for line in [*lines, "next:", *(f"  {line}" for line in after_completion(folder.path).splitlines())]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def headlines(scores: list[Score]) -> list[Score]:
    """The scores that say most."""
    telling = {score.metric for score in scores if HEADLINES.fullmatch(score.name)}
    return [score for score in scores if score.metric not in telling or HEADLINES.fullmatch(score.name)]


def score_table(scores: list[Score]) -> Table:
    """A line per score."""
    made = Table(title="Final evaluation", title_justify="left", box=None, pad_edge=False)
    made.add_column("score", overflow="fold")
    for column in ("value", "interval", "chance"):
        made.add_column(column, justify="right", no_wrap=True)
    for score in scores:
        made.add_row(*map(Text, (_name(score), number(score, score.value), interval(score), _chance(score))))
    return made


def interval(score: Score) -> str:
    """``40.0 % to 62.5 %``."""
    if score.low is None or score.high is None:
        return ABSENT
    return f"{number(score, score.low)} to {number(score, score.high)}"


def _name(score: Score) -> str:
    return " ".join(filter(None, (score.metric.replace("_", " "), score.subject.replace("->", " -> "), score.name)))


def _chance(score: Score) -> str:
    return ABSENT if score.chance is None else number(score, score.chance)

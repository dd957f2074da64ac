"""What fine-tuning changed: the same metrics before the first step and of what is released, and their differences."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict

from mmpretrain.distributed.world import World
from mmpretrain.evaluation.bootstrap import Measured
from mmpretrain.evaluation.evaluate import Scores, outcomes, plain, write_evaluation
from mmpretrain.evaluation.paired import change, load_outcomes, save_outcomes
from mmpretrain.files import replace_text
from mmpretrain.records import CHANCE, GENERAL, HIGH, LOW, Change, stands_beside
from mmpretrain.run_folder import RunFolder
from mmpretrain.training.measuring import Measuring

logger = logging.getLogger(__name__)


class BeforeAfter:
    """Measures the start and the end of a run alike; collective.

    own: what the run measures on its data. general: the same of data that it keeps out of training, None without any.
    """

    def __init__(self, folder: RunFolder, own: Measuring, general: Measuring | None, intervals: bool) -> None:
        self._folder, self._own, self._general, self._intervals = folder, own, general, intervals

    def before(self, world: World) -> None:
        """Measure what the run starts from and write it down, at its first start.

        What an earlier attempt wrote counts no more: without a checkpoint it may have been of another config.
        """
        found = self._own.final()[0]
        more = self.general()
        if world.rank == 0:
            measured = outcomes(found) | {GENERAL + name: score for name, score in outcomes(more).items()}
            save_outcomes(self._folder.outcomes_before, measured)
            write_evaluation(self._folder.evaluation_before, self.flat(found, more))

    def general(self) -> Scores:
        """The scores on the kept-out data (rank 0; {} elsewhere, and without such data)."""
        return {} if self._general is None else self._general.final()[0]

    def flat(self, own: Scores, general: Scores) -> dict[str, float]:
        """Both as one flat mapping, with ``general/`` before the names of the kept-out data."""
        more = plain(general, wanted=self._intervals)
        return plain(own, wanted=self._intervals) | {GENERAL + name: value for name, value in more.items()}

    def compared(self, own: Scores, general: Scores) -> list[Change]:
        """Write down and return what became of the scores since :meth:`before`; rank 0 only."""
        try:
            before = json.loads(self._folder.evaluation_before.read_text(encoding="utf-8"))
            outcomes_before = load_outcomes(self._folder.outcomes_before)
        except (OSError, ValueError, KeyError) as error:
            logger.warning("there is nothing to compare the evaluation with: %s", error)
            return []
        measured = outcomes(own) | {GENERAL + name: score for name, score in outcomes(general).items()}
        found = changes(before, self.flat(own, general), outcomes_before, measured)
        replace_text(self._folder.changes, json.dumps({"changes": [_row(entry) for entry in found]}, indent=1) + "\n")
        return found


def changes(
    before: Mapping[str, float],
    after: Mapping[str, float],
    outcomes_before: Mapping[str, Measured],
    outcomes_after: Mapping[str, Measured],
) -> list[Change]:
    """The scores of the same samples that both have, in the order of ``after``; chances and intervals stand beside
    them."""
    found = []
    for name, value in after.items():
        if name not in before or stands_beside(name, after):
            continue
        difference = None
        if name in outcomes_before and name in outcomes_after:
            if outcomes_before[name].outcomes.shape != outcomes_after[name].outcomes.shape:
                logger.warning("%s was measured on other samples before the run: it is not compared", name)
                continue
            difference = change(outcomes_before[name], outcomes_after[name])
        low, high = difference or (None, None)
        found.append(
            Change(
                name,
                before[name],
                value,
                before.get(name + LOW),
                before.get(name + HIGH),
                after.get(name + LOW),
                after.get(name + HIGH),
                low,
                high,
                after.get(name + CHANCE),
            )
        )
    return found


def _row(entry: Change) -> dict[str, object]:
    return {**asdict(entry), "verdict": entry.verdict}

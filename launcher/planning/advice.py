"""How a run goes on after each of its ends; nothing is promised that would end the same way again."""

from __future__ import annotations

from launcher.planning.going_on import another_run
from mmpretrain.endings import Ending
from mmpretrain.engine.checkpoint_files import lost, newest_step
from mmpretrain.run_folder import RunFolder

BEFORE = {
    Ending.bad_data: "repair the data, or raise the budget that the cause names; then ",
    Ending.disk_full: "free some space where the run's folder lies, or where the cause says; then ",
    Ending.unhealthy: "leave the node that the cause names out, or repair it; then ",
    Ending.setup: "mend what the cause names; then ",
    Ending.failed: "once what the cause names is mended, ",
}
"""What has to be done before the same command can go on; after the ends that are not here, nothing."""


def how_to_go_on(folder: RunFolder, ending: Ending, command: str) -> str:
    """What to do after a run ended, in one line. command: that it was started with."""
    step = newest_step(folder.checkpoints)
    if ending is Ending.diverged:
        return _after_divergence(folder, step, command)
    if ending is Ending.no_checkpoint or (step is None and lost(folder.checkpoints)):
        return _without_checkpoints(folder, command)
    where = "starts over, for there is no checkpoint yet" if step is None else f"continues after step {step}"
    return f"{BEFORE.get(ending, '')}the same command {where}: {command}"


def _after_divergence(folder: RunFolder, step: int | None, command: str) -> str:
    if step is None:
        return (
            "the same command would end the same way: start it with a lower optim.lr or with optim.clip; both may"
            f" still change, as there is no checkpoint: {command}"
        )
    start = f"{folder.path}@{step}"
    return (
        "the same command would end the same way: start another run from its last checkpoint, with a lower optim.lr or"
        f" with optim.clip: {another_run(folder, command, start=start)}"
    )


def _without_checkpoints(folder: RunFolder, command: str) -> str:
    ways = [f"restore a checkpoint in {folder.checkpoints}, and the same command goes on from it"]
    if folder.release.exists():
        ways.append(f"start another run from its release: {another_run(folder, command, start=str(folder.release))}")
    ways.append(f"start another run: {another_run(folder, command)}")
    return "it cannot go on by itself: " + "; or ".join(ways)

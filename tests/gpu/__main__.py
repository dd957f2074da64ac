"""`make gpu`: checks and figures that only a CUDA device can give, in eight minutes; elsewhere a sentence of why not.

    python -m tests.gpu [--out FILE]          # FILE: all of it as Markdown
    python -m tests.gpu --rehearsal           # everything at small sizes on the CPU: does it run?

Each part is a process of its own with a limit of seconds, and is cut when they are over: what it had said by then
counts. 1 if anything is wrong or a part that checks was cut; a cut benchmark is said and is no failure.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

LIMIT_S = 470  # of all parts together; the rest of eight minutes is for what starts them


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line of JSON per finding, and write the report; 1 if any is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the report goes, as Markdown")
    parser.add_argument("--rehearsal", action="store_true", help="small sizes on the CPU; figures say nothing")
    options = parser.parse_args(arguments)
    import torch

    if not (torch.cuda.is_available() or options.rehearsal):
        print(json.dumps({"skipped": "make gpu needs a CUDA device, and torch sees none here"}))
        return 0
    from tests.gpu.parts import PARTS, Outcome, run
    from tests.gpu.report import markdown

    start, outcomes = time.monotonic(), list[Outcome]()
    for part in PARTS:
        left = LIMIT_S - (time.monotonic() - start)
        seconds = 600.0 if options.rehearsal else max(1.0, min(part.seconds, left))
        outcome = run(part, seconds, "cpu" if options.rehearsal else "cuda:0", small=options.rehearsal)
        outcomes.append(outcome)
        for line in outcome.lines:
            print(json.dumps(line))
        told = {"part": part.title, "s": round(time.monotonic() - start), "wrong": outcome.wrong, "cut": outcome.cut}
        print(json.dumps(told), flush=True)
    where = _where(rehearsal=options.rehearsal)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(markdown(outcomes, where, time.monotonic() - start))
        print(json.dumps({"report": str(options.out)}))
    return int(any(outcome.wrong for outcome in outcomes))


def _where(*, rehearsal: bool) -> str:
    import torch

    if rehearsal:
        return "a rehearsal on the CPU, whose figures say nothing"
    return f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}"


if __name__ == "__main__":
    sys.exit(main())

"""The conversion in a process of its own, for who must not import torch:

python -m mmpretrain.hub.conversion_process SOURCE FOLDER [REVISION]      prints {"problems": [...]}
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    """Write the model SOURCE to FOLDER as a release."""
    from mmpretrain.hub.conversion import convert

    source, folder, *revision = sys.argv[1:]
    problems: list[str] = []
    try:
        convert(source, Path(folder), revision=revision[0] if revision else None)
    except (ValueError, OSError) as error:
        problems = getattr(error, "problems", None) or [str(error)]
    print(json.dumps({"problems": problems}))


if __name__ == "__main__":
    main()

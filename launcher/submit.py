"""Entry point: ``python launcher/submit.py --help``. Works on a bare clone and from any directory."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Run the command line of launcher/cli.py with the code of this checkout."""
    use_this_checkout()
    try:
        from launcher.cli import command_line
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("launcher", "mmpretrain"):
            raise
        sys.exit(f"error: {error.name} is not installed: run `make install` and use .venv/bin/python")
    command_line("python launcher/submit.py")(prog_name="launcher/submit.py")


def use_this_checkout() -> None:
    """Put the repository's root first on sys.path, unless a stranger's mmpretrain would have been found.

    Another checkout may be: the interpreter is often one in which that was installed.
    """
    # Python put this file's folder there, where our module names could shadow others.
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT / "launcher"]
    sys.path.insert(0, str(ROOT))
    from launcher.guard import require_this_project

    sys.path.append(sys.path.pop(0))
    require_this_project()
    sys.path.insert(0, str(ROOT))


if __name__ == "__main__":
    main()

"""Entry point of the ``mmpretrain`` command."""

from __future__ import annotations

from launcher.guard import require_own_package


def main() -> None:
    """Run the command line, once it is certain that ``mmpretrain`` is ours."""
    require_own_package()
    from mmpretrain.cli import app

    app(prog_name="mmpretrain")


if __name__ == "__main__":
    main()

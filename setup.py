"""What the wheel holds beside ``mmpretrain``; pyproject.toml, where all else stands, cannot say it.

The folders of a clone keep their names, but none of them becomes a package of such a common name in somebody's
environment: ``launcher`` is installed as ``mmpretrain_contrastive/launcher``, and so on.
"""

import shutil

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HOME = "mmpretrain_contrastive"
CODE, DATA = ("launcher", "shards"), ("configs", "slurm")


def packages_of(*names: str) -> list[str]:
    """The packages ``names`` of this clone and those below them."""
    return find_packages(include=[pattern for name in names for pattern in (name, f"{name}.*")])


class FreshBuild(build_py):
    """Starts from an empty build folder: setuptools keeps it, and would ship modules that were moved or removed."""

    def run(self) -> None:
        """Build as usual."""
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


setup(
    cmdclass={"build_py": FreshBuild},
    packages=[*packages_of("mmpretrain"), *(f"{HOME}.{name}" for name in (*packages_of(*CODE), *DATA))],
    package_dir={f"{HOME}.{name}": name for name in (*CODE, *DATA)},
    package_data={
        "": ["py.typed"],
        "mmpretrain.preview": ["*.html"],
        "mmpretrain.report": ["*.css", "*.html", "*.js"],
        f"{HOME}.configs": ["**/*.yaml"],
        f"{HOME}.slurm": ["*.yaml"],
    },
)

"""What documentation and sources name exists: files, folders, modules, and the targets of links."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Not CHANGELOG.md, which may name what is gone.
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/RESULTS.md")]
PAGES += sorted(ROOT.glob("docs/**/*.md"))
PACKAGES = ("benchmarks", "experiments", "launcher", "mmpretrain", "shards", "tests")
FOLDERS = (*PACKAGES, "configs", "docs", "slurm")
PLACEHOLDER = re.compile(r"NAME|ROOM|GROUP|CHOICE|FOLDER|\bmine\b")
MADE_BY_COMMANDS = ("runs/", "data/", "releases/")
# A file with at least one folder before it; a folder at the repository's top, with or without more behind it; a module.
FILE = re.compile(r"(?<![\w./:-])((?:[\w*.-]+/)+[\w*.-]+\.(?:py|yaml|md|sh|toml|svg))\b")
FOLDER = re.compile(rf"(?<![\w./-])((?:{'|'.join(FOLDERS)})/(?:\w+/)*)(?![\w*.-])")
MODULE = re.compile(rf"(?<![\w./-])((?:{'|'.join(PACKAGES)})(?:\.\w+)+)(?![\w(/])")
STARTED = re.compile(rf"python -m ((?:{'|'.join(PACKAGES)})(?:\.\w+)+)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
WRITTEN = re.compile(r"^<!-- file: (\S+) -->$", re.MULTILINE)
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def named_files(text: str) -> Iterator[str]:
    """Files and folders of the repository that a page names; placeholders and what commands write left out."""
    for pattern in (FILE, FOLDER):
        for name in pattern.findall(text):
            if not name.startswith(MADE_BY_COMMANDS) and not PLACEHOLDER.search(name):
                yield name


def exists(name: str, page: Path) -> bool:
    """Whether a file or folder is there: from the root, from the package, or from the page's own folder."""
    return any(any(folder.glob(name.rstrip("/"))) for folder in (ROOT, ROOT / "mmpretrain", page.parent))


def module_exists(name: str) -> bool:
    """Whether a module of this name is there, or one that defines the last part of the name."""
    path = ROOT.joinpath(*name.split("."))
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    owner = path.parent / "__init__.py" if path.parent.is_dir() else path.parent.with_suffix(".py")
    if not owner.is_file():
        return False
    tree = ast.parse(owner.read_text())
    return path.name in {getattr(node, "name", None) for node in tree.body}


def _owner(name: str) -> str:
    """The file without its ending of the module that would define ``name``."""
    return "/".join(name.split(".")[:-1])


def anchors(page: Path) -> set[str]:
    """The headings of a page in the form that GitHub gives their anchors."""
    headings = HEADING.findall(page.read_text())
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def link_problem(target: str, page: Path) -> str | None:
    """What is wrong with a link, None for a good one; other sites are not asked."""
    if "://" in target or target.startswith("mailto:"):
        return None
    name, _, anchor = target.partition("#")
    linked = (page.parent / name).resolve() if name else page
    if not linked.exists():
        return f"{target}: no such file"
    if anchor and anchor not in anchors(linked):
        return f"{target}: no such heading"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    """Every file, folder and module in a page's text."""
    text = page.read_text()
    made = {Path(name).with_suffix("").as_posix() for name in WRITTEN.findall(text)}  # by the reader
    gone = [n for n in named_files(text) if Path(n).with_suffix("").as_posix() not in made and not exists(n, page)]
    modules = [name for name in MODULE.findall(text) if not PLACEHOLDER.search(name)]
    gone += [n for n in modules if not module_exists(n) and not made & {n.replace(".", "/"), _owner(n)}]
    assert not gone


@pytest.mark.parametrize("package", [name for name in PACKAGES if name != "tests"])
def test_what_comments_and_messages_name_exists(package: str) -> None:
    """Files, folders and started modules; other dotted names in sources are attributes more often than modules."""
    gone = []
    for path in (ROOT / package).rglob("*.py"):
        text = path.read_text()
        names = [name for name in named_files(text) if not exists(name, path)]
        names += [name for name in STARTED.findall(text) if not PLACEHOLDER.search(name) and not module_exists(name)]
        gone += [f"{path.relative_to(ROOT)}: {name}" for name in names]
    assert not gone


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link, and its heading if it names one."""
    problems = [link_problem(target, page) for target in LINK.findall(page.read_text())]
    assert not [problem for problem in problems if problem]


def test_the_checks_can_fail() -> None:
    """Names that do not exist are found in a page's text, and good ones are not."""
    text = "`mmpretrain/methods/gone.py`, `tests/gone/`, `losses/contrastive.py`, `slurm/NAME.yaml`, `runs/a/b.yaml`"
    page = ROOT / "README.md"
    gone = [name for name in named_files(text) if not exists(name, page)]
    assert gone == ["mmpretrain/methods/gone.py", "tests/gone/"]
    assert not module_exists("experiments.gone") and module_exists("experiments.rosmap")
    assert module_exists("mmpretrain.losses.canonical.canonical_of_rows")
    assert link_problem("gone.md", page) and link_problem("README.md#gone", page) and not link_problem("docs", page)


def test_every_page_is_in_the_index() -> None:
    """``docs/index.md`` links every page below docs/."""
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for target in LINK.findall(index.read_text())}
    assert not [page for page in ROOT.glob("docs/**/*.md") if page != index and page not in linked]


def test_the_method_whose_paper_was_not_read_whole_is_called_a_reconstruction() -> None:
    """Every source and page that names the paper of MUCMM, by its number."""
    folders = ("configs", "docs", "experiments", "mmpretrain")
    files = [path for name in folders for kind in ("py", "md", "yaml") for path in (ROOT / name).rglob(f"*.{kind}")]
    naming = {path: text for path in [ROOT / "README.md", *files] if "2305.03125" in (text := path.read_text())}
    assert len(naming) > 5
    assert not [str(path) for path, text in naming.items() if "reconstruction" not in text.lower()]

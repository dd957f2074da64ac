"""Pages of the site that lie outside docs/ or are made of the program itself; a hook of MkDocs (mkdocs.yml)."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

import typer
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
# File of the repository -> page of the site.
BROUGHT = {
    "README.md": "project/readme.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "LICENSE": "project/license.txt",
    "benchmarks/RESULTS.md": "project/benchmarks.md",
}
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#:]+)((?:#[^)\s]*)?)\)")
ROLE = re.compile(r":(?:meth|class|attr|func|mod):")  # of docstrings


def on_files(files: Files, config: Any) -> Files:
    """Add what lies outside docs/, with links turned to the site, and the page of the commands."""
    for source, page in BROUGHT.items():
        text = (ROOT / source).read_text()
        files.append(File.generated(config, page, content=turned(text, source, page, _titles(config.nav))))
    files.append(File.generated(config, "reference/commands.md", content=commands_page()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links of a page that lies in docs/."""
    uri = page.file.src_uri
    return markdown if page.file.generated_by else turned(markdown, f"docs/{uri}", uri, _titles(config.nav))


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Take the roles out of what docstrings say."""
    return ROLE.sub("", html)


def turned(text: str, source: str, page: str, titles: dict[str, str]) -> str:
    """``text`` with links to the site's pages, also to those that were brought in, by their titles.

    text: of the file ``source`` of the repository, which becomes ``page`` of the site. titles: page -> title.
    """

    def turn(link: re.Match[str]) -> str:
        label, target, anchor = link[1], posixpath.normpath(posixpath.join(posixpath.dirname(source), link[2])), link[3]
        on_site = BROUGHT.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
        if on_site is None:
            return link[0]
        if link[2].endswith("/"):
            return label  # a folder is no page
        if label.strip("`").endswith(".md"):
            label = titles.get(on_site, label)
        return f"[{label}]({posixpath.relpath(on_site, posixpath.dirname(page) or '.')}{anchor})"

    return LINK.sub(turn, text)


def _titles(nav: Any) -> dict[str, str]:
    """Page -> its title in the navigation."""
    found = {}
    for entry in nav:
        for title, below in entry.items():
            found |= {below: title} if isinstance(below, str) else _titles(below)
    return found


def commands_page() -> str:
    """Every command of ``mmpretrain`` with its help, as a page."""
    sys.path.insert(0, str(ROOT))
    from launcher.mmpretrain_command import whole_command

    lines = ["# Commands", "", "What `mmpretrain COMMAND --help` says.", ""]
    lines += _commands(whole_command(), "mmpretrain", 2)
    return "\n".join(lines) + "\n"


def _commands(command: Any, name: str, level: int) -> list[str]:
    if inner := getattr(command, "commands", None):
        below = [
            line for key, one in inner.items() if not one.hidden for line in _commands(one, f"{name} {key}", level)
        ]
        return below
    command.rich_markup_mode = None  # plain text, without frames and colors
    context = typer.Context(command, info_name=name, terminal_width=80, max_content_width=80)
    return [f"{'#' * level} {name}", "", "```text", command.get_help(context).strip(), "```", ""]

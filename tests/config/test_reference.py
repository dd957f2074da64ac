"""docs/config.md: every key of the config with its meaning, as the dataclasses have it today."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from launcher.config_page import missing_meanings, page
from launcher.slurm.profiles import Profile
from mmpretrain.config.augment import AugmentConfig
from mmpretrain.config.compose import CONFIGS, GROUPS, compose
from mmpretrain.config.data import DataConfig, ModalityConfig
from mmpretrain.config.methods.names import METHODS
from mmpretrain.config.model import EncoderConfig
from mmpretrain.config.reference import Entry, sections, undocumented
from mmpretrain.config.root import Config

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "config.md"


class Color(StrEnum):
    """Two colors, of which one has no meaning."""

    red = "red"
    """Like a rose."""

    blue = "blue"


@dataclass
class Base:
    """What has fields that others inherit."""

    size: int = 1
    """The size, in rows
    and columns."""


@dataclass
class Leaf:
    """What is nested twice."""

    depth: float = 1e-4
    """The depth, in meters."""


@dataclass
class Planted(Base):
    """Documented but for two fields and a color."""

    size: int = 2
    color: Color = Color.red
    """The color."""

    forgotten: int = 0
    leaves: dict[str, Leaf] = field(default_factory=dict)
    """Leaves by name."""

    more: Leaf | None = None
    values: list[float] = field(default_factory=lambda: [1.0, 0.5])
    """Some values."""


def test_the_page_is_what_the_dataclasses_say() -> None:
    assert PAGE.read_text() == page(), "run `make docs`"


def test_every_field_and_every_choice_has_a_meaning() -> None:
    assert missing_meanings() == []


def test_a_field_without_a_meaning_is_caught() -> None:
    assert undocumented(sections(Planted)) == ["color=blue", "forgotten", "more"]


def test_what_is_read_from_a_dataclass() -> None:
    top, leaf = sections(Planted, "plant")
    assert (top.key, top.about) == ("plant", "Documented but for two fields and a color.")
    assert top.entries == (
        # A field that is set anew keeps the meaning that it has in the base class.
        Entry("plant.size", "int", "2", "The size, in rows and columns."),
        Entry("plant.color", "choice", "red", "The color.", {"red": "Like a rose.", "blue": ""}),
        Entry("plant.forgotten", "int", "0", ""),
        Entry("plant.leaves", "mapping from names to sections", "{}", "Leaves by name.", section="plant.leaves.NAME"),
        Entry("plant.more", "section or null", "null", "", section="plant.leaves.NAME"),
        Entry("plant.values", "list of floats", "[1, 0.5]", "Some values."),
    )
    assert (leaf.key, leaf.about) == ("plant.leaves.NAME", "What is nested twice.")
    assert leaf.entries == (Entry("plant.leaves.NAME.depth", "float", "0.0001", "The depth, in meters."),)


def test_no_key_is_missing() -> None:
    """Against the keys that OmegaConf finds, which merges what users write."""
    data = DataConfig(name="", path="", modalities={"NAME": ModalityConfig(augment=AugmentConfig())})
    config = Config(data=data)
    config.model.encoders["NAME"] = EncoderConfig()
    keys = {key.replace("[", ".").replace("]", "") for key in _keys(config)}
    keys |= {f"method.{key}" for schema in METHODS.values() for key in _keys(schema())} | set(_keys(Profile()))
    written = set(re.findall(r"^\| `([\w.]+)` \| [a-z ]+ \|", PAGE.read_text(), re.MULTILINE))
    assert len(keys) > 150
    assert keys - written == set()


def _keys(config: Any, above: str = "") -> Iterator[str]:
    """Dotted keys of everything; of what is null only the key itself."""
    for key in config if isinstance(config, dict) else OmegaConf.structured(config):
        value = config[key] if isinstance(config, dict) else getattr(config, key)
        if key != "NAME":
            yield f"{above}{key}"
        if is_dataclass(value) or (isinstance(value, dict) and "NAME" in value):
            yield from _keys(value, f"{above}{key}.")


def test_defaults_stand_in_the_page() -> None:
    text = PAGE.read_text()
    rows = dict(re.findall(r"^\| `([\w.]+)` \| [a-z ]+ \| (.*?) \|", text.split("## `data`")[1], re.MULTILINE))
    for entry in fields(ModalityConfig):
        shown = rows[f"data.modalities.NAME.{entry.name}"].strip("`")
        default = entry.default_factory() if entry.default_factory is not MISSING else entry.default
        expected = "required" if entry.name == "kind" else default
        assert OmegaConf.create(f"v: {shown}").v == expected, entry.name


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_of_a_group_is_told(group: str) -> None:
    table = PAGE.read_text().split(f"### Group `{group}`")[1].split("\n#")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE)
    assert [name for name, _ in rows] == sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
    assert all(text for _, text in rows)


def test_the_commands_of_the_page_compose() -> None:
    commands = re.findall(r"^    python launcher/submit.py (.*)$", PAGE.read_text(), re.MULTILINE)
    digits, pair, cropped = (compose(shlex.split(command)) for command in commands)
    assert (digits.data.name, list(digits.model.encoders), digits.optim.lr) == (
        "digits",
        ["left", "right", "caption"],
        5e-4,
    )
    assert (list(pair.data.modalities), pair.optim.clip) == (["left", "right"], None)
    assert cropped.data.modalities["left"].view.operations == {"crop": 1.0, "flip": 0.5}


def test_every_link_leads_somewhere() -> None:
    text = PAGE.read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert len(set(anchors)) == len(anchors)
    for target in re.findall(r"\]\(([^)]*)\)", text):
        assert target[1:] in anchors if target.startswith("#") else (DOCS / target).exists(), target

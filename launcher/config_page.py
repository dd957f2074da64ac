"""Writes docs/config.md from the dataclasses of the config, and from what lies in configs/ and slurm/.

make docs        # or: python -m launcher.config_page > docs/config.md
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from launcher.slurm.profiles import Profile
from mmpretrain.config import shipped
from mmpretrain.config.choices import names_in
from mmpretrain.config.compose import GROUPS
from mmpretrain.config.keys import Freedom
from mmpretrain.config.methods.base import MethodConfig
from mmpretrain.config.methods.names import METHODS
from mmpretrain.config.reference import Entry, Section, sections, undocumented
from mmpretrain.config.root import Config

# Around the tables; {base} is configs/pretrain.yaml.
INTRODUCTION = """\
# Every setting

<!-- Written by `make docs` from the dataclasses in mmpretrain/config/ and launcher/slurm/profiles.py: edit those. -->

One config says everything about a run but the machines that it runs on; those are said by options of the launcher and
by a [cluster profile](#cluster-profiles). Keys, types and values are checked strictly, and everything that is wrong is
reported at once, before anything heavy is imported.

Jump to: {sections}.

## How a config is put together

Five layers, of which a later one wins:

1. the defaults of the tables below;
2. the base file, `configs/pretrain.yaml`, or the one that `--config` names (a run folder's `config.yaml`, say);
3. one file for each [group](#groups), `configs/GROUP/CHOICE.yaml`, looked for in your own `--config-dir` first: the
   one that `group=choice` names, else the one that the experiment or the base file names under `defaults`;
4. the experiment, `configs/experiment/NAME.yaml`, if one is chosen;
5. single keys of the command line, `dotted.key=value` (how values are written: [configuring.md](configuring.md)).

So a default below holds only where no file sets the key; `optim=adam`, for example, sets [`optim.clip`](#optim) to
null. Mappings are merged key by key, lists are replaced whole. `--dry-run` shows the resolved config, and `config.yaml`
in the run folder keeps it.

The whole base file:

```yaml
{base}
```

**Example 1.** Start from the experiment `digits`, with another method and a smaller learning rate:

    python launcher/submit.py method=m3col experiment=digits optim.lr=5e-4

The base file chooses `data=digits`, so the model is `digits`, too; the experiment sets the budget and the warm-up; the
last token sets one key, over whatever the files say.

**Example 2.** `null` removes an entry of a mapping (`data.modalities`, `model.encoders`), or empties a mapping; for any
other key it is a value like others, which the tables explain. Train on two of three modalities, with gradients of any
size:

    python launcher/submit.py method=clip data.modalities.caption=null model.encoders.caption=null optim.clip=null

A value that holds spaces, braces or brackets needs the shell's quotes:

    python launcher/submit.py method=comm 'data.modalities.left.augment={{crop: [0.5, 1.0], flip: 0.5}}'

A run goes on with the config that it was started with. What may change then, because neither weights nor the choice of
what is released depend on it, is marked so in the tables; `train.samples` may grow ([resuming.md](resuming.md)).

In the tables NAME stands for the name of a modality. Keys whose default is "required" are set by the files of groups.
"""
FREEDOM = {
    Freedom.fixed: "",
    Freedom.free: "*May change when a run goes on.*",
    Freedom.place: "*May change when a run goes on, to where the same lies; checkpoints keep its fingerprint.*",
    Freedom.rounding: "*May change when a run goes on; weights are then equal up to rounding.*",
    Freedom.measured: "*May change when a run goes on, unless `evaluation.best.score` is set.*",
}
METHOD = "What is learned, and the settings of it. Equations, and what ships, of some: [docs/methods/](methods/)."
PROFILES = """\
## Cluster profiles

`slurm/NAME.yaml`, chosen by the launcher's `--cluster NAME`. A profile is no part of the config: a run may be continued
with another one. There {is_are} {names}; [docs/slurm.md](slurm.md) has the rest.
"""


def page() -> str:
    """The whole of docs/config.md."""
    return "".join(f"{line}\n" for line in _lines()).rstrip("\n") + "\n"


def missing_meanings() -> list[str]:
    """The keys, and values of keys, that the page has no meaning for."""
    return undocumented([*_config(), *sections(Profile)])


def _config() -> list[Section]:
    """All sections of the config, the top level first and each method as ``method=NAME`` behind ``method``."""
    found: list[Section] = []
    for section in sections(Config):
        is_method = section.key == "method"
        found.append(replace(section, about=METHOD) if is_method else section)
        if is_method:
            for name, schema in METHODS.items():
                # What all methods have is told above.
                (own,) = sections(schema, "method", without=frozenset(MethodConfig.__dataclass_fields__))
                found.append(Section(f"method={name}", own.about, own.entries))
    return found


def _lines() -> Iterator[str]:
    found = _config()
    places = {entry.key: section.key for section in found for entry in section.entries}
    places |= {section.key: section.key for section in found}
    base = (shipped.CONFIGS / "pretrain.yaml").read_text().rstrip("\n")
    tops = [_link(section.key) for section in found if section.key.isidentifier()]
    jumps = ", ".join([*tops, "[groups](#groups)", "[cluster profiles](#cluster-profiles)"])
    yield INTRODUCTION.format(base=base, sections=jumps)
    for section in found:
        yield from _section(section, places)
    yield "## Groups\n\nWhat `group=choice` may choose. A file that you add to `configs/GROUP/` is a choice, too.\n"
    for group in GROUPS:
        yield f"### Group `{group}`\n\n| choice | what it is |\n|---|---|"
        yield from (
            f"| `{file.stem}` | {_cell(_comment(file))} |" for file in sorted((shipped.CONFIGS / group).glob("*.yaml"))
        )
        yield ""
    profiles = names_in(shipped.PROFILES)
    names = ", ".join(f"`slurm/{name}.yaml`" for name in profiles)
    yield PROFILES.format(names=names, is_are="is" if len(profiles) == 1 else "are")
    (profile,) = sections(Profile)
    yield f"{_prose(profile.about, {}, '')}\n"
    yield from _table(profile.entries, {}, "")


def _section(section: Section, places: dict[str, str]) -> Iterator[str]:
    level = "##" if not section.key or section.key.isidentifier() else "###"
    yield f"{level} `{section.key}`\n" if section.key else "## Top level\n"
    yield f"{_prose(section.about, places, section.key)}\n"
    yield from _table(section.entries, places, section.key)
    yield ""


def _table(entries: Iterable[Entry], places: dict[str, str], here: str) -> Iterator[str]:
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    for entry in entries:
        meaning = [_prose(entry.meaning, places, here)]
        meaning += [f"• `{value}`: {_prose(text, places, here)}" for value, text in entry.choices.items()]
        if entry.section:
            meaning[0] += f" Keys: {_link(entry.section)}."
        meaning[0] += f" {FREEDOM[entry.freedom]}".rstrip()
        default = f"`{entry.default}`" if entry.default else "" if entry.section else "required"
        yield f"| `{entry.key}` | {entry.type} | {default} | {_cell('<br>'.join(meaning))} |"


def _prose(text: str, places: dict[str, str], here: str) -> str:
    """A docstring as Markdown: its code, links to the pages of docs/, and to keys of other sections than ``here``."""

    def code(match: re.Match[str]) -> str:
        place = places.get(match[1].partition("=")[0])
        elsewhere = place is not None and place != here.partition("=")[0]
        return f"[`{match[1]}`](#{_anchor(str(place))})" if elsewhere else f"`{match[1]}`"

    return re.sub(r"\bdocs/([\w/]+\.md)", r"[docs/\1](\1)", re.sub("``(.+?)``", code, text))


def _link(key: str) -> str:
    return f"[`{key}`](#{_anchor(key)})"


def _anchor(heading: str) -> str:
    """What GitHub calls a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") or "top-level"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _comment(file: Path) -> str:
    """The first sentence of the comment that a file starts with."""
    block = re.match(r"(#.*\n)*", file.read_text())
    text = " ".join(line.lstrip("# ").rstrip() for line in (block[0] if block else "").splitlines())
    return re.split(r"(?<=\.) +(?=[A-Z])", text)[0]


if __name__ == "__main__":
    print(page(), end="")
    if lacking := missing_meanings():
        sys.exit(f"no meaning (write it as a string below the field): {', '.join(lacking)}")

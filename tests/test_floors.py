"""The floors: what the import contract names exists, and the picture in the docs shows what the contract says."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"


@pytest.fixture(scope="module")
def drawing() -> ModuleType:
    """The script docs/draw_floors.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("draw_floors", ROOT / "docs" / "draw_floors.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_room_of_the_contract_exists_on_one_floor(drawing: ModuleType) -> None:
    """A room that was moved or renamed without its contract is found."""
    rooms = [room for floor in drawing.contract_layers() for room in floor]
    assert len(rooms) == len(set(rooms))
    paths = [ROOT.joinpath(*room.split(".")) for room in rooms]
    assert not [path for path in paths if not path.is_dir() and not path.with_suffix(".py").is_file()]


def test_every_room_stands_in_the_contract(drawing: ModuleType) -> None:
    """A new folder or file at the top of a package needs a floor; the package itself has none."""
    named = {room for floor in drawing.contract_layers() for room in floor}
    package = ROOT / "mmpretrain"
    found = {path.stem for path in package.glob("*.py")} | {path.parent.name for path in package.glob("*/__init__.py")}
    assert {f"mmpretrain.{name}" for name in found} - named == {"mmpretrain.__init__"}


def test_the_picture_is_up_to_date(drawing: ModuleType) -> None:
    """Layers and arrows in the picture's description are those of the contract and the imports."""
    pytest.importorskip("grimp", reason="needs import-linter")
    drawn = ElementTree.parse(drawing.PICTURE).getroot().find(f".//{DESCRIPTION}")
    assert drawn is not None and drawn.text is not None
    layers = drawing.contract_layers()
    facts = json.loads(drawing.described(layers, drawing.arrows_down(layers)))
    assert json.loads(drawn.text) == facts, "run `python docs/draw_floors.py`"


def test_arrows_that_a_longer_way_implies_are_left_out(drawing: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a -> b -> c and a -> c the last is not drawn; an import inside a room or up a floor is no arrow either."""
    imports = {"a": {"b.x", "c"}, "b.x": {"b", "c", "a"}, "b": set(), "c": set()}

    class Graph:
        modules = tuple(imports)
        find_modules_directly_imported_by = staticmethod(imports.__getitem__)

    grimp = pytest.importorskip("grimp", reason="needs import-linter")
    monkeypatch.setattr(grimp, "build_graph", lambda *_: Graph)
    assert drawing.arrows_down([["a"], ["b"], ["c"]]) == [("a", "b"), ("b", "c")]

"""Draw ``docs/floors.svg``, the floors of this project, from the import contract in pyproject.toml.

    python docs/draw_floors.py          # writes the picture; needs import-linter (`make install` brings it)

Rows are the layers of the contract, boxes their rooms. An arrow is an import that no longer way of arrows implies: if a
room imports another one directly and through a third, only the way through the third is drawn. The same facts stand as
JSON in the picture's description, by which a test sees whether it is up to date.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "floors.svg"
WIDTH, ROW, BOX, LANE = 14.0, 1.35, 1.0, 0.22  # width of the picture, height of a row, room and share of a box, a lane
COLORS = ("#4269d0", "#9467bd", "#3ca951", "#e07b00", "#c2456b", "#2a9da8", "#777777", "#a2664a", "#8a8a1f", "#5b6bd6")

Layers = list[list[str]]  # from the top
Arrows = list[tuple[str, str]]
Lane = tuple[str, str, int]  # an arrow where it passes a row without ending there


def contract_layers(root: Path = ROOT) -> Layers:
    """The rooms of every layer, from the top, as the first contract of ``[tool.importlinter]`` lists them."""
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]
    contract = next(entry for entry in settings["contracts"] if entry["type"] == "layers")
    return [[room.strip() for room in layer.split("|")] for layer in contract["layers"]]


def arrows_down(layers: Layers) -> Arrows:
    """Every import from a room to one on a lower floor, except those that a longer way implies; sorted."""
    import grimp

    # Only the packages that ship are installed.
    sys.path.insert(0, str(ROOT))
    graph = grimp.build_graph(*sorted({room.split(".")[0] for layer in layers for room in layer}))
    floor = {room: number for number, layer in enumerate(layers) for room in layer}

    def room_of(module: str) -> str | None:
        return next((room for room in floor if module == room or module.startswith(f"{room}.")), None)

    below: dict[str, set[str]] = {room: set() for room in floor}
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            source, target = room_of(module), room_of(imported)
            if source and target and floor[source] < floor[target]:
                below[source].add(target)
    reached: dict[str, set[str]] = {}
    for room in sorted(floor, key=floor.__getitem__, reverse=True):  # lower floors first
        reached[room] = below[room].union(*(reached[other] for other in below[room]))
    return sorted((a, b) for a in floor for b in below[a] if not any(b in reached[other] for other in below[a]))


def described(layers: Layers, arrows: Arrows) -> str:
    """The picture's facts as JSON, for its description."""
    return json.dumps({"floors": layers, "arrows": [f"{a} -> {b}" for a, b in arrows]})


def _places(layers: Layers, arrows: Arrows) -> tuple[list[dict[Any, float]], dict[tuple[str, str], list[Any]]]:
    """Row by row the x of rooms and lanes, ordered so that few arrows cross; and every arrow's way through them."""
    floor = {room: number for number, layer in enumerate(layers) for room in layer}
    rows: list[list[Any]] = [list(layer) for layer in layers]
    ways: dict[tuple[str, str], list[Any]] = {}
    for a, b in arrows:
        lanes: list[Lane] = [(a, b, number) for number in range(floor[a] + 1, floor[b])]
        ways[a, b] = [a, *lanes, b]
        for lane in lanes:
            rows[lane[2]].append(lane)
    ups: dict[Any, list[Any]] = {}
    downs: dict[Any, list[Any]] = {}
    for way in ways.values():
        for upper, lower in pairwise(way):
            downs.setdefault(upper, []).append(lower)
            ups.setdefault(lower, []).append(upper)
    best, fewest = [_spread(row) for row in rows], sys.maxsize
    for turn in range(60):
        order, near = (range(len(rows)), ups) if turn % 2 == 0 else (reversed(range(len(rows))), downs)
        for number in order:
            x = {node: at for row in rows for node, at in _spread(row).items()}
            rows[number] = _sorted_by_neighbors(rows[number], x, near)
        placed = [_spread(row) for row in rows]
        if (crossings := _crossings(placed, ways)) < fewest:
            best, fewest = placed, crossings
    return best, ways


def _sorted_by_neighbors(row: Sequence[Any], x: Mapping[Any, float], near: Mapping[Any, list[Any]]) -> list[Any]:
    """The nodes of a row by the mean x of what they are joined to; those that are joined to nothing keep their x."""
    joined = {node: near.get(node, [node]) for node in row}
    return sorted(row, key=lambda node: sum(x[other] for other in joined[node]) / len(joined[node]))


def _spread(row: Sequence[Any]) -> dict[Any, float]:
    """x of every room or lane of a row, in this order from left to right."""
    shares = [BOX if isinstance(node, str) else LANE for node in row]
    ends = [sum(shares[: number + 1]) for number in range(len(row))]
    return {node: WIDTH * (end - share / 2) / ends[-1] for node, end, share in zip(row, ends, shares, strict=True)}


def _crossings(rows: list[dict[Any, float]], ways: dict[tuple[str, str], list[Any]]) -> int:
    """How many pairs of arrow pieces between the same two rows cross."""
    number = {node: index for index, row in enumerate(rows) for node in row}
    x = {node: at for row in rows for node, at in row.items()}
    pieces = [(number[a], x[a], x[b]) for way in ways.values() for a, b in pairwise(way)]
    return sum(
        p[0] == q[0] and (p[1] - q[1]) * (p[2] - q[2]) < 0 for i, p in enumerate(pieces) for q in pieces[i + 1 :]
    )


def draw(layers: Layers, arrows: Arrows, path: Path) -> None:
    """Write the picture to ``path``, in the form that its ending names."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "floors"  # the same file for the same facts
    from matplotlib import pyplot as plt
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.path import Path as Curve

    rows, ways = _places(layers, arrows)
    at = {n: (x, -ROW * number) for number, row in enumerate(rows) for n, x in row.items()}
    figure, axes = plt.subplots(figsize=(WIDTH, ROW * len(rows)))
    axes.set(xlim=(-0.1, WIDTH + 0.1), ylim=(-ROW * (len(rows) - 1) - 0.5, 0.5))
    axes.axis("off")
    for number in range(len(rows)):
        axes.axhspan(-ROW * number - 0.42, -ROW * number + 0.42, color="#f3f3f3", zorder=0)
    for (a, _), way in ways.items():
        points = [(at[n][0], at[n][1] - (0.24 if n == a else 0.0)) for n in way[:-1]]
        points.append((at[way[-1]][0], at[way[-1]][1] + 0.24))
        vertices, codes = [points[0]], [Curve.MOVETO]
        for (x0, y0), (x1, y1) in pairwise(points):
            vertices += [(x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2), (x1, y1)]
            codes += [Curve.CURVE4] * 3
        floor = next(index for index, layer in enumerate(layers) if a in layer)
        arrow = FancyArrowPatch(
            path=Curve(vertices, codes), arrowstyle="-|>", mutation_scale=9, lw=1.1, color=COLORS[floor], alpha=0.75
        )
        axes.add_patch(arrow)
    for number, layer in enumerate(layers):
        for room in layer:
            x, y = at[room]
            box = FancyBboxPatch((x - 0.78, y - 0.2), 1.56, 0.4, boxstyle="round,pad=0.03", zorder=3)
            axes.add_patch(box).set(facecolor="white", edgecolor=COLORS[number], lw=1.4)
            axes.text(x, y, room.removeprefix("mmpretrain."), ha="center", va="center", fontsize=11, zorder=4)
    figure.savefig(path, bbox_inches="tight", metadata=_metadata(path, layers, arrows))
    plt.close(figure)


def _metadata(path: Path, layers: Layers, arrows: Arrows) -> dict[str, Any]:
    return {"Date": None, "Description": described(layers, arrows)} if path.suffix == ".svg" else {}


if __name__ == "__main__":
    floors = contract_layers()
    draw(floors, arrows_down(floors), Path(sys.argv[1]) if sys.argv[1:] else PICTURE)

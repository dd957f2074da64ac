"""A retrieval grid as one picture, for trackers."""

from __future__ import annotations

from io import BytesIO

from matplotlib.figure import Figure

from mmpretrain.summary.grid_file import Grid
from mmpretrain.summary.panels import draw_grid_pair

WIDTH, LINE = 7.0, 0.95  # inches of a pair of modalities, and of a query


def grid_picture(grid: Grid) -> bytes:
    """An encoded PNG with the pairs of modalities side by side, as in the summary of a run."""
    lines = max(len(pair.queries) for pair in grid.pairs)
    figure = Figure(figsize=(WIDTH * len(grid.pairs), 0.5 + LINE * lines), facecolor="white")
    figure.set_layout_engine("constrained")
    parts = figure.subfigures(1, len(grid.pairs), squeeze=False, wspace=0.03).ravel()
    for part, pair in zip(parts, grid.pairs, strict=True):
        draw_grid_pair(part, grid, pair)
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=100)
    return stream.getvalue()

"""The colors of pages and figures; without a plotting library, for devices."""

from __future__ import annotations

__all__ = ["COLORS", "PALETTE"]

# The light scheme. The page defines --fc-NAME for both schemes; the value here is the
# fallback, so a figure also looks right on its own.
COLORS = {
    "ink": "#18222d",
    "muted": "#5a6775",
    "rule": "#dfe4ea",
    "card": "#fefefe",
    "blue": "#1a5fb4",
    "orange": "#c4541a",
    "green": "#26795a",
    "purple": "#7b4ba6",
    "ochre": "#927012",
    "gray": "#8693a1",
}
PALETTE = ("blue", "orange", "green", "purple", "ochre", "gray")

"""Draws the medians of a run: a row of bars for each workload (JSON on stdin, path of an SVG as argument)."""

import json
import sys
import textwrap
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "ragcrawl_dynamo"
from matplotlib import pyplot as plt  # noqa: E402 # after the backend is chosen

OURS = {"ours": "#c0392b", "ours, uncoalesced": "#e6a49c"}

medians: dict[str, dict[str, float]] = json.load(sys.stdin)
rows = -(-len(medians) // 2)
figure, axes = plt.subplots(rows, 2, figsize=(9, 2.2 * rows))
for place, (what, values) in zip(axes.flat, medians.items(), strict=False):
    axis: Any = place
    names = sorted(values, key=values.__getitem__, reverse=True)
    colors = [OURS.get(name, "#7f8c8d") for name in names]
    bars = axis.barh(names, [values[name] for name in names], color=colors)
    axis.bar_label(bars, fmt="%.0f", padding=3, fontsize=8)
    axis.set_title(textwrap.fill(what, 48), fontsize=9)
    axis.set_xlabel("client CPU per item, µs", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.margins(x=0.12)
    axis.spines[["top", "right"]].set_visible(False)
for place in list(axes.flat)[len(medians) :]:
    place.set_visible(False)
figure.tight_layout()
# A test compares the description with the data file.
description = json.dumps(medians, ensure_ascii=False)
figure.savefig(sys.argv[1], metadata={"Date": None, "Description": description})

"""Draws how operations grow: a panel for each one (JSON on stdin, path of an SVG as argument)."""

import json
import sys
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "ragcrawl_dynamo"
from matplotlib import pyplot as plt  # noqa: E402 # after the backend is chosen

columns: dict[str, dict[str, float]] = json.load(sys.stdin)
counts = [int(count) for count in columns]
names = list(next(iter(columns.values())))
rows = -(-len(names) // 2)
figure, axes = plt.subplots(rows, 2, figsize=(8, 2.1 * rows))
for place, name in zip(axes.flat, names, strict=False):
    axis: Any = place
    values = [column[name] for column in columns.values()]
    axis.plot(counts, values, marker="o", color="#c0392b")
    axis.set_xscale("log")
    axis.set_ylim(0, 2 * max(values) or 1)
    axis.set_title(name, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
for place in list(axes.flat)[len(names) :]:
    place.set_visible(False)
figure.supxlabel("pages and links that are there", fontsize=9)
figure.tight_layout()
# A test compares the description with the data file.
description = json.dumps(columns, ensure_ascii=False)
figure.savefig(sys.argv[1], metadata={"Date": None, "Description": description})

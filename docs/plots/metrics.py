#!/usr/bin/env python3
"""Draws the panels of docs/grafana.json from what a Prometheus server has, as metrics.svg.

Needs matplotlib. Usage: metrics.py [PROMETHEUS] [SECONDS]   (default http://127.0.0.1:9090, the last 120 s)
"""
import io
import json
import pathlib
import re
import sys
import time
import urllib.parse
import urllib.request

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "metrics", "svg.fonttype": "none", "path.simplify_threshold": 0.5})
import matplotlib.pyplot as plt

HERE = pathlib.Path(__file__).resolve().parent
SERVER = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9090"
SECONDS = int(sys.argv[2]) if len(sys.argv) > 2 else 120
UNITS = {"s": "seconds", "ops": "a second", "Bps": "bytes a second", "bytes": "bytes"}


def ask(expression, end):
    expression = expression.replace("$__rate_interval", "10s").replace("$job", ".*")
    query = {"query": expression, "start": end - SECONDS, "end": end, "step": 2}
    with urllib.request.urlopen(f"{SERVER}/api/v1/query_range?{urllib.parse.urlencode(query)}") as answer:
        return json.load(answer)["data"]["result"]


def name(legend, labels):
    for label, value in labels.items():
        legend = legend.replace("{{" + label + "}}", value)
    return legend


def main():
    panels = json.loads((HERE.parent / "grafana.json").read_text())["panels"]
    end = time.time()
    rows = (len(panels) + 1) // 2
    figure, axes = plt.subplots(rows, 2, figsize=(12, 2.4 * rows), layout="constrained")
    for panel, axis in zip(panels, axes.flat):
        for target in panel["targets"]:
            for series in ask(target["expr"], end):
                points = [(at - end + SECONDS, float(value)) for at, value in series["values"]]
                points = [(at, value) for at, value in points if value == value]
                if points:
                    axis.plot(*zip(*points), label=name(target["legendFormat"], series["metric"]), linewidth=1)
        axis.set_title(panel["title"], fontsize=9, loc="left")
        axis.set_ylabel(UNITS.get(panel["fieldConfig"]["defaults"]["unit"], ""), fontsize=7)
        axis.set_xlim(0, SECONDS)
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=6, frameon=False, ncols=2)
        else:
            axis.text(0.5, 0.5, "nothing", transform=axis.transAxes, ha="center", color="gray", fontsize=8)
    picture = io.StringIO()
    figure.savefig(picture, format="svg", metadata={"Date": None})
    # A tenth of a point is enough.
    (HERE / "metrics.svg").write_text(re.sub(r"(\d\.\d)\d+", r"\1", picture.getvalue()))


main()

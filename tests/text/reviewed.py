"""What stands in texts with a tag and does not go through a door where it stands: each with why it may."""

DOORS = {
    "escaped": "HTML",
    "label": "a label",
    "_escaped": "a label of a token",
    "shown": "a label of a token",
    "table": "HTML of our own",
    "noted": "HTML of our own",
    "lead": "HTML of our own",
    "policy": "HTML of our own",
    "embedded": "JSON without `<`",
    "_cells": "HTML of our own",
    "_packed": "base64",
    "int": "a number",
    "next": "a number",
}
"""Functions whose result may stand within tags."""

REVIEWED: dict[str, tuple[set[str], str]] = {
    "elicit/analysis/behaviour/bits_to_elicit.py:figure_of": ({"name"}, "`name` is a label above"),
    "elicit/evaluation/run/figures.py:branch_tree": ({"place", "trace.index"}, "numbers"),
    "elicit/methods/sae_steer/feature_card.py:context_line": (
        {"''.join(spans)", "shade", "text"}, "escaped in the line above; names of classes",
    ),
    "elicit/report/browser.py:_page_of.choice": ({"inner", "label", "name"}, "escaped above; constants of the module"),
    "elicit/report/sae_dashboard.py:_link": ({"index"}, "a number"),
    "elicit/report/sae_dashboard.py:_section": ({"others"}, "links to numbers"),
    "elicit/report/sae_dashboard.py:dashboard": ({"index"}, "a number"),
    "experiments/bits/picture.py:_row": (
        {"LEFT - 14", "WIDTH - 12", "across(high)", "across(low)", "across(row['accuracy'])", "figures", "y", "y + 4"},
        "numbers",
    ),
    "experiments/bits/picture.py:picture": (
        {"20 * fifth", "LEFT - 14", "TOP", "TOP - 8", "across(level)", "bottom", "bottom + 16", "x"}, "numbers",
    ),
    "experiments/comparison/picture.py:_legend": ({"kind", "words", "x + 16", "x + 5", "y", "y - 4"}, "constants"),
    "experiments/comparison/picture.py:_row": (
        {"LEFT - 14", "WIDTH - 12", "across(high)", "across(low)", "across(row['recovered'])", "figures", "kind",
         "told", "x", "y + 4", "y + 8", "y - 4"},
        "numbers; `told` is escaped above",
    ),
    "experiments/comparison/picture.py:picture": (
        {"TOP", "bottom", "bottom + 16", "mark", "x"}, "numbers, our words",
    ),
    "experiments/organisms/latency/picture.py:_grid": (
        {"BOTTOM", "BOTTOM + 17", "LEFT", "LEFT - 8", "MIDDLE - 12", "RIGHT", "TOP", "TOP - 8", "_place(model)", "mark",
         "model", "up(1)", "up(1) + 4", "words", "x", "y", "y + 4"},
        "numbers, our words, names of shipped organisms",
    ),
    "experiments/organisms/latency/picture.py:_legend": (
        {"BOTTOM + 52", "BOTTOM + 74", "LEFT", "method", "x + 16"}, "numbers, names of mechanisms",
    ),
    "experiments/organisms/latency/picture.py:_mark": ({"MARKS[n]", "n", "x", "y"}, "numbers, constants"),
    "experiments/organisms/latency/picture.py:_mechanism": (
        {"n", "up(interval.high)", "up(interval.low)", "x"}, "numbers",
    ),
    "experiments/organisms/latency/picture.py:picture": ({"up(value)", "x + 26", "x - 26"}, "numbers"),
    "experiments/svg.py:opened": ({"height", "style", "width"}, "numbers; rules of style of our own"),
    "probes/figure_files.py:_drawn": ({"one"}, "scripts of our own and Plotly's, held by their hashes"),
    "probes/figure_files.py:_printed": ({"DRAWN", "style", "svg"}, "what Plotly drew, under a policy without scripts"),
    "probes/figure_files.py:module": ({"RULES"}, "a constant"),
    "probes/figures.py:_cells": ({"text", "texts.pop(0)"}, "escaped in the line above"),
    "probes/figures.py:_html": ({"drawing", "inner", "level"}, "JSON without `<`; HTML of our own; a number"),
    "probes/figures.py:_numbered": ({"found[1]", "found[2]"}, "HTML that was escaped before"),
    "probes/figures.py:page": (
        {"MARK", "body", "contents", "name", "one", "styles[0]", "text"}, "HTML, styles and scripts of our own",
    ),
    "probes/figures.py:policy": ({"'; '.join(rules)"}, "rules of our own and hashes"),
    "probes/figures.py:table": (
        {"' class=main' if i == main else ''", "' class=prose' if prose else ''", "about", "body", "cells"},
        "escaped in the lines above",
    ),
    "probes/lens.py:lens_grid": ({"LABELS[colour]", "lens.rank[row, p]", "p"}, "constants, numbers"),
    "probes/sweep.py:layer_sweep": ({"i", "place"}, "numbers; labels of layers"),
    "steering/patching.py:_cell_name": ({"clean", "corrupted", "point", "position"}, "labels; names of hook points"),
    "steering/patching.py:_hover": ({"layer", "names[column]", "point", "position"}, "labels; numbers; hook points"),
    "steering/patching.py:patching_map": ({"answer", "points", "wrong"}, "labels; names of hook points"),
}  # fmt: skip

"""Put a comparison's table into its README, between the two marks, or draw what is kept of it.

    elicit compare --methods all --model smollm2-135m-latent --quick --controls --limit 64 --out runs/full-table
    python -m experiments.comparison runs/full-table                    # the table, and its numbers as JSON
    python -m experiments.comparison --picture docs/gap-recovered.svg   # the picture of the numbers that are kept

What stands around the table is written by hand.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from elicit.cli.compare import COMPARISON
from elicit.report import head_of, rows_of
from elicit.report.comparison import each_line, remarks
from experiments.command import called, comparison_in
from experiments.comparison.picture import picture
from experiments.markdown import markdown
from probes.files import make_folder, write_whole

HERE = Path(__file__).parent
README, BEGIN, END = HERE / "README.md", "<!-- table -->", "<!-- end of the table -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("folder", type=Path, nargs="?", help="of the comparison")
    wanted.add_argument("--picture", type=Path, help="draw what is kept as an SVG")
    given = parser.parse_args()
    if given.picture is not None:
        kept = comparison_in(HERE)
        make_folder(given.picture.parent)
        write_whole(given.picture, picture(kept))
        return
    found = comparison_in(given.folder)
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    model = found["model"]
    about = (
        f"{found['items']} questions, {model['name']} {model['sha256'][:12]}…, {model['dtype']}, seed {found['seed']}."
    )
    table = "\n\n".join(
        [
            f"**{found['bottom_line']}**",
            *each_line(found),
            about,
            markdown(head_of(found), rows_of(found)),
            *remarks(found),
        ]
    )
    kept = {name: value for name, value in found.items() if name != "runs"}
    write_whole(HERE / COMPARISON, json.dumps(kept, indent=1, allow_nan=False))
    write_whole(README, f"{before}{BEGIN}\n{table}\n{END}{after}")


if __name__ == "__main__":
    called("comparison", main)

#!/usr/bin/env bash
# Hashes of every file that the package index has of each locked version: what stands in *.txt here is written by this
# alone. Torch is left out: which build of it fits hangs on the machine, and its version stands in constraints.txt.
set -euo pipefail
cd "$(dirname "$0")"
hashed() {
    "../$TOOLS/bin/uv" pip compile --quiet --generate-hashes --universal --python-version 3.11.5 --no-emit-package torch \
        --no-header --no-annotate "$@"
}
hashed --no-deps ../constraints.txt -o project.txt
for list in peers inspect lm_eval quantised; do
    hashed --no-deps "$list.in" -o "$list.txt"
done
"../$TOOLS/bin/python" -c 'import tomllib
print(*tomllib.load(open("../pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' |
    hashed -c ../constraints.txt -o docs.txt -

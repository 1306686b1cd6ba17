#!/usr/bin/env bash
# jaxtyping 0.3.11: whatever a checked module imports first is compiled a second time, other people's packages too.
#
# Documented: install_import_hook(modules, typechecker) "Automatically apply `@jaxtyped(typechecker=typechecker)` to the classes and
# functions of these modules". Seen: while a module under the hook runs, every module that is imported for the first time from inside it,
# at any depth and whether or not it is among `modules`, looks for its bytecode under a name of jaxtyping's own
# (*.opt-jaxtyping….pyc). What pip compiled is not read: the package is compiled anew and kept beside the first copy, in site-packages.
# Imported before the hooked module, the same package reads pip's. For a user: the first import under pytest --jaxtyping-packages of a
# suite that stands on torch and transformers compiles some two thousand of their modules, and where PYTHONDONTWRITEBYTECODE is set, as in
# many containers, every process does so again. Import them before the hooked packages.
# Output, 2026-11-28:
#     jaxtyping 0.3.11
#     imported before the hooked module: 0 files under jaxtyping's name
#     imported by the hooked module:     285 files under jaxtyping's name, networkx read from one of them: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jaxtyping==0.3.11 beartype==0.23.1 networkx==3.6.1
cd "$folder"
unset PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX
echo "import networkx" > mine.py
cat > tried.py <<'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

from jaxtyping import install_import_hook

if sys.argv[1] == "before":
    import networkx  # pip's bytecode
with install_import_hook("mine", "beartype.beartype"):
    import mine
package = Path(mine.networkx.__file__).parent
count = len(list(package.rglob("*jaxtyping*.pyc")))
own = "jaxtyping" in mine.networkx.__spec__.cached
if sys.argv[1] == "before":
    print(f"jaxtyping {version('jaxtyping')}")
    print(f"imported before the hooked module: {count} files under jaxtyping's name")
    raise SystemExit(0 if count == 0 and not own else 1)
print(f"imported by the hooked module:     {count} files under jaxtyping's name, networkx read from one of them: {own}")
raise SystemExit(0 if count > 100 and own else 1)  # 1: it has been mended
PYTHON
"$folder/venv/bin/python" tried.py before
"$folder/venv/bin/python" tried.py inside

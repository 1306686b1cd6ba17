#!/usr/bin/env bash
# Makes .venv-inspect: Inspect laid over the project's environment, of which it lowers python-dateutil and fsspec. What
# is not here is found there, torch among it. The project itself is installed here, since Inspect looks for its entry point.
set -euo pipefail
cd "$(dirname "$0")/../.."

environment=.venv-inspect
below=${VENV:-.venv}
stamp=$environment/.installed
[[ $stamp -nt tests/inspect/install.sh && $stamp -nt locked/inspect.txt && $stamp -nt pyproject.toml ]] && exit 0

rm -rf "$environment"
"$below/bin/python" -m venv --without-pip "$environment"
purelib() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
pip() { "$below/bin/python" -m pip --python "$environment/bin/python" install --quiet --disable-pip-version-check --no-deps "$@"; }
pip --require-hashes -r locked/inspect.txt
purelib "$below" > "$(purelib "$environment")/zz-below.pth"
pip --no-build-isolation -e .
touch "$stamp"

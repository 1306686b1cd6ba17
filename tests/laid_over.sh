# Read by what makes an environment laid over the project's: what is not in it is found there, torch among it.
# Give $environment its name first, then: fresh, install …, lay_over.
below=${VENV:-.venv}

fresh() {
    rm -rf "$environment"
    "$below/bin/python" -m venv --without-pip "$environment"
}

install() {
    "$below/bin/python" -m pip --python "$environment/bin/python" install --quiet --disable-pip-version-check --no-deps "$@"
}

# After what is locked: pip would take what lies below for installed.
lay_over() {
    purelib "$below" > "$(purelib "$environment")/zz-below.pth"
}

purelib() {
    "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
}

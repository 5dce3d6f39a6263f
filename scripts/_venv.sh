# Sourced by the other scripts: ROOT, VENV, say, fail and ensure_venv. Bash 3.2 (macOS) and newer.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV="$ROOT/.venv"
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '==> %s\n' "$*" >&2; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Prints the first Python that is new enough and can make virtual environments.
find_python() {
    for candidate in python3.13 python3.12 python3.11 python3; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# On Linux MLX compiles kernels while it runs, and calls g++ by this name; on a Mac it needs no compiler.
check_compiler() {
    if [ "$(uname -s)" = Linux ] && ! command -v g++ >/dev/null 2>&1; then
        say "warning: g++ is missing and MLX needs it while it runs; install your system's package (Debian: g++)"
    fi
}

# ensure_venv [EXTRA]: .venv with this package, and the extra when one is named. Installs only when something changed.
ensure_venv() {
    extra=${1:-}
    stamp="$VENV/chrysalis-mlx.installed"
    if ! "$VENV/bin/python" -c '' >/dev/null 2>&1; then
        python=$(find_python) || fail "no Python >= 3.11 with the venv module was found (tried python3.13, python3.12," \
            "python3.11, python3); install one from your system's packages or python.org"
        say "creating .venv with $("$python" -V 2>&1)"
        rm -rf "$VENV"
        "$python" -m venv "$VENV"
    fi
    # The place counts too: an environment that was moved along with its checkout still points at the old one.
    state=$("$VENV/bin/python" -c 'import hashlib, sys
print(hashlib.sha256(open(sys.argv[1], "rb").read() + sys.argv[2].encode()).hexdigest())' "$ROOT/pyproject.toml" "$ROOT")
    if [ ! -f "$stamp" ] || [ "$(head -n 1 "$stamp")" != "$state" ]; then
        rm -f "$stamp"
    elif grep -q -x "extra:$extra" "$stamp"; then
        return 0
    fi
    target="$ROOT${extra:+[$extra]}"
    say "installing chrysalis-mlx${extra:+[$extra]} into .venv (some minutes the first time)"
    "$VENV/bin/python" -m pip install --quiet --editable "$target" ||
        fail "the installation failed; the lines above say why. Run the same command again to go on."
    [ -f "$stamp" ] || printf '%s\nextra:\n' "$state" >"$stamp"
    if [ -n "$extra" ]; then printf 'extra:%s\n' "$extra" >>"$stamp"; fi
    check_compiler
}

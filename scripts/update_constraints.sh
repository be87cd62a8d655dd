#!/usr/bin/env bash
# Writes constraints.txt anew: exact versions for every Python and platform that CI runs on.
# Needs `uv` on the PATH. Versions already in the file are kept unless "$@" has --upgrade.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

torch=2.13.0
cp constraints.txt "$work/pins.txt"
echo "torch==$torch" >"$work/torch.txt"
uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate "$@" \
    --extra convert --extra search --extra lora --extra ray --extra evaluate --extra live --extra server --extra test --extra dev --extra mkl --constraint "$work/torch.txt" \
    pyproject.toml tests/parity/requirements.txt tests/page/requirements.txt --output-file "$work/pins.txt"

# The CUDA packages and triton belong to the Linux GPU build of torch; which build a machine gets
# is its own business, so they are left unpinned. The rest is for platforms we do not test.
{
    sed -n '/^#/p' constraints.txt
    grep -vE "^(nvidia-|cuda-|triton==)|== '(emscripten|win32)'" "$work/pins.txt" |
        sed -E "s/sys_platform != 'emscripten' and //; s/( and| ;) sys_platform != 'emscripten'//"
} >"$work/constraints.txt"
mv "$work/constraints.txt" constraints.txt
echo "constraints.txt is written; the Homebrew formula follows it: make formula"

#!/usr/bin/env bash
# Makes a release and stops before the upload: builds the sdist and the wheel, checks them, installs
# the wheel in a fresh environment and lets it speak.
#
#     bash release.sh              PYTHON=python3.12 names the Python to test with
#
# What it leaves: dist/, ready for `twine upload dist/*`, and a tag to make, both by hand.
set -euo pipefail
cd "$(dirname "$0")"

python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "release: $*" >&2
    exit 1
}

stage() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }

stage "Version"
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' vocoder/__init__.py)
grep -q "^## \[$version\] - " CHANGELOG.md || fail "CHANGELOG.md has no section for $version"
grep -q "^version: $version\$" CITATION.cff || fail "CITATION.cff is of another version than $version"
[ -z "$(git status --porcelain)" ] || fail "there are uncommitted changes: commit them first"
echo "$version"

stage "Build"
"$python" -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet build twine
rm -rf dist
"$work/tools/bin/python" -m build --outdir dist . >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
"$work/tools/bin/twine" check --strict dist/*
wheel=$(echo dist/*.whl)
megabytes=$(($(wc -c <"$wheel") / 1000000))
[ "$megabytes" -lt 60 ] || fail "the wheel has $megabytes MB: 60 at most"
du -h dist/*

stage "Install into a fresh environment"
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "$wheel"
"$work/venv/bin/pip" check

stage "Speak, in a folder where the checkout cannot be imported"
cd "$work"
"$work/venv/bin/vocoder" --version | grep -qx "flow-vocoder $version" || fail "the version is not $version"
"$work/venv/bin/vocoder" say "The quick brown fox jumps over the lazy dog." -o hello.wav
"$work/venv/bin/vocoder" resynthesize hello.wav -o again.wav
"$work/venv/bin/python" - <<'CHECKS'
import numpy as np
import vocoder

said, rate = vocoder.read_audio("hello.wav")
again, _ = vocoder.read_audio("again.wav")
assert rate == 22050 and len(said) == len(again) and 1.5 * rate < len(said) < 8 * rate
model = vocoder.load()
distance = model.mel_spec.distance(model.mel(again), model.mel(said))
assert float(said.std()) > 0.01 and float(distance) < 0.5, distance
CHECKS

stage "All passed"
cat <<DONE
To publish: git tag v$version && git push --tags, then twine upload dist/*
DONE

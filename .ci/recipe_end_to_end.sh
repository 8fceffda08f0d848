#!/usr/bin/env bash
# The recipe on the sample corpus as a user meets it: train, get killed, resume with the same command,
# and make sound with the checkpoint that the run wrote.
#
#     bash .ci/recipe_end_to_end.sh FOLDER        FOLDER/bin holds python and vocoder
set -euo pipefail
cd "$(dirname "$0")/.."

bin=$1/bin
work=$(mktemp -d)
trainer=
cleanup() {
    if [ -n "$trainer" ]; then kill -9 "$trainer" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap cleanup EXIT

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

steps=400
run=$work/run
train=("$bin/python" recipes/ljspeech/train.py --data sample --config tiny
    --run "$run" --cache "$work/prepared" --max_steps "$steps" --save_every 1)

echo "-- train until a checkpoint is there, then kill -9"
"${train[@]}" </dev/null >"$work/first.log" 2>&1 &
trainer=$!
for _ in $(seq 600); do
    if [ -e "$run/last.ckpt" ]; then break; fi
    kill -0 "$trainer" 2>/dev/null || break
    sleep 0.5
done
kill -9 "$trainer" 2>/dev/null || true
status=0
{ wait "$trainer" || status=$?; } 2>/dev/null # without bash's own word on it
trainer=
if [ ! -e "$run/last.ckpt" ]; then
    cat "$work/first.log"
    fail "no checkpoint was written"
fi
if [ "$status" -ne 137 ] || [ -e "$run/model" ]; then
    cat "$work/first.log"
    fail "training ended (status $status) before it could be killed"
fi

echo "-- go on by the same command"
"${train[@]}" </dev/null 2>&1 | tee "$work/second.log"
grep -q "resuming from .*last.ckpt" "$work/second.log" || fail "the second run started anew"
[ -e "$run/report.md" ] || fail "no report was written"

echo "-- make sound from the checkpoint just written"
original=recipes/ljspeech/sample/wavs/ru_0813.flac
"$bin/vocoder" resynthesize "$original" --checkpoint "$run/model" -o "$work/sound.wav"

"$bin/python" - "$run" "$steps" "$original" "$work/sound.wav" <<'CHECKS'
import json
import sys
from pathlib import Path

import numpy as np
import soundfile

run, steps, original, made = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]

rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
seen = [row["step"] for row in rows]
assert seen[0] == 0 and seen[-1] == steps, f"validated from step {seen[0]} to {seen[-1]}"
assert seen == sorted(seen), f"the steps run backwards: {seen}"
# Not the likelihood: it is nearly there at the start, and the spectral term costs some of it.
closer = rows[0]["val/mel_distance"] - rows[-1]["val/mel_distance"]
assert closer > 0, f"the held-out mel distance grew by {-closer} nats"

pickled = [p for p in (run / "model").rglob("*") if p.suffix in {".pt", ".pth", ".ckpt", ".pkl"}]
assert not pickled, f"pickles in the checkpoint: {pickled}"

before, rate = soundfile.read(original, dtype="float64")
after, made_rate = soundfile.read(made, dtype="float64")
assert (made_rate, after.shape) == (rate, before.shape), f"{made_rate} Hz, {after.shape}"
assert np.isfinite(after).all(), "samples that are not finite"
ratio = np.sqrt((after**2).mean() / (before**2).mean())
assert 0.03 < ratio < 30, f"level {20 * np.log10(ratio):.1f} dB beside the original"
print(f"{len(after)} samples, level {20 * np.log10(ratio):+.1f} dB; mel distance -{closer:.3f} nats")
CHECKS

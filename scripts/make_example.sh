#!/usr/bin/env bash
# Speaks examples/sample.txt into examples/sample.wav: 16 kHz, mono, 16 bit.
# Needs Debian's `flite` (2.2); its voice "rms" is one that whisper-base understands word for word.
set -euo pipefail
cd "$(dirname "$0")/../examples"
flite -voice rms -f sample.txt -o sample.wav

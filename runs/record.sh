#!/usr/bin/env bash
# Records the runs that docs/RESULTS.md is made from; stop it and start it again at any time.
#   runs/record.sh MODEL DATA [OUT]     MODEL: the .gguf file of Qwen2.5-Coder-0.5B-Instruct (Q4_K_M)
#                                       DATA: a folder with the benchmarks as .jsonl files; OUT: recorded/
set -euo pipefail
model=$1 data=$2 out=${3:-recorded}

record() { # task, file, problems, samples, folder
  local known=()
  if [[ -e $out/$5/manifest.json ]]; then known=(--resume); fi
  nad eval --task "$1" --data "$data/$2" -m "$model" -n "$4" --limit "$3" --out "$out/$5" "${known[@]}"
}

for share in 1 2 3 4; do # all tasks a little further each time
  record gsm8k gsm8k_test.jsonl $((25 * share)) 16 gsm8k
  record svamp svamp.jsonl $((25 * share)) 16 svamp
  record mbpp_sanitized mbpp_sanitized.jsonl $((50 * share)) 16 mbpp_sanitized
  record humaneval humaneval.jsonl $((41 * share)) 16 humaneval
done
for share in 1 2 3 4; do
  record gsm8k gsm8k_test.jsonl $((25 * share)) 64 gsm8k-64
  record humaneval humaneval.jsonl $((41 * share)) 64 humaneval-64
done

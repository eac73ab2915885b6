#!/bin/sh
# make demo: a short story, then one needle question over a long haystack in every attention mode, with what it cost.
set -eu
cd "$(dirname "$0")/.."
model=models/needle-s.gguf
twin=models/needle-s2.gguf
tokens=${1:-16000}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "== A story by $model (3.0M parameters, trained by us)"
printf 'Once upon a time'
./run $model -p 'Once upon a time' -n 110 --temp 0.6 -s 3 -q
echo; echo
echo "== A needle question: one fact at 20 % of $tokens tokens of stories, four facts of the same kind around it"
./bin/haystack $model -n "$tokens" --depth 20 -s 4 --answer "$work/answer" >"$work/text" 2>"$work/planted"
echo "planted $(cat "$work/planted")"
grep -o 'Question: .*' "$work/text"
answer=$(cat "$work/answer")
echo

# field NAME: a number of the statistics of the last run
field() { sed -n 's/.*"'"$1"'": *\([0-9.e+]*\).*/\1/p' "$work/stats" | head -n 1; }
ask() {                                 # MODEL MODE: one line
    ./run "$1" -f "$work/text" -n 10 --temp 0 --attn "$2" --stats json >"$work/said" 2>"$work/stats"
    found=lost
    if grep -qF "$answer" "$work/said"; then found=found; fi
    awk -v m="$2" -v f=$found -v kv="$(field kv_bytes)" -v keys="$(field keys_read_per_token)" -v pre="$(field prompt_per_second)" \
        -v dec="$(field predicted_per_second)" 'BEGIN { printf "%-58s %-6s %7.1f %9.0f %9.0f %8.0f\n", m, f, kv / 1048576, keys, pre, dec }'
    [ "$2" != full ] || [ $found = found ] || { echo "full attention lost the needle: said $(cat "$work/said")" >&2; exit 1; }
}
printf '%-58s %-6s %7s %9s %9s %8s\n' --attn needle "KV MiB" "keys read" prefill decode
printf '%-58s %-6s %7s %9s %9s %8s\n' "" "" "" "per token" t/s t/s
ask $model full
ask $model stream
ask $model duo,ratio=0.3
ask $model delta
ask $model hip
ask $model hip,dense=0
ask $model s2,approx=1
ask $model moa
ask $model moa,beta=0.25
echo
echo "== The same question to $twin, which was trained with s2"
ask $twin s2

# The trained models: what they must find, in every cache type, and what the one trained with s2 frees. TAP output.
set -u
B=${1:-build/release}
needle=$B/tools/needle
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
n=0
report() { n=$((n + 1)); if [ "$1" -eq 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; sed 's/^/# /' "$work/out" | head -n 20; fi; }
# grid NAME MODEL ARGS: every cell of a small grid scores 1
grid() {
    name=$1 model=$2
    shift 2
    rm -f "$work/rows"
    "$needle" "$model" --task single,hop --lengths 2k,6k --depths 10,90 -n 16 -q --no-png -o "$work/rows" "$@" >"$work/out" 2>&1
    [ -s "$work/rows" ] && [ "$(grep -c '"score":1,' "$work/rows")" -eq "$(wc -l <"$work/rows")" ]
    report $? "$name"
}
grid "needle-s finds facts and the owner of what lies in a place" models/needle-s.gguf
grid "the same with a Q8_0 cache" models/needle-s.gguf --kv q8_0
grid "with its retrieval heads alone seeing everything" models/needle-s.gguf --attn duo,ratio=0.3,sink=16,recent=240
grid "with the layers bin/heads chose for delta" models/needle-s.gguf --attn delta
grid "needle-s2 finds them in the mode it was trained with, its default" models/needle-s2.gguf
bytes() { grep '"context_length":6144' "$work/rows" | sed -n 's/.*"kv_bytes":\([0-9]*\),.*/\1/p' | head -n 1; }
sharded=$(bytes)
grid "and in full" models/needle-s2.gguf --attn full
[ "$sharded" -lt $(($(bytes) * 6 / 10)) ]; report $? "of which it keeps little more than half the cache ($sharded of $(bytes))"
"$needle" models/needle-s.gguf --task single --lengths 6k --depths 10 -n 16 -q --no-png --attn stream,sink=4,recent=252 >"$work/out" 2>&1
grep -q '| stream | F16 | 6k | 1 | 0.000 |' "$work/out"; report $? "a window loses what lies outside"
"$B/tools/haystack" models/needle-s.gguf -n 2048 -s 11 >"$work/text" 2>"$work/out"
moved() {
    "$B/tools/perplexity" models/needle-s.gguf -f "$work/text" -c 1024 --kld full -ctk "$1" -ctv "$1" 2>"$work/out" |
        sed -n 's/^mean KL.* = \([^ ]*\) .*/\1/p'
}
f16=$(moved f16) q8=$(moved q8_0) q4=$(moved q4_0)
awk -v f16="$f16" -v q8="$q8" -v q4="$q4" 'BEGIN { exit !(f16 == 0 && q8 > 0 && q4 > 10 * q8) }'
report $? "prose moves with the cache type, measured from f16: $f16, q8_0 $q8, q4_0 $q4"
echo "1..$n"

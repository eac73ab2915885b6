#!/bin/sh
# Mode hip on the trained model: the needle of a 4k context is found with the first layers dense, as they are unless told
# otherwise; it is lost when all layers read next to nothing.
B=${1:-build/release}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
model=models/needle-proto.gguf
"$B"/tools/haystack $model -n 4000 --depth 20 --answer "$dir/answer" >"$dir/prompt"
code=$(sed 's/.* is \(.*\)\./\1/' "$dir/answer")
n=0
check() {    # NAME, grep's flags, --attn
    name=$1 flag=$2 attn=$3
    n=$((n + 1))
    if "$B"/run $model -f "$dir/prompt" -n 8 --temp 0 -t 2 --attn "$attn" 2>"$dir/err" | grep $flag "$code" >/dev/null
    then echo "ok $n - $name"; else echo "not ok $n - $name"; cat "$dir/err"; fi
}
check "found with the first layers dense" -q hip,until=0
check "lost with k=16 everywhere" -vq hip,dense=0,until=0,k=16,window=64,sink=0
echo "1..$n"

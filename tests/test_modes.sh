# Every attention mode with every type of KV cache: the needle is found, and by fewer keys than full attention reads.
set -u
B=${1:-build/release}
model=models/needle-proto.gguf
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
n=0
report() { n=$((n + 1)); if [ "$1" -eq 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; fi; }
printf '0\t0\n0\t0\n1\t1\n0\t0\n' >"$work/heads.tsv"      # both KV heads of layer 2 retrieve
for kv in f32 f16 bf16 q8_0 q4_0; do
    "$B/tools/needle" $model -ctk $kv -ctv $kv --lengths 3k --depths 20 -n 8 --no-png -q \
        --attn full --attn duo,heads="$work/heads.tsv",ratio=0.25,sink=16,recent=112 --attn hip,dense=3,k=128,window=64,until=0 \
        --attn delta,full=0,1,2,budget=32 --attn s2,approx=1,local=4,dense_first=3,dense_every=0 >"$work/out" 2>"$work/err"
    report $? "five modes run with $kv"
    full=$(awk -F'|' '$4 ~ /full/ { print $10 + 0 }' "$work/out")
    for mode in full duo hip delta s2; do
        awk -F'|' -v m=$mode -v full="$full" '$4 ~ m { ok = $8 == 1 && (m == "full" || $10 + 0 < full) } END { exit !ok }' "$work/out"
        report $? "$mode with $kv finds it, by fewer keys"
    done
done
# What must be lost: a retrieval head that streams, and a window that does not reach.
printf '1\t1\n1\t1\n0\t0\n1\t1\n' >"$work/wrong.tsv"
"$B/tools/needle" $model --lengths 3k --depths 20 -n 8 --no-png -q --attn duo,heads="$work/wrong.tsv",ratio=0.75,sink=16,recent=112 \
    --attn stream,recent=252 --attn s2,approx=1,local=4 --attn hip,dense=0,k=128,window=64,until=0 >"$work/out" 2>"$work/err"
for mode in duo stream s2 hip; do
    awk -F'|' -v m=$mode '$4 ~ m { lost = $8 == 0 } END { exit !lost }' "$work/out"
    report $? "$mode loses what its retrieval heads do not see"
done
echo "1..$n"

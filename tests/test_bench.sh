# bin/bench on the embedded model: streams, formats, keys, the command line. No speed is judged. TAP output.
set -u
B=${1:-build/release}
model=models/needle-proto.gguf
bench=$B/tools/bench
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
n=0
report() { n=$((n + 1)); if [ "$1" -eq 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; sed 's/^/# /' "$work/out" "$work/err" 2>/dev/null | head -n 8; fi; }
# check NAME COMMAND...: exit 0, nothing on stderr; stdout lands in $work/out
check() { name=$1; shift; "$@" >"$work/out" 2>"$work/err" </dev/null && [ ! -s "$work/err" ]; report $? "$name"; }
# refuse NAME EXIT WORDS COMMAND...: nothing on stdout, one line on stderr that holds WORDS
refuse() {
    name=$1 want=$2 words=$3; shift 3
    "$@" >"$work/out" 2>"$work/err" </dev/null; rc=$?
    [ $rc -eq "$want" ] && [ ! -s "$work/out" ] && [ "$(wc -l <"$work/err")" -eq 1 ] && grep -qF -- "$words" "$work/err"
    report $? "$name (exit $rc, wanted $want, '$words')"
}
# field KEY ROW: the value of a key in a row of JSON lines
field() { sed -n "$2p" "$work/out" | sed "s/.*\"$1\":\(\[[^]]*\]\|\"[^\"]*\"\|[^,}]*\).*/\1/"; }
# same KEY ROW WANTED
same() { got=$(field "$1" "$2"); [ "$got" = "$3" ]; report $? "row $2: $1 is $3 (got $got)"; }
rows() { [ "$(wc -l <"$work/out")" -eq "$1" ]; report $? "$1 lines"; }

check "JSON lines" "$bench" $model -p 24 -n 4 -d 0,1k -r 3 -t 2 -b 16 -o jsonl
rows 4
for key in build_commit cpu_info model_filename model_type model_size model_n_params n_batch n_ubatch n_threads type_k type_v \
    n_prompt n_gen n_depth test_time avg_ns stddev_ns avg_ts stddev_ts samples_ns samples_ts attn attn_params kv_bytes peak_rss \
    keys_read_per_token keys_searched_per_token gb_per_s gflop_per_s; do
    [ "$(grep -c "\"$key\":" "$work/out")" -eq 4 ]; report $? "every row has $key"
done
same n_prompt 1 24; same n_gen 1 0; same n_depth 1 0
same n_prompt 2 0; same n_gen 2 4; same n_depth 3 1024
same type_k 1 '"f16"'; same attn 1 '"full"'; same n_batch 1 16
same keys_read_per_token 1 12.657534                # 1..24 keys in three layers, 24 in the last: its last token alone
same keys_read_per_token 3 1036.657534
same keys_read_per_token 4 1026.5                   # 1025..1028
same gb_per_s 3 null
[ "$(field samples_ns 1 | tr -cd , | wc -c)" -eq 2 ]; report $? "three samples"
# avg_ts = mean of samples_ts; samples_ts = n / samples_ns
sed -n 4p "$work/out" | awk -F'"samples_ns":\\[' '{ split($2, part, "]"); n = split(part[1], ns, ","); ok = n == 3
    for (i = 1; i <= n; i++) { sum += 4e9 / ns[i]; mean += ns[i] / n }
    split($0, a, "\"avg_ts\":"); split($0, b, "\"avg_ns\":")
    d = a[2] / (sum / n) - 1; e = b[2] / mean - 1
    exit !(ok && d * d < 1e-10 && e * e < 1e-10) }'
report $? "avg_ts and avg_ns are the means of their samples"
kv0=$(field kv_bytes 1) kv1=$(field kv_bytes 3)
[ "$kv1" -gt "$kv0" ]; report $? "the cache grows with depth ($kv0, $kv1)"

same keys_searched_per_token 4 0
# 495 blocks of 16 keys between sink and window, 8 branches: 6 levels of 16 halves, at every token or at every other one.
check "a mode that searches" "$bench" $model -p 0 -n 16 -r 1 -d 8k --attn hip,dense=0,until=0,k=128,refresh=1 --attn hip,dense=0,until=0,k=128,refresh=2 -o jsonl
rows 2
once=$(field keys_searched_per_token 1) twice=$(field keys_searched_per_token 2)
awk "BEGIN { exit !($once <= 6 * 256 && $once > 5 * 256 && $once / $twice > 1.7 && $once / $twice < 2.1) }"; report $? "keys it scored ($once, $twice)"
check "modes take turns" "$bench" $model -p 8 -n 0 -r 2 --attn full --attn full -d 16 -o jsonl -ctk q8_0
rows 2
same n_depth 2 16; same type_k 2 '"q8_0"'
check "fill by the model" "$bench" $model -p 4 -n 2 -r 1 -d 300 --fill model -o jsonl
same n_depth 1 300; same fill 1 '"model"'; same keys_read_per_token 2 301.5; same stddev_ns 1 0
check "ranges, each depth once, ascending" "$bench" $model -p 2 -n 0 -r 1 -d 8,0:16:8 -o jsonl --no-warmup
rows 3
same n_depth 1 0; same n_depth 3 16
check "JSON" "$bench" $model -p 2 -n 1 -r 1 -o json
[ "$(head -n 1 "$work/out")" = "[" ] && [ "$(tail -n 1 "$work/out")" = "]" ] && [ "$(grep -c '^}' "$work/out")" -eq 2 ]; report $? "one array of two objects"
check "CSV" "$bench" $model -p 2 -n 1 -r 2 -o csv
rows 3
head -n 1 "$work/out" | grep -q '^build_commit,cpu_info,'; report $? "CSV has a header"
[ "$(sed -n 1p "$work/out" | tr -cd , | wc -c)" -eq "$(sed -n 2p "$work/out" | sed 's/"[^"]*"/x/g' | tr -cd , | wc -c)" ]; report $? "CSV rows are as wide as the header"
check "a table" "$bench" $model -p 2 -n 1 -d 32 -r 1
rows 4
grep -q 'pp2 @ d32 ' "$work/out" && grep -q 'tg1 @ d32 ' "$work/out"; report $? "tests are named as llama-bench does"
check "a sweep" "$bench" $model -p 16 -n 4 -d 0:32:16 -r 1 --sweep
rows 5
head -n 1 "$work/out" | grep -q '^|    PP |     TG |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |$'; report $? "columns of a sweep"
check "a sweep as JSON lines" "$bench" $model -p 16 -n 4 -d 32 -r 1 --sweep -o jsonl
same n_kv 1 32; same pp 1 16; same tg 1 4

check "--limits" "$bench" --limits -t 1 -o jsonl
grep -q '"limit":"memory read"' "$work/out" && grep -q '"limit":"f32 multiply-add"' "$work/out"; report $? "memory and arithmetic are measured"
! grep -q '"best":0[,}]' "$work/out"; report $? "no rate is 0"
check "--help" "$bench" --help
[ "$(wc -l <"$work/out")" -lt 60 ]; report $? "help is short"
check "--attn help" "$bench" --attn help
grep -q '^full' "$work/out"; report $? "--attn help lists full"

refuse "no model" 2 "no MODEL given" "$bench"
refuse "unknown flag" 2 "unknown flag '--frob'" "$bench" $model --frob
refuse "bad list" 2 "-d: got 'x', wanted an integer" "$bench" $model -d 0,x
refuse "half a range" 2 "wanted FIRST:LAST:STEP" "$bench" $model -d 0:8
refuse "a range that never ends" 2 "-d: got 0, wanted 1 to" "$bench" $model -d 0:8:0
refuse "an empty item" 2 "-p: got ''" "$bench" $model -p 1,
refuse "negative" 2 "-n: got -1" "$bench" $model -n -1
refuse "too many depths" 2 "more than 1024 numbers" "$bench" $model -d 0:1m:1
refuse "nothing to do" 2 "nothing to measure" "$bench" $model -p 0 -n 0
refuse "unknown format" 2 "wanted md, csv, json or jsonl" "$bench" $model -o xml
refuse "unknown fill" 2 "wanted synthetic or model" "$bench" $model --fill air
refuse "unknown mode, before the file is opened" 2 "nope" "$bench" no-such.gguf --attn full --attn nope
refuse "unknown cache type" 2 "wanted f32, f16" "$bench" no-such.gguf -ctk q3
refuse "a sweep of two lengths" 2 "--sweep: wanted one -p and one -n" "$bench" $model --sweep -p 1,2
refuse "limits of a model" 2 "wanted none" "$bench" $model --limits
refuse "missing file" 1 "No such file" "$bench" no-such.gguf -o json
refuse "depth beyond memory" 1 "for keys and values" "$bench" $model -d 900m -n 1 -p 1
if [ -w /dev/full ]; then "$bench" $model -p 2 -n 1 -r 1 >/dev/full 2>"$work/err"; [ $? -eq 1 ] && grep -q stdout "$work/err"; report $? "full disk: exit 1"; fi
# tools/compare.sh beside engines that are not there: their llama-bench claims 1000 and 50 t/s, their sweep 400 and 20.
cat >"$work/peer" <<'END'
#!/bin/sh
p=0 n=0 gp=
while [ $# -gt 0 ]; do
    case $1 in --help) printf '  -gp <pp,tg>  (default: )\n'; exit ;; -p) p=$2; shift ;; -n) n=$2; shift ;; -gp) gp=$2; shift ;; esac
    shift
done
echo 'build_commit,cpu_info,n_prompt,n_gen,avg_ts'
[ "$p" -eq 0 ] || echo "\"abc123\",\"a CPU, they say\",\"$p\",\"0\",\"1000\""
[ "$n" -eq 0 ] || echo "\"abc123\",\"a CPU, they say\",\"0\",\"$n\",\"50\""
[ -z "$gp" ] || echo "\"abc123\",\"a CPU, they say\",\"${gp%,*}\",\"${gp#*,}\",\"25\""
END
cat >"$work/sweep" <<'END'
#!/bin/sh
echo '|    PP |     TG |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |'
echo '|     8 |      2 |      0 |    0.008 |   999.00 |    0.040 |    49.00 |'
echo '|     8 |      2 |     16 |    0.020 |   400.00 |    0.100 |    20.00 |'
END
chmod +x "$work/peer" "$work/sweep"
compare() { name=$1; shift; tools/compare.sh -r 3 -p 8 -n 2 -d 0,16 -t 1 -k "$work/samples" "$@" >"$work/out" 2>"$work/err"; report $? "$name"; }
row() { grep -qE -- "$1" "$work/out"; report $? "compare.sh: a row like $1"; }
compare "compare.sh with a sweep" -s "$work/sweep" "$work/peer" $model
row "\| pp8 \| .* \| 1000\.0 \(1000\.0-1000\.0\) \| [0-9.]+ \|"
row "\| pp8 @ d16 \| .* \| 400\.0 \("
row "\| tg2 @ d16 \| .* \| 20\.0 \("
[ "$(wc -l <"$work/samples")" -eq 24 ]; report $? "compare.sh: 3 rounds of 4 tests of 2 engines"
# its median of ours is the median of the samples it kept
want=$(awk -F'\t' '$2 == "tg2" && !$3 && $4 == "ours" { print $5 }' "$work/samples" | sort -n | sed -n 2p | awk '{ printf "%.1f", $1 }')
row "\| tg2 \| $want \("
compare "compare.sh without one, waiting for a quiet second" -w 1 -r 1 "$work/peer" $model
row "\| pp8 @ d16 \| .* \| - \| - \|"
row "\| tg2 @ d16 \| .* \| 25\.0 \("
tools/compare.sh "$work/peer" >"$work/out" 2>"$work/err"; [ $? -eq 2 ]; report $? "compare.sh without a model: exit 2"
tools/compare.sh -r x "$work/peer" $model >"$work/out" 2>"$work/err"; [ $? -eq 2 ]; report $? "compare.sh with a bad number: exit 2"
tools/compare.sh "$work/none" $model >"$work/out" 2>"$work/err"; [ $? -eq 1 ]; report $? "compare.sh without its peer: exit 1"
echo "1..$n"

#!/bin/sh
# Remakes the tables and heat maps of docs/quality.md: every attention mode and cache type on the trained models - needles, tasks,
# perplexity, cost. Rows that are there already are kept (docs/quality/*.jsonl): delete them to measure anew.
#     [THREADS=2] tools/quality.sh [grid|tasks|settings|text|twins]...        (default: all; about 45 minutes on two cores)
set -eu
cd "$(dirname "$0")/.."
model=models/needle-s.gguf
twin=models/needle-s2.gguf
out=docs/quality
page=docs/quality.md
all=single,words,multikey,multivalue,hop,chain,count
threads=${THREADS:-2}
mkdir -p $out
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# The modes, each at a generous and at a tight budget; heads, layers and spans are those beside the model.
modes() {
    cat <<END
full
stream,sink=4,recent=1020
stream,sink=4,recent=252
duo,ratio=0.5,sink=16,recent=240
duo,ratio=0.3,sink=16,recent=240
hip
hip,dense=0,k=512
delta
delta,full=0,budget=64
s2,approx=1
s2,approx=1,block=16,local=16,dense_first=1,dense_every=0
moa
moa,beta=0.25
END
}

# block NAME FILE: the lines between <!-- NAME --> and <!-- /NAME --> of the page become the file's.
block() {
    awk -v name="$1" -v file="$2" '
        $0 == "<!-- " name " -->" { print; print ""; while ((getline line < file) > 0) print line; print ""; inside = 1; next }
        $0 == "<!-- /" name " -->" { inside = 0 }
        !inside' $page >"$work/page"
    cp "$work/page" $page
}

# The lines under a table that say what hip-2 is, as a list; without where a file of heads lies.
legend() { sed -E 's/^([a-z0-9-]+): (.*)$/- `\1`: `\2`/'; }

# ask MODEL MODE ROWS arguments: a sweep of one mode.
ask() {
    m=$1 mode=$2 rows=$3
    shift 3
    ./bin/needle "$m" --attn "$mode" "$@" -t "$threads" -n 24 -q --no-png -o "$rows" >/dev/null
}

# needle ROWS arguments: one sweep over all modes.
needle() {
    rows=$1
    shift
    modes | sed 's/^/--attn\n/' >"$work/modes"
    # shellcheck disable=SC2046
    ./bin/needle $model $(cat "$work/modes") "$@" -t "$threads" -n 24 -q --no-png -o "$rows" >/dev/null
}

grid() {
    needle $out/grid.jsonl --task single --lengths 1k,4k,16k --depths 5,25,50,75,95
    needle $out/grid.jsonl --task single --lengths 1k,4k,16k --depths 5,95 --kv q8_0,q4_0
    needle $out/grid.jsonl --task single --lengths 32k --depths 5,50 --trials 3
    needle $out/grid.jsonl --task single --lengths 32k --depths 50 --kv q8_0,q4_0 --trials 3
    depths=5,25,50,75,95
    ask $model full $out/full.jsonl --task single,words --lengths 1k,4k,16k,32k --depths $depths --trials 4
    ./bin/needle --plot-only $out/full.jsonl --no-png | grep '^|' >"$work/table"
    block full "$work/table"
    ./bin/needle --plot-only $out/grid.jsonl --table lengths --png $out/grid.png | legend >"$work/table"
    rm -f $out/grid.*-Q?_0.png              # grid.png holds them all
    block grid "$work/table"
    ./bin/needle --plot-only $out/grid.jsonl --no-png | awk '/^\|/ && (NR < 3 || /\| F16 \| 16k \|/)' >"$work/table"
    block cost "$work/table"
}

tasks() {
    needle $out/tasks.jsonl --task $all --lengths 4k --depths 10,50,90 --trials 2
    needle $out/tasks.jsonl --task $all --lengths 4k --depths 50 --trials 2 --kv q8_0,q4_0
    ./bin/needle --plot-only $out/tasks.jsonl --table tasks --no-png | legend >"$work/table"
    block tasks "$work/table"
}

# Held-out text: stories of a seed no test uses, 4k tokens, fed one at a time so that modes of decode take part; each cache type
# beside full attention with an f16 cache.
text() {
    ./bin/haystack $model -n 4096 -s 4242 --distractors 12 --answer /dev/null >"$work/text" 2>/dev/null
    {
        echo "| attn | perplexity | KL(full, mode) | same top token % | q8_0: perplexity | KL | q4_0: perplexity | KL |"
        echo "|---|---:|---:|---:|---:|---:|---:|---:|"
        modes | while read -r mode; do
            line="| \`$mode\` |"
            for kv in f16 q8_0 q4_0; do
                ./bin/perplexity $model -f "$work/text" -c 4096 --chunks 1 --decode -t "$threads" --kld full --attn "$mode" \
                    -ctk $kv -ctv $kv 2>/dev/null </dev/null >"$work/ppl"
                line="$line $(sed -n 's/^ppl = //p' "$work/ppl") | $(sed -n 's/.*) = \(.*\), same top.*/\1/p' "$work/ppl") |"
                [ $kv != f16 ] || line="$line $(sed -n 's/.*same top token \([0-9.]*\) .*/\1/p' "$work/ppl") |"
            done
            echo "$line"
        done
    } >"$work/table"
    block text "$work/table"
}

twins() {
    for pair in "$model full" "$twin s2" "$model s2,approx=1,block=32,local=4,stride=2,dense_first=0,dense_every=0,sink=0"; do
        ask "${pair% *}" "${pair#* }" $out/twins.jsonl --task $all --lengths 1k,4k,16k \
            --depths 5,50,95
    done
    ./bin/needle --plot-only $out/twins.jsonl --table pivot --no-png | legend >"$work/table"
    block twins "$work/table"
    ./bin/needle --plot-only $out/twins.jsonl --no-png | awk '/^\|/ && (NR < 3 || /\| single/)' >"$work/table"
    block twins-cost "$work/table"
}

# What the keys of a mode are worth: the defaults among their neighbours.
settings() {
    for mode in stream,recent=252 stream stream,recent=4092 duo,ratio=0.1 duo,ratio=0.3,recent=64 duo,ratio=0.3 duo,ratio=0.3,recent=1024 duo \
        hip,k=256 hip hip,k=4096 hip,dense=4 hip,dense=2 hip,dense=0 hip,dense=0,k=4096 delta,budget=16,recent=2 delta delta,budget=256 \
        delta,full=0,2,3 delta,full=0,3 delta,full=0; do
        ask $model "$mode" $out/settings.jsonl --task single,multivalue,hop --lengths 16k --depths 10,50,90
    done
    ./bin/needle --plot-only $out/settings.jsonl --table pivot --no-png | legend >"$work/table"
    block settings "$work/table"
}

[ $# -gt 0 ] || set -- grid tasks settings text twins
for part; do
    case $part in
    grid | tasks | settings | text | twins) $part ;;
    *) echo "quality.sh: got '$part', wanted grid, tasks, settings, text or twins" >&2; exit 2 ;;
    esac
done
{
    echo "Machine: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc --all) cores; $(date -u +%Y-%m-%d)."
} >"$work/table"
block machine "$work/table"
echo "$page is new"

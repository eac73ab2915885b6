#!/bin/sh
# compare.sh - bin/bench beside another engine's llama-bench: same files, same threads, runs in turns, medians.
# Prints a table in Markdown on stdout (docs/benchmarks.md keeps one) and progress on stderr. It builds and fetches nothing.
set -eu
usage() {
    cat <<'END'
usage: tools/compare.sh [options] LLAMA_BENCH MODEL.gguf ...
  -s FILE   the peer's llama-sweep-bench, for depths when its llama-bench knows no -d
  -t N      threads (default 2)
  -r N      rounds; each round runs ours and the peer's once, in changing order (default 5)
  -p N      tokens of a prefill (default 512)
  -n N      tokens of a decode (default 64)
  -d LIST   depths (default 0)
  -a ARGS   more arguments for bin/bench, -b ARGS for the peer's llama-bench (one string, split at spaces)
  -w SEC    before each run wait up to SEC seconds for a second in which the machine is 85 % idle (default 0)
  -k FILE   keep every sample in FILE: tab-separated file, test, depth, engine, tokens per second, CPU % of others
END
}
die() { echo "compare.sh: $2" >&2; exit "$1"; }

sweep= threads=2 rounds=5 pp=512 tg=64 depths=0 ours_args= peer_args= wait=0 keep=
while getopts s:t:r:p:n:d:a:b:w:k:h o; do
    case $o in
    s) sweep=$OPTARG ;; t) threads=$OPTARG ;; r) rounds=$OPTARG ;; p) pp=$OPTARG ;; n) tg=$OPTARG ;; d) depths=$OPTARG ;;
    a) ours_args=$OPTARG ;; b) peer_args=$OPTARG ;; w) wait=$OPTARG ;; k) keep=$OPTARG ;;
    h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -ge 2 ] || { usage >&2; exit 2; }
for number in "$threads" "$rounds" "$pp" "$tg" "$wait"; do
    case $number in '' | *[!0-9]*) die 2 "got '$number', wanted a number" ;; esac
done
case $depths in *[!0-9,]*) die 2 "-d: got '$depths', wanted numbers and commas" ;; esac
peer=$1
shift
here=$(cd "$(dirname "$0")/.." && pwd)
ours=$here/bin/bench
[ -x "$ours" ] || die 1 "$ours: not built (make)"
for f in "$peer" $sweep; do command -v "$f" >/dev/null || die 1 "$f: cannot be run"; done
for f; do [ -r "$f" ] || die 1 "$f: cannot be read"; done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
samples=${keep:-$work/samples}
: >"$samples"

# What the peer can do: depths by -d, or a decode after a prefill by -gp.
"$peer" --help >"$work/help" 2>&1 || true
has_depth=0 has_gp=0
grep -q -- '--n-depth' "$work/help" && has_depth=1
grep -q -- '^ *-gp ' "$work/help" && has_gp=1

cpu() { awk '/^cpu /{ print $2 + $3 + $4 + $5 + $6 + $7 + $8 + $9, $5 + $6 }' /proc/stat; }
# ticks FILE: the CPU time of this shell's children, as `times` wrote it (which must run in this shell, not in a $(...))
ticks() { awk 'NR == 2 { for (i = 1; i <= 2; i++) { split($i, t, "[ms]"); s += 60 * t[1] + t[2] } print s * 100 }' "$1"; }
quiet() {
    left=$wait
    while [ "$left" -gt 0 ]; do
        a=$(cpu); sleep 1; left=$((left - 1))
        if echo "$a $(cpu)" | awk '{ exit !(($4 - $2) / ($3 - $1) >= 0.85) }'; then break; fi
    done
}
# timed COMMAND...: its output goes to $work/out; $others becomes the share of the CPU that other processes took
timed() {
    quiet
    times >"$work/before"
    c0=$(cpu) rc=0
    (cd "$work" && exec "$@") >"$work/out" 2>"$work/err" </dev/null || rc=$?
    c1=$(cpu)
    times >"$work/after"
    others=$(echo "$c0 $c1 $(ticks "$work/before") $(ticks "$work/after")" | awk '{ all = $3 - $1; x = (all - ($4 - $2) - ($6 - $5)) / (all + 1e-9) * 100; print x < 0 ? 0 : int(x) }')
    [ $rc -eq 0 ] || { tail -n 3 "$work/err" >&2; die 1 "$1 failed (exit $rc)"; }
}
# Rows of a llama-bench CSV -> samples. A row with both n_prompt and n_gen is a decode after a prefill.
take_csv() {
    awk -v file="$1" -v engine="$2" -v others="$others" '
        function cut(line,   n, c, quoted) {
            n = 1; split("", f)
            while (line != "") {
                c = substr(line, 1, 1); line = substr(line, 2)
                if (c == "\"") quoted = !quoted
                else if (c == "," && !quoted) n++
                else f[n] = f[n] c
            }
            return n
        }
        !head && /n_prompt/ { n = cut($0); for (i = 1; i <= n; i++) col[f[i]] = i; head = 1; next }
        head && NF {
            cut($0); p = f[col["n_prompt"]]; g = f[col["n_gen"]]; d = "n_depth" in col ? f[col["n_depth"]] + 0 : 0
            if (p > 0 && g > 0) { d = p; p = 0 }
            printf "%s\t%s\t%d\t%s\t%s\t%s\n", file, (g > 0 ? "tg" g : "pp" p), d, engine, f[col["avg_ts"]], others
            if ("build_commit" in col) print f[col["build_commit"]] > "'"$work"'/commit." engine
        }' "$work/out" >>"$samples"
}
take_sweep() {
    cat "$work/out" "$work/err" | awk -F'|' -v file="$1" -v others="$others" -v pp="$pp" -v tg="$tg" -v depths=",$depths," '
        $2 ~ /^ *[0-9]+ *$/ && $4 + 0 > 0 && index(depths, "," $4 + 0 ",") {
            if (pp > 0) printf "%s\tpp%d\t%d\tpeer\t%s\t%s\n", file, $2, $4, $6, others
            if (tg > 0) printf "%s\ttg%d\t%d\tpeer\t%s\t%s\n", file, $3, $4, $8, others
        }' >>"$samples"
}
run_ours() {
    timed "$ours" "$1" -t "$threads" -p "$pp" -n "$tg" -d "$depths" -r 1 -o csv $ours_args
    take_csv "$2" ours
}
deep=$(echo "$depths" | tr , '\n' | awk '$1 > 0')
run_peer() {
    set -- "$1" "$2" "$peer" -m "$1" -t "$threads" -r 1 -o csv $peer_args
    model=$1 name=$2
    shift 2
    if [ $has_depth = 1 ]; then
        timed "$@" -p "$pp" -n "$tg" -d "$depths"
        take_csv "$name" peer
        return
    fi
    case ,$depths, in *,0,*) timed "$@" -p "$pp" -n "$tg"; take_csv "$name" peer ;; esac
    [ -n "$deep" ] || return 0
    if [ -n "$sweep" ]; then
        last=$(echo "$deep" | sort -n | tail -n 1) stride=$(echo "$deep" | sort -n | head -n 1)
        for d in $deep; do [ $((d % stride)) -eq 0 ] || stride=$pp; done
        timed "$sweep" -m "$model" -t "$threads" -c $((last + pp)) -ub "$pp" -n "$tg" --sweep-stride $((stride / pp > 0 ? stride / pp : 1))
        take_sweep "$name"
    elif [ $has_gp = 1 ]; then
        for d in $deep; do timed "$@" -p 0 -n 0 -gp "$d,$tg"; take_csv "$name" peer; done
    fi
}

i=0
while [ $i -lt "$rounds" ]; do
    i=$((i + 1))
    for f; do
        f=$(cd "$(dirname "$f")" && pwd)/$(basename "$f") name=$(basename "$f")
        echo "round $i/$rounds: $name" >&2
        if [ $((i % 2)) -eq 1 ]; then run_ours "$f" "$name"; run_peer "$f" "$name"
        else run_peer "$f" "$name"; run_ours "$f" "$name"; fi
    done
done

commit() { sort -u "$work/commit.$1" 2>/dev/null | tail -n 1; }
cpu_name=$(awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo)
awk -F'\t' -v ours="$(commit ours)" -v peer="$(commit peer)" -v cpu="$cpu_name" -v threads="$threads" -v rounds="$rounds" \
    -v date="$(date -u +'%Y-%m-%d %H:%M UTC')" -v depths="$depths" '
    function median(s,   n, v, i, j, x) {
        n = split(s, v, " ")
        for (i = 2; i <= n; i++) { x = v[i] + 0; for (j = i - 1; j > 0 && v[j] + 0 > x; j--) v[j + 1] = v[j]; v[j + 1] = x }
        low = v[1] + 0; high = v[n] + 0
        return n % 2 ? v[(n + 1) / 2] + 0 : (v[n / 2] + v[n / 2 + 1]) / 2
    }
    function cell(s) { if (s == "") return "-"; m = median(s); return sprintf("%.1f (%.1f-%.1f)", m, low, high) }
    {
        test = $1 "\t" $2 ($3 ? " @ d" $3 : "")
        if (!(test in seen)) { seen[test] = 1; order[++n] = test }
        got[test, $4] = got[test, $4] " " $5
        others = others " " $6
    }
    END {
        printf "%s, %s, %d threads, medians of %d rounds (least-most), needle.c %s, peer %s.\n", date, cpu, threads, rounds, ours, peer
        printf "Other processes took %d %% of the CPU during a run (median).\n\n", median(others)
        print "| file | test | needle.c t/s | peer t/s | ratio |"
        print "|---|---|--:|--:|--:|"
        for (i = 1; i <= n; i++) {
            a = got[order[i], "ours"]; b = got[order[i], "peer"]; split(order[i], part, "\t")
            printf "| %s | %s | %s | %s | %s |\n", part[1], part[2], cell(a), cell(b), a != "" && b != "" ? sprintf("%.2f", median(a) / median(b)) : "-"
        }
    }' "$samples"

# What the peers of `scripts/bench files` share. Source it; do not run it. Environment: BENCH_DIR (work folder), SIZE_MIB; the
# source is $BENCH_DIR/src.bin. Each script prints "<number> MiB/s" and ends with 77 when its tool is not installed.
set -eu
SRC="$BENCH_DIR/src.bin"
PIDS=""
stop_all() { for p in $PIDS; do kill "$p" 2>/dev/null || true; done; }
trap stop_all EXIT INT TERM
now() { date +%s.%N; }
need() { # need COMMAND DEBIAN_PACKAGE
    command -v "$1" >/dev/null 2>&1 || { echo "skipped: no $1 (Debian package $2)" >&2; exit 77; }
}
report() { # report START END
    awk -v s="$1" -v e="$2" -v m="$SIZE_MIB" 'BEGIN { printf "%.1f MiB/s\n", m / (e - s) }'
}
check() { cmp "$SRC" "$1" >&2 || { echo "the copy differs" >&2; exit 1; }; }
wait_port() { # wait_port PORT: until something listens on 127.0.0.1:PORT
    i=0
    until (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do
        i=$((i + 1)); [ "$i" -lt 100 ] || { echo "port $1 never opened" >&2; exit 1; }
        sleep 0.05
    done
}

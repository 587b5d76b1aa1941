# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
# What every script here shares: messages, the cache, long steps. Sourced, never run.

# shellcheck disable=SC2034 # for those who source this

repo=$(cd -- "${BASH_SOURCE[0]%/*}/.." && pwd -P)
cache=${BPF_SCTP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/bpf-sctp}

# Debian keeps ethtool, tc and others out of a plain user's PATH; cargo installs into its own folder.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
warn() { say "warning: $*"; }
die() {
    say "error: $*"
    exit "${exit_code:-1}"
}

# The header comment of the calling script is its help.
usage() { sed -n '4,/^[^#]/ { s/^# \{0,1\}//p }' "$0"; }

# bad_usage WORDS: what is wrong with the command line
bad_usage() {
    exit_code=2
    die "$* (see scripts/${0##*/} --help)"
}

have() { command -v "$1" >/dev/null; }

newest_clang() { compgen -c clang- | grep -x 'clang-[0-9]*' | sort -V | tail -n 1; }

hash_of() { sha256sum | cut -c1-16; }

# need_space DIR GIB WHAT: DIR need not exist yet
need_space() {
    local dir=$1 free or=
    [[ $dir != "$cache" ]] || or=", or set BPF_SCTP_CACHE to a folder on a larger disk"
    until [[ -d $dir ]]; do dir=$(dirname -- "$dir"); done
    free=$(df --output=avail -B1M -- "$dir" | tail -n 1)
    ((free >= $2 * 1024)) ||
        die "$3 needs $2 GiB in $1, and $((free / 1024)) GiB are free: make room$or"
}

# Shows that a step is alive: on a terminal one line that is rewritten, else a line every half minute.
tick() { # LOG
    local start=$SECONDS period=30 end=$'\n' wake line
    [[ ! -t 2 ]] || { period=1 end=$'\e[K\r'; }
    exec {wake}<> <(:)
    while ! read -rt "$period" -u "$wake" && kill -0 $$ 2>/dev/null; do
        line=$(tail -n 1 -- "$1" | tr -cd '[:print:]' | cut -c1-60)
        printf '%s:   %ds  %s%s' "${0##*/}" $((SECONDS - start)) "$line" "$end" >&2
    done
}

# run_step WHAT NAME COMMAND…: runs COMMAND with its output in the log NAME
run_step() {
    local what=$1 log=$cache/log/$2.log start=$SECONDS rc=0 ticker
    shift 2
    mkdir -p "${log%/*}"
    say "$what"
    : >"$log"
    tick "$log" &
    ticker=$!
    "$@" </dev/null >"$log" 2>&1 || rc=$?
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    [[ ! -t 2 ]] || printf '\e[K' >&2
    if ((rc)); then
        tail -n 30 -- "$log" | sed 's/^/    /' >&2
        die "failed (exit code $rc): $what; the whole log is $log"
    fi
    ((SECONDS - start < 10)) || say "  done in $((SECONDS - start)) s"
}

# build_harness WHAT COMMAND…: a linker that runs out of space does not say so
build_harness() {
    local what=$1
    shift
    need_space "$repo/target" 2 "$what"
    run_step "$what" cargo-build cargo "$@" --locked
}

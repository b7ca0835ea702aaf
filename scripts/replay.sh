#!/usr/bin/env bash
# usage: scripts/replay.sh CLONE lua|ninja [COMMITS [DIR]]
# Replays the last COMMITS (40) commits of a program's history that touch its sources, as somebody would who builds after
# each: what a commit changes is compiled, linked incrementally by `ld.relink`, verified against a full link, and run.
# Prints a line for each commit, patched or why not. CLONE is a git clone of lua or ninja with its history. Needs git, make, gcc
# and g++. FLAGS are the compiler's (-O0 -g -ffunction-sections -fdata-sections), GATE the gate (wide); RELINK_BIN_DIR names a
# folder with ld.relink and relink to use instead of a new build. DIR keeps everything (default: a folder that goes away).
set -euo pipefail
cd "$(dirname "$0")/.."
(($# >= 2)) || { sed -n '2,7s/^# //p' "$0" >&2; exit 2; }
clone=$(realpath "$1"); program=$2; commits=${3:-40}
for tool in git make gcc g++; do command -v $tool >/dev/null || { echo "missing: $tool" >&2; exit 1; }; done
if (($# > 3)); then mkdir -p "$4"; dir=$(cd "$4" && pwd); else dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; fi
bin=${RELINK_BIN_DIR-}
if [[ -z $bin ]]; then cargo build --release -p relink-cli; bin=${CARGO_TARGET_DIR:-target}/release; fi
bin=$(realpath "$bin")
mkdir -p "$dir/bin" "$dir/objects"; ln -sfn "$bin/ld.relink" "$dir/bin/ld"

case $program in
lua)
  sources='l*.c' except='ltests.c luac.c' compiler='gcc -std=gnu99 -DLUA_USE_LINUX' libraries='-Wl,-E -lm -ldl'
  run() { [[ $("$1" -e 'print(select("#", table.unpack({1, 2, 3})), ("x"):rep(3))') == 3*xxx ]]; }
  ;;
ninja)
  sources='src/*.cc' except='%.in.cc %_test.cc %perftest.cc %win32.cc %/browse.cc %/test.cc src/msvc% src/minidump% src/hash_collision_bench.cc src/includes_normalize%'
  compiler='g++ -std=c++17 -iquote src -I.' libraries=-lpthread
  printf 'rule copy\n  command = cp $in $out\nbuild b: copy a\nbuild c: copy b\n' >"$dir/build.ninja"; : >"$dir/a"
  run() { "$1" -C "$dir" -n | grep -q '\[2/2\]'; }
  ;;
*) echo "no such program: $program (lua or ninja)" >&2; exit 2 ;;
esac

cat >"$dir/Makefile" <<EOF
SOURCES := \$(filter-out $except,\$(wildcard $sources))
OBJECTS := \$(SOURCES:%=$dir/objects/%.o)
$dir/program: \$(OBJECTS); ${compiler%% *} -B$dir/bin \$^ -o \$@ $libraries
\$(OBJECTS): $dir/objects/%.o: %; @mkdir -p \$(@D); $compiler ${FLAGS--O0 -g -ffunction-sections -fdata-sections} -MMD -MP -c \$< -o \$@
-include \$(OBJECTS:.o=.d)
EOF
rm -rf "$dir/source"; git clone -q --shared --no-checkout "$clone" "$dir/source"
cd "$dir/source"
mapfile -t history < <(git log --first-parent --reverse --format=%h -- "$sources" "${sources%.*}.h" | tail -n "$commits")
export RELINK_INCREMENTAL=${GATE-wide} LC_ALL=C.UTF-8
declare -A count=([patched]=0 [full]=0 [idle]=0 [broken]=0)
links=0 failures=0
for commit in "${history[@]}"; do
  git checkout -q -f "$commit"
  if ! make -s -j2 -f "$dir/Makefile" >"$dir/make.log" 2>&1; then
    count[broken]=$((count[broken] + 1)); echo "$commit: it does not build: $(grep -m 1 -i error "$dir/make.log")"
    continue
  fi
  verdict=
  if ! "$bin/relink" verify "$dir/program" >"$dir/verify.log" 2>&1; then verdict=" WRONG: $(tail -n 3 "$dir/verify.log")"; fi
  run "$dir/program" || verdict+=" IT DOES NOT RUN"
  [[ -z $verdict ]] || failures=$((failures + 1))
  # A line that begins with a date for each link; what was changed or why not is behind and below it.
  log=$("$bin/relink" log "$dir/program")
  now=$(grep -c '^[0-9]' <<<"$log")
  last=$(awk '/^[0-9]/ { last = "" } { last = last $0 "\n" } END { printf "%s", last }' <<<"$log")
  case $((now - links)) in
  0) kind=idle ;;
  *) kind=full; [[ $last != *patched* || $last == *"not patched"* ]] || kind=patched ;;
  esac
  ((links == 0)) || count[$kind]=$((count[$kind] + 1))
  ((links == 0)) || echo "$commit: $kind$verdict"
  [[ $kind != full ]] || echo "$last"
  links=$now
done
echo "$program: ${count[patched]} patched, ${count[full]} in full, ${count[idle]} without a change, ${count[broken]} that do not build; $failures wrong"
exit $((failures != 0))

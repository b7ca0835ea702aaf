#!/usr/bin/env bash
# usage: scripts/rust.sh [DIR] [WORKSPACE...]      workspaces: ripgrep boa; both if none is named
# Rust workspaces built with relink as the linker: their own test suites in debug and in release, then body edits of members
# that others use, of generics and of the program, each linked incrementally, verified and run; first under the strict
# gate, then the same edits under the wide one. Prints a line for each image that an edit touched: outcome, bytes
# of the image that were written, and reasons with how often they came (also those that the gate alone would have let pass).
#
# A workspace is laid out from crates.io: the program's crate with its lock file, and members that are crates of their own.
# Needs gcc, cargo, perl and the network for crates; boa needs about 10 GB, and half an hour with two processors.
# RELINK_BIN_DIR names a folder with ld.relink and relink to use instead of a new build. DIR keeps sources and builds
# (default: a folder that goes away). SUITES=no leaves the test suites out.
set -euo pipefail
cd "$(dirname "$0")/.."
if (($#)); then mkdir -p "$1"; top=$(cd "$1" && pwd); shift; else top=$(mktemp -d); trap 'rm -rf "$top"' EXIT; fi
bin=${RELINK_BIN_DIR-}
if [[ -z $bin ]]; then cargo build --release -p relink-cli; bin=${CARGO_TARGET_DIR:-target}/release; fi
linker=$(realpath "$bin/ld.relink") relink=$(realpath "$bin/relink")
unset RELINK_INCREMENTAL RELINK_REPORT
# A crate that boa's tests need would set hooks of the git repository around the build.
export NO_HUSKY_HOOKS=1

# Lays a workspace out in $dir/ws: PROGRAM=VERSION, then its members in the versions of the program's lock file.
lay_out() {
  [[ ! -d $dir/ws ]] || return 0
  local program=${1/=/-} crates=("$@") crate new=$dir/new fetch=$dir/fetch sources=${CARGO_HOME:-$HOME/.cargo}/registry/src
  rm -rf "$new" "$fetch"; mkdir -p "$new" "$fetch/src"; : >"$fetch/src/lib.rs"
  printf '[package]\nname = "fetch"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n[dependencies]\n' >"$fetch/Cargo.toml"
  bring() { printf '%s = "=%s"\n' "${1%=*}" "${1#*=}" >>"$fetch/Cargo.toml"; }
  bring "$1"; (cd "$fetch" && cargo fetch)
  cp "$sources"/*/"$program/Cargo.lock" "$new"
  for crate in "${!crates[@]}"; do
    ((crate)) || continue
    crates[crate]+="=$(grep -A1 "^name = \"${crates[crate]}\"$" "$new/Cargo.lock" | sed -n 's/^version = "\(.*\)"$/\1/p')"
    bring "${crates[crate]}"
  done
  (cd "$fetch" && cargo fetch)
  printf '[workspace]\nresolver = "2"\nmembers = ["*"]\n[patch.crates-io]\n' >"$new/Cargo.toml"
  for crate in "${crates[@]}"; do
    cp -r "$sources"/*/"${crate/=/-}" "$new/${crate%=*}"
    printf '%s = { path = "%s" }\n' "${crate%=*}" "${crate%=*}" >>"$new/Cargo.toml"
  done
  mv "$new" "$dir/ws"
}

# Runs the test suites of the workspace; prints how many tests passed.
suite() { # ARGUMENTS OF cargo test
  cargo test --workspace --no-fail-fast "$@" 2>&1 | tee "$dir/suite.log" | grep -E '^(error|test result: F|failures:|    [a-z_:]+$)' || true
  ! grep -qE '^error|^test result: F' "$dir/suite.log" || { echo "$name $*: see $dir/suite.log" >&2; exit 1; }
  awk -v what="$name ${*:---debug}" '/^test result: ok/ { passed += $4; images++ }
    END { printf "%s: %d tests passed in %d runs\n", what, passed, images; exit !passed }' "$dir/suite.log"
}

# Values of a field in a line of JSON.
words() { grep -oE "\"$2\":\"[^\"]*\"" <<<"$1" | cut -d'"' -f4 || true; }

# Replaces a text once, builds, and judges each image that was linked since: the oracle, and whether it was patched.
edit() { # FILE FROM TO
  grep -qF -- "$2" "$1" || { echo "no \`$2' in $1" >&2; exit 1; }
  touch "$dir/edited"
  FROM=$2 TO=$3 perl -0pi -e 's/\Q$ENV{FROM}\E/$ENV{TO}/' "$1"
  cargo build -q
  local log image line
  while read -r log; do
    image=$(dirname "$(dirname "$(dirname "$log")")")/$(basename "$(dirname "$log")")
    "$relink" verify "$image" >/dev/null
    line=$("$relink" log --json "$image" | tail -1)
    edits=$((edits + 1)); [[ $line != *'"outcome":"patched"'* ]] || patched=$((patched + 1))
    echo "$gate: $1: $(basename "$image"): $(words "$line" outcome), $(grep -oE '"bytes_written":[0-9]+' <<<"$line" | cut -d: -f2) bytes; $(words "$line" kind | sort | uniq -c | tr -s ' \n' ' ')"
  done < <(find "$CARGO_TARGET_DIR/debug/deps/.relink" -name log -newer "$dir/edited")
  check
}

# Suites, then the edits under both gates. The functions NAME_edits and NAME_check say what is edited and what the program does.
workspace() { # NAME PROGRAM=VERSION MEMBER...
  name=$1 dir=$top/$1
  mkdir -p "$dir/bin"; ln -sfn "$linker" "$dir/bin/ld"
  lay_out "${@:2}"
  cd "$dir/ws"
  export RUSTFLAGS="-Clinker=gcc -Clink-arg=-B$dir/bin" CARGO_TARGET_DIR=$dir/target
  export RUSTDOCFLAGS=$RUSTFLAGS
  if [[ ${SUITES-} != no ]]; then suite --release; suite; fi
  check() { "${name}_check"; }
  rm -rf "$dir/sources"; cp -r "$dir/ws" "$dir/sources"
  for gate in strict wide; do
    export RELINK_INCREMENTAL=${gate/strict/1}
    # The sources as they were, and images that are linked with state.
    cp -r "$dir/sources/." .
    rm -rf "$CARGO_TARGET_DIR/debug/deps/.relink"
    cargo build -q
    check
    patched=0 edits=0
    "${name}_edits"
    echo "$name, $gate gate: $patched of $edits links patched"
    ((patched)) || { echo "$name: no edit was patched" >&2; exit 1; }
    unset RELINK_INCREMENTAL
  done
  cp -r "$dir/sources/." .; rm -rf "$dir/sources"
  cd - >/dev/null
}

ripgrep_check() { test "$(printf 'a1\nb2\n' | "$CARGO_TARGET_DIR/debug/rg" 'b\d')" = b2; }
ripgrep_edits() {
  edit ripgrep/crates/core/main.rs 'ExitCode::from(2)' 'ExitCode::from(3)'
  edit ripgrep/crates/core/haystack.rs 'self.dent.depth() == 0 &&' 'self.dent.depth() < 1 &&'
  edit ripgrep/crates/core/haystack.rs 'starts_with("./")' 'starts_with("././")'
  edit ripgrep/crates/core/flags/hiargs.rs '"pattern given is not valid UTF-8"' '"a pattern given is not in valid UTF-8"'
  edit ripgrep/crates/core/flags/config.rs 'failed to read the file' 'could not read the file'
  edit ripgrep/crates/core/flags/parse.rs 'None => log::set_max_level(log::LevelFilter::Warn)' 'None => log::set_max_level(log::LevelFilter::Error)'
  edit ripgrep/crates/core/search.rs 'if !self.config.preprocessor.is_some() {' 'if path.as_os_str().is_empty() || !self.config.preprocessor.is_some() {'
  edit ripgrep/crates/core/messages.rs '#[macro_export]' $'// A line more.\n#[macro_export]'
  edit ripgrep/crates/core/logger.rs '"{}|{}: {}"' '"{}|{}| {}"'
  edit ripgrep/crates/core/flags/lowargs.rs 'impl Default' $'// A line more.\n\nimpl Default'
}

# console.count is generic over the program's logger.
boa_check() {
  cat >"$dir/program.js" <<'JS'
const numbers = [3, 1, 2];
class Point { constructor(x) { this.x = x; } get double() { return this.x * 2; } }
console.log(numbers.sort().at(-1), [...new Set(numbers)].length, new Point(21).double, `${"ab".repeat(2)}`);
console.log(JSON.stringify({ a: [1, { b: null }] }), "abc".endsWith("bc"), /(\d+)-(\d+)/.exec("x 12-34")[2]);
try { (1).toFixed(101); } catch (error) { console.log(error.name); }
console.count("calls"); console.count("calls");
JS
  "$CARGO_TARGET_DIR/debug/boa" "$dir/program.js" | tail -6 | tr '\n' ';' >"$dir/said"
  grep -qF '3 3 42 abab;{"a":[1,{"b":null}]} true 34;RangeError;' "$dir/said" || { cat "$dir/said" >&2; exit 1; }
}
boa_edits() {
  # Members that others use: a body, one that is instantiated elsewhere, generics, a literal.
  edit boa_gc/src/lib.rs 'if gc.runtime.bytes_allocated > 0 {' 'if gc.runtime.bytes_allocated >= 1 {'
  edit boa_string/src/lib.rs 'if !string.is_latin1() {' 'if full_count == usize::MAX || !string.is_latin1() {'
  edit boa_interner/src/raw.rs 'let next = self.len();' 'let next = self.spans.len();'
  edit boa_parser/src/lexer/number.rs 'a numeric literal must not be followed' 'a literal of a number must not be followed'
  edit boa_ast/src/scope.rs 'pub fn num_bindings(&self) -> u32 {' $'pub fn num_bindings(&self) -> u32 {\n        if self.inner.unique_id == u32::MAX {\n            return 0;\n        }'
  edit boa_engine/src/builtins/array/mod.rs 'if i < 0 && i.abs() <= len' 'if i < 0 && -i <= len'
  edit boa_engine/src/builtins/number/mod.rs '"toFixed() digits argument must be between 0 and 100"' '"the digits of toFixed() must be between 0 and 100"'
  edit boa_engine/src/builtins/string/mod.rs 'let len = string.len();' $'// Lines\n        // that move.\n        let len = string.len();'
  edit boa_gc/src/pointers/gc.rs 'if finalizer_safe() {' 'if finalizer_safe() && size_of_val(self) != 0 {'
  edit boa_wintertc/src/console/mod.rs '"count {}:"' '"counted {}:"'
  # The program.
  edit boa_cli/src/main.rs '"Uncaught Error:"' '"An uncaught error:"'
  edit boa_cli/src/main.rs 'fn uncaught_error(error: &JsError) -> String {' $'fn shout(text: &str) -> String {\n    text.to_uppercase()\n}\n\nfn uncaught_error(error: &JsError) -> String {\n    let _ = shout("a");'
  grep -q 'counted calls: 2' "$dir/said"
}

chosen=("$@"); ((${#chosen[@]})) || chosen=(ripgrep boa)
for one in "${chosen[@]}"; do
  case $one in
    ripgrep) workspace ripgrep ripgrep=15.2.0 globset ignore grep grep-cli grep-matcher grep-printer grep-regex grep-searcher ;;
    boa) workspace boa boa_cli=0.22.0 boa_{ast,engine,gc,icu_provider,interner,macros,parser,runtime,string,wintertc} small_btree tag_ptr ;;
    *) echo "unknown workspace: $one" >&2; exit 2 ;;
  esac
done

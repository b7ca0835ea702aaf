#!/usr/bin/env bash
# usage: scripts/rust.sh [DIR]
# ripgrep from crates.io, built with relink as the linker: its own test suite in debug and in release, then body edits,
# each linked incrementally and verified. Prints a line for each edit: patched, or why not. Needs gcc, cargo and the
# network for crates. RELINK_BIN_DIR names a folder with ld.relink and relink to use instead of a new build. DIR keeps sources and builds (default: a folder that goes away).
set -euo pipefail
cd "$(dirname "$0")/.."
if (($#)); then mkdir -p "$1"; dir=$(cd "$1" && pwd); else dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; fi
bin=${RELINK_BIN_DIR-}
if [[ -z $bin ]]; then cargo build --release -p relink-cli; bin=${CARGO_TARGET_DIR:-target}/release; fi
mkdir -p "$dir/bin"; ln -sfn "$(realpath "$bin/ld.relink")" "$dir/bin/ld"
relink=$(realpath "$bin/relink")
version=15.2.0

if [[ ! -d $dir/ripgrep ]]; then
  mkdir -p "$dir/fetch/src"; : >"$dir/fetch/src/lib.rs"
  printf '[package]\nname = "fetch"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\nripgrep = "=%s"\n' $version \
    >"$dir/fetch/Cargo.toml"
  (cd "$dir/fetch" && cargo fetch)
  cp -r "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/ripgrep-$version "$dir/ripgrep"
fi
cd "$dir/ripgrep"
export RUSTFLAGS="-Clinker=gcc -Clink-arg=-B$dir/bin" CARGO_TARGET_DIR=$dir/target RELINK_INCREMENTAL=1
cargo test --release
cargo test
cargo build
out=$(ls -d "$dir"/target/debug/deps/rg-* | grep -v '\.d$')

patched=0; edits=0
edit() { # FILE FROM TO
  grep -qF -- "$2" "crates/core/$1" || { echo "no \`$2' in $1" >&2; exit 1; }
  FROM=$2 TO=$3 perl -0pi -e 's/\Q$ENV{FROM}\E/$ENV{TO}/' "crates/core/$1"
  cargo build -q
  for one in $out; do
    # The unit tests have an output of their own; what was linked now is newer than the edit.
    [[ $one -nt crates/core/$1 ]] || continue
    "$relink" verify "$one" >/dev/null
    line=$("$relink" log "$one" | grep -E 'full|patched' | tail -1)
    edits=$((edits + 1)); [[ $line == *"not patched"* || $line != *patched* ]] || patched=$((patched + 1))
    echo "$1: $line"
  done
}
edit main.rs 'ExitCode::from(2)' 'ExitCode::from(3)'
edit haystack.rs 'self.dent.depth() == 0 &&' 'self.dent.depth() < 1 &&'
edit haystack.rs 'starts_with("./")' 'starts_with("././")'
edit flags/hiargs.rs '"pattern given is not valid UTF-8"' '"a pattern given is not in valid UTF-8"'
edit flags/config.rs 'failed to read the file' 'could not read the file'
edit flags/parse.rs 'None => log::set_max_level(log::LevelFilter::Warn)' 'None => log::set_max_level(log::LevelFilter::Error)'
edit search.rs 'if !self.config.preprocessor.is_some() {' 'if path.as_os_str().is_empty() || !self.config.preprocessor.is_some() {'
edit messages.rs '#[macro_export]' $'// A line more.\n#[macro_export]'
edit logger.rs '"{}|{}: {}"' '"{}|{}| {}"'
edit flags/lowargs.rs 'impl Default' $'// A line more.\n\nimpl Default'
echo "$patched of $edits patched"
test "$(printf 'a1\nb2\n' | "$dir/target/debug/rg" 'b\d')" = b2

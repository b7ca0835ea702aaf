//! C sources of real programs, brought by cargo and pinned by `tests/third_party/Cargo.lock` (none of it is built by cargo);
//! what no crate carries comes from Debian.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::{debian, tools};

/// Folder of a crate that `tests/third_party/Cargo.toml` names.
#[track_caller]
fn crate_dir(name: &str) -> PathBuf {
    static METADATA: OnceLock<Value> = OnceLock::new();
    let metadata = METADATA.get_or_init(|| {
        let manifest = crate::root().join("tests/third_party/Cargo.toml");
        let cargo = |args: &[&str]| {
            let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let mut command = Command::new(program);
            tools::say(command.args(args).arg("--locked").arg("--manifest-path").arg(&manifest)).ok().stdout
        };
        cargo(&["fetch", "--quiet"]);
        serde_json::from_str(&cargo(&["metadata", "--format-version=1", "--offline"]))
            .expect("cargo writes JSON")
    });
    let packages = metadata["packages"].as_array().expect("packages");
    let package = packages.iter().find(|package| package["name"] == name);
    let manifest =
        package.and_then(|p| p["manifest_path"].as_str()).unwrap_or_else(|| panic!("no crate {name}"));
    Path::new(manifest).parent().expect("a folder").to_owned()
}

/// Folder of the Lua 5.4 sources.
#[track_caller]
pub fn lua() -> PathBuf {
    let package = crate_dir("lua-src");
    let dirs = std::fs::read_dir(&package).expect("the crate's folder").filter_map(|e| Some(e.ok()?.path()));
    let is_54 =
        |dir: &PathBuf| dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with("lua-5.4"));
    dirs.into_iter().find(is_54).expect("the crate has Lua 5.4")
}

/// Folder with `sqlite3.c` and `shell.c`.
#[track_caller]
pub fn sqlite() -> PathBuf {
    crate_dir("sqlite3-src").join("source")
}

/// Folder of zlib.
#[track_caller]
pub fn zlib() -> PathBuf {
    crate_dir("libz-sys").join("src/zlib")
}

/// Folder of Zstandard's library.
#[track_caller]
pub fn zstd() -> PathBuf {
    crate_dir("zstd-sys").join("zstd/lib")
}

/// Folder of redis.
#[track_caller]
pub fn redis() -> PathBuf {
    debian::source("redis")
}

/// The C files (and those of C++) of a folder, sorted.
#[track_caller]
pub fn units(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("the sources").filter_map(|entry| Some(entry.ok()?.path()));
    let mut units: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "c" || end == "cpp")).collect();
    units.sort();
    units
}

/// The C files of Lua's library (no interpreter's `main`), sorted.
#[track_caller]
pub fn lua_units() -> Vec<PathBuf> {
    let skipped = ["lua.c", "luac.c", "onelua.c", "ltests.c"];
    let mut units = units(&lua());
    units.retain(|path| skipped.iter().all(|name| !path.ends_with(name)));
    units
}

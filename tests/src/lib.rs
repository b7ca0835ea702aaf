//! The harness of the whole-system tests: compiles, links, runs, and lets programs of other projects judge the result.
//!
//! Nothing here trusts the linker about itself where a tool of somebody else can be asked: addresses come from `nm`,
//! lines from four `addr2line`s and gdb, well-formedness from six readers, behaviour from running the program, and what
//! is right from the same objects linked by another linker. A tool that is missing is a failure that names its package.

pub mod cc;
pub mod damage;
pub mod debian;
pub mod dwarf;
pub mod elf;
pub mod fixture;
pub mod folder;
pub mod fuzz;
pub mod kill;
pub mod ld;
pub mod lines;
pub mod program;
pub mod readers;
pub mod real;
pub mod rng;
pub mod scene;
pub mod simulate;
pub mod soak;
pub mod sources;
pub mod start;
pub mod state;
pub mod tools;
pub mod way;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a member of the workspace")
}

/// `target/<profile>` of the running test.
pub fn profile_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let exe = std::env::current_exe().expect("path of the test executable");
        let dir = exe.parent().expect("a folder holds the test executable");
        if dir.ends_with("deps") || dir.ends_with("examples") {
            dir.parent().unwrap_or(dir).to_owned()
        } else {
            dir.to_owned()
        }
    })
}

/// A folder for what is dear to make again: objects, C sources of real programs. Under `target`, so not in git.
pub fn cache_dir(name: &str) -> PathBuf {
    let target = profile_dir().parent().unwrap_or(profile_dir());
    let dir = target.join("relink-tests-cache").join(name);
    std::fs::create_dir_all(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    dir
}

/// A folder that goes away with its value.
pub fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("relink-test-").tempdir().expect("a temporary folder")
}

/// Reads a file that must be there.
pub fn read(path: impl AsRef<Path>) -> Vec<u8> {
    let path = path.as_ref();
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Writes a file that can be written.
pub fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    let path = path.as_ref();
    std::fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

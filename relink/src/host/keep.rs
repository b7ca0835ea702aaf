//! Inputs that rustc removes as soon as the linker is done, kept so that `relink verify` can link again.
//!
//! They are kept as hard links in the state folder: no byte is copied, and most of them share their inode with rustc's
//! own incremental state. Where there can be no hard link, nothing is kept; a link does not fail for the oracle's sake.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::io::{Dir, Io, Stat};
use super::log::Command;
use super::state::StateFolder;

const FOLDER: &str = "inputs";

/// Whether a file will be gone after the link: a unit's object under its name of this session, or anything in a
/// directory that rustc made for this run (`rustcXXXXXX`: symbols, version scripts).
pub(super) fn passes(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let dir = path.parent().and_then(Path::file_name).and_then(OsStr::to_str).unwrap_or_default();
    let random = dir.strip_prefix("rustc").unwrap_or_default();
    name.ends_with(".rcgu.o") || random.len() == 6 && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Whether a name of the folder is one of a file already.
fn is_same_file(io: &dyn Io, dir: &Dir, name: &OsStr, path: &Path) -> bool {
    let identity = |stat: Stat| (stat.identity.device, stat.identity.inode);
    matches!((io.stat_at(dir, name), io.stat(path)), (Ok(kept), Ok(file)) if identity(kept) == identity(file))
}

impl StateFolder {
    /// Keeps these files instead of those of the link before; the command line with their kept names.
    pub(super) fn keep_inputs(&self, io: &dyn Io, passing: &[PathBuf], command: &Command) -> Command {
        let mut kept = command.clone();
        let folder = OsStr::new(FOLDER);
        let opened = match io.open_dir_at(&self.dir, folder) {
            Err(_) if passing.is_empty() => return kept,
            Err(_) => io.make_dir(&self.dir, folder).and_then(|()| io.open_dir_at(&self.dir, folder)),
            dir => dir,
        };
        let Ok(dir) = opened else { return kept };
        let mut wanted: HashMap<&OsStr, PathBuf> = HashMap::new();
        for path in passing {
            if let Some(name) = path.file_name() {
                // Of two of one name the second is not kept: there is none in rustc's links.
                wanted.entry(name).or_insert_with(|| command.cwd.join(path));
            }
        }
        let mut there = HashSet::new();
        for name in io.list_dir(&dir).unwrap_or_default() {
            let same = wanted.get(&*name).is_some_and(|path| is_same_file(io, &dir, &name, path));
            if same {
                there.insert(name);
            } else {
                let _ = io.remove(&dir, &name);
            }
        }
        let mut names: HashMap<String, String> = HashMap::new();
        for path in passing {
            let Some(name) = path.file_name() else { continue };
            let Some(source) = wanted.remove(name) else { continue };
            if there.contains(name) || io.hard_link(&source, &dir, name).is_ok() {
                let new = dir.path().join(name).to_string_lossy().into_owned();
                names.insert(path.to_string_lossy().into_owned(), new);
            }
        }
        for word in &mut kept.args {
            // Also the value of `--version-script=FILE`.
            let mut values = std::iter::once(0).chain(word.match_indices('=').map(|(at, _)| at + 1));
            let found = values.find_map(|at| Some((at, names.get(&word[at..])?)));
            if let Some((at, new)) = found {
                *word = format!("{}{new}", &word[..at]);
            }
        }
        kept
    }

    /// The name of the folder of kept inputs, which no marker names.
    pub(super) fn inputs_name() -> OsString {
        OsString::from(FOLDER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rustc_removes_is_known_by_its_name() {
        for name in
            ["/t/deps/rg-1c.4jk02.0hm7ys5.rcgu.o", "/t/deps/rustcmZzPjY/symbols.o", "/tmp/rustcAb12Cd/list"]
        {
            assert!(passes(Path::new(name)), "{name}");
        }
        for name in ["/t/deps/liba-1c.rlib", "a.o", "/usr/lib/rustc/a.o", "/usr/lib/rustc-1.95/a.o"] {
            assert!(!passes(Path::new(name)), "{name}");
        }
    }
}

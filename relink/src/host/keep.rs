//! Inputs that rustc removes as soon as the linker is done, kept so that `relink verify` can link again.
//!
//! They are kept as hard links in the state folder: no byte is copied, and most of them share their inode with rustc's
//! own incremental state. Where there can be no hard link, nothing is kept; a link does not fail for the oracle's sake.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::io::Io;
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
        for name in io.list_dir(&dir).unwrap_or_default() {
            let _ = io.remove(&dir, &name);
        }
        for path in passing {
            let Some(name) = path.file_name() else { continue };
            // Of two of one name the second is not kept: there is none in rustc's links.
            if io.hard_link(&command.cwd.join(path), &dir, name).is_err() {
                continue;
            }
            let (old, new) = (path.to_string_lossy(), dir.path().join(name).to_string_lossy().into_owned());
            for word in &mut kept.args {
                // Also the value of `--version-script=FILE`.
                if let Some(option) = word.strip_suffix(&*old)
                    && (option.is_empty() || option.ends_with('='))
                {
                    *word = format!("{option}{new}");
                }
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

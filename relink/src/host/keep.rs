//! Inputs that rustc removes as soon as the linker is done, kept so that `relink verify` can link again.
//!
//! They are kept as hard links in the state folder: no byte is copied, and most of them share their inode with rustc's
//! own incremental state. Where there can be no hard link, nothing is kept; a link does not fail for the oracle's sake.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::input::FileInput;
use super::io::Io;
use super::log::Command;
use super::search::ResolvedInputs;
use super::state::StateFolder;

const FOLDER: &str = "inputs";

/// Whether a file will be gone after the link: a unit's object under its name of this session, or anything in a
/// directory that rustc made for this run (`rustcXXXXXX`: symbols, version scripts).
fn passes(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let dir = path.parent().and_then(Path::file_name).and_then(OsStr::to_str).unwrap_or_default();
    let random = dir.strip_prefix("rustc").unwrap_or_default();
    name.ends_with(".rcgu.o") || random.len() == 6 && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The name that a file is kept under. An object's is the same in each session of rustc, so that one that is still the
/// same file needs no other link.
fn kept_name(path: &Path) -> Option<OsString> {
    let name = path.file_name()?;
    let unit = || name.to_str()?.strip_suffix(".rcgu.o")?.rsplit_once('.');
    Some(unit().map_or(name.to_owned(), |(unit, _)| format!("{unit}.kept.rcgu.o").into()))
}

/// A file that will be gone.
#[derive(Debug)]
pub(super) struct Passing {
    path: PathBuf,
    /// None if it is a text that an option names.
    input: Option<Arc<FileInput>>,
}

impl Passing {
    /// Those of a link.
    pub(super) fn of(inputs: &ResolvedInputs) -> Vec<Passing> {
        let known: HashMap<&Path, &Arc<FileInput>> =
            inputs.files.iter().map(|file| (file.path(), file)).collect();
        let passing = inputs.dependencies.iter().filter(|path| passes(path));
        let with_input = |path: &PathBuf| Passing {
            path: path.clone(),
            input: known.get(&**path).map(|&input| input.clone()),
        };
        passing.map(with_input).collect()
    }

    /// Whether it is this file. What nobody looked at is what it was.
    fn is(&self, io: &dyn Io, file: (u64, u64)) -> bool {
        match &self.input {
            Some(input) => input.may_be(file),
            None => io
                .stat(&self.path)
                .is_ok_and(|stat| (stat.identity.device, stat.identity.inode) == file),
        }
    }
}

impl StateFolder {
    /// Keeps these files instead of those of the link before; the command line with their kept names.
    pub(super) fn keep_inputs(&self, io: &dyn Io, passing: &[Passing], command: &Command) -> Command {
        let mut kept = command.clone();
        let folder = OsStr::new(FOLDER);
        let opened = match io.open_dir_at(&self.dir, folder) {
            Err(_) if passing.is_empty() => return kept,
            Err(_) => io.make_dir(&self.dir, folder).and_then(|()| io.open_dir_at(&self.dir, folder)),
            dir => dir,
        };
        let Ok(dir) = opened else { return kept };
        let Ok(device) = io.stat_dir(&dir).map(|stat| stat.identity.device) else { return kept };
        let mut wanted: HashMap<OsString, &Passing> = HashMap::new();
        for file in passing {
            let names = [kept_name(&file.path), file.path.file_name().map(OsStr::to_owned)];
            // Of two of one name the second is not kept: there is none in rustc's links.
            if let Some(free) = names.into_iter().flatten().find(|name| !wanted.contains_key(name)) {
                wanted.insert(free, file);
            }
        }
        let mut there = HashSet::new();
        for (name, inode) in io.list_dir(&dir).unwrap_or_default() {
            if wanted.get(&name).is_some_and(|file| file.is(io, (device, inode))) {
                there.insert(name);
            } else {
                let _ = io.remove(&dir, &name);
            }
        }
        let mut names: HashMap<String, String> = HashMap::new();
        for (name, file) in wanted {
            if there.contains(&name) || io.hard_link(&command.cwd.join(&file.path), &dir, &name).is_ok() {
                let new = dir.path().join(name).to_string_lossy().into_owned();
                names.insert(file.path.to_string_lossy().into_owned(), new);
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
    fn unit_has_one_kept_name_in_all_sessions() {
        for (name, kept) in [
            ("/t/deps/rg-1c.4jk02.0hm7ys5.rcgu.o", "rg-1c.4jk02.kept.rcgu.o"),
            ("/t/deps/rg-1c.4jk02.1abcdef.rcgu.o", "rg-1c.4jk02.kept.rcgu.o"),
            ("/t/deps/rg-1c.4jk03.0hm7ys5.rcgu.o", "rg-1c.4jk03.kept.rcgu.o"),
            ("/t/deps/rustcmZzPjY/symbols.o", "symbols.o"),
            ("a.rcgu.o", "a.rcgu.o"),
        ] {
            assert_eq!(kept_name(Path::new(name)).unwrap(), kept);
        }
    }

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

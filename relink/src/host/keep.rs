//! Inputs that rustc removes as soon as the linker is done, kept so that `relink verify` can link again.
//!
//! They are kept as hard links in the state folder: no byte is copied, and most of them share their inode with rustc's
//! own incremental state. Where there can be no hard link, nothing is kept; a link does not fail for the oracle's sake.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::input::FileInput;
use super::io::Io;
use super::log::Command;
use super::search::ResolvedInputs;
use super::state::StateFolder;

const FOLDER: &str = "inputs";

/// What ends the name of a unit's object.
const OBJECT: &[u8] = b".rcgu.o";

/// The last two parts of a path: directory and name.
fn last_parts(path: &Path) -> (&[u8], &[u8]) {
    let mut parts = path.as_os_str().as_bytes().rsplit(|&byte| byte == b'/');
    let name = parts.next().unwrap_or_default();
    (parts.next().unwrap_or_default(), name)
}

/// Whether a file will be gone after the link: a unit's object under its name of this session, or anything in a
/// directory that rustc made for this run (`rustcXXXXXX`: symbols, version scripts).
fn passes(path: &Path) -> bool {
    let (dir, name) = last_parts(path);
    let random = dir.strip_prefix(b"rustc").unwrap_or_default();
    name.ends_with(OBJECT) || random.len() == 6 && random.iter().all(u8::is_ascii_alphanumeric)
}

/// The name that a file is kept under. An object's is the same in each session of rustc, so that one that is still the
/// same file needs no other link.
fn kept_name(path: &Path) -> OsString {
    let (_, name) = last_parts(path);
    let unit =
        name.strip_suffix(OBJECT).and_then(|unit| Some(&unit[..unit.iter().rposition(|&b| b == b'.')?]));
    OsString::from_vec(unit.map_or(name.to_owned(), |unit| [unit, b".kept", OBJECT].concat()))
}

/// The names that these are kept under, and which of them each is.
fn kept_names<'a>(paths: impl ExactSizeIterator<Item = &'a Path>) -> HashMap<OsString, usize> {
    let mut names = HashMap::with_capacity(paths.len());
    for (index, path) in paths.enumerate() {
        match names.entry(kept_name(path)) {
            Entry::Vacant(free) => {
                free.insert(index);
            }
            // Of two of one name the second is not kept: there is none in rustc's links.
            Entry::Occupied(_) => {
                let own = OsStr::from_bytes(last_parts(path).1).to_owned();
                names.entry(own).or_insert(index);
            }
        }
    }
    names
}

/// A file that will be gone.
#[derive(Debug)]
pub(super) struct Passing<'a> {
    path: &'a Path,
    /// None if it is a text that an option names.
    input: Option<&'a FileInput>,
}

impl<'a> Passing<'a> {
    /// Those of a link.
    pub(super) fn of(inputs: &'a ResolvedInputs) -> Vec<Passing<'a>> {
        // Dependencies have the same files in the same order, and texts between them.
        let mut files = inputs.files.iter().map(|file| &**file).peekable();
        let mut with_input = |path: &'a PathBuf| {
            let input = files.next_if(|file| file.path().as_os_str() == path.as_os_str());
            Passing { path, input }
        };
        inputs.dependencies.iter().map(&mut with_input).filter(|file| passes(file.path)).collect()
    }

    /// Whether it is this file. What nobody looked at is what it was.
    fn is(&self, io: &dyn Io, file: (u64, u64)) -> bool {
        match self.input {
            Some(input) => input.may_be(file),
            None => io.stat(self.path).is_ok_and(|stat| (stat.identity.device, stat.identity.inode) == file),
        }
    }
}

impl StateFolder {
    /// Keeps these files instead of those of the link before.
    pub(super) fn keep_inputs(&self, io: &dyn Io, passing: &[Passing<'_>], cwd: &Path) {
        let folder = OsStr::new(FOLDER);
        let opened = match io.open_dir_at(&self.dir, folder) {
            Err(_) if passing.is_empty() => return,
            Err(_) => io.make_dir(&self.dir, folder).and_then(|()| io.open_dir_at(&self.dir, folder)),
            dir => dir,
        };
        let Ok(dir) = opened else { return };
        let Ok(device) = io.stat_dir(&dir).map(|stat| stat.identity.device) else { return };
        let mut wanted = kept_names(passing.iter().map(|file| file.path));
        for (name, inode) in io.list_dir(&dir).unwrap_or_default() {
            match wanted.get(&name) {
                Some(&index) if passing[index].is(io, (device, inode)) => {
                    wanted.remove(&name);
                }
                _ => drop(io.remove(&dir, &name)),
            }
        }
        for (name, index) in wanted {
            let _ = io.hard_link(&cwd.join(passing[index].path), &dir, &name);
        }
    }

    /// A command line with the names of those files that were kept.
    pub(super) fn with_kept_inputs(&self, io: &dyn Io, mut command: Command) -> Command {
        let Ok(dir) = io.open_dir_at(&self.dir, OsStr::new(FOLDER)) else { return command };
        let there = io.list_dir(&dir).unwrap_or_default();
        // A word, or the value of `--version-script=FILE`.
        let starts = |word: &str| -> Vec<usize> {
            match word.starts_with('-') {
                true => word.match_indices('=').map(|(at, _)| at + 1).collect(),
                false => vec![0],
            }
        };
        let words = command.args.iter().enumerate();
        let values = words.flat_map(|(word, text)| starts(text).into_iter().map(move |at| (word, at)));
        let values: Vec<(usize, usize, PathBuf)> = values
            .map(|(word, at)| (word, at, PathBuf::from(&command.args[word][at..])))
            .filter(|(_, _, path)| passes(path))
            .collect();
        let names = kept_names(values.iter().map(|(_, _, path)| &**path));
        for (name, _) in there {
            if let Some((word, at, _)) = names.get(&name).map(|&index| &values[index]) {
                let kept = dir.path().join(name);
                command.args[*word].replace_range(at.., &kept.to_string_lossy());
            }
        }
        command
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
            assert_eq!(kept_name(Path::new(name)), kept);
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

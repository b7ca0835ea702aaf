//! Links whose caller says which inputs changed: only those are looked at.
//!
//! A link leaves the list of the files that its command line led to (`resolved` in the state folder). The next one with
//! the same words in the same directory takes the list instead of searching libraries, reading scripts and taking the
//! `stat` of each file. What it is told to be other is looked at as in any link; of the rest, a patch keeps what the
//! state knows.
//!
//! # What a wrong claim can do
//!
//! An input that changed and was not named stays in the image as the last link that looked at it found it. Nothing of it
//! is half new: no byte of it is read, and its row in the state keeps its old identity, so that the next link that is told
//! nothing, or `relink verify`, finds the change. A link that can't be a patch believes no claim: it looks at everything.
//! So does one that names a file which the list does not have; if that is no input at all, it is an error.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use relink_engine::input::Input;
use relink_formats::archive::Archive;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::input::FileInput;
use super::io::Io;
use super::publish::{Target, locate};
use super::search::{InputArg, InputName, ResolveError, ResolvedInputs, SearchPath};
use super::state::{RESOLVED, StateFolder, StateTrust};

/// What a file of the command line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum FileContent {
    Object,
    Archive,
    /// An archive whose members are files of their own.
    ThinArchive,
    Shared,
}

/// What `resolved` holds, behind a line with the key.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    inputs: Vec<Known>,
    dependencies: Vec<PathBuf>,
    entry: Option<String>,
    has_shared_libraries: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Known {
    path: PathBuf,
    content: FileContent,
    whole_archive: bool,
    as_needed: bool,
    needed_name: Option<String>,
    /// Of a thin archive, as far as they were loaded.
    members: Vec<PathBuf>,
}

/// A hash of all that leads from a command line to its files, but for the files; 0 if it can't be told.
pub(super) fn key(io: &dyn Io, search: &SearchPath, args: &[InputArg]) -> u64 {
    // Relative names start here; a number is shorter than a path, and says the same after a move.
    let Ok(here) = io.stat(Path::new(".")) else { return 0 };
    let mut text = Vec::with_capacity(64 * args.len());
    text.extend_from_slice(env!("CARGO_PKG_VERSION").as_bytes());
    text.extend_from_slice(&here.identity.device.to_le_bytes());
    text.extend_from_slice(&here.identity.inode.to_le_bytes());
    text.push(u8::from(search.sysroot.is_some()));
    for path in search.sysroot.iter().chain(&search.directories) {
        text.extend_from_slice(path.as_os_str().as_bytes());
        text.push(0);
    }
    for arg in args {
        let (kind, name) = match &arg.name {
            InputName::File(path) => (1, path.as_os_str()),
            InputName::Library(name) => (2, name.as_os_str()),
        };
        let flags = [arg.whole_archive, arg.static_only, arg.as_needed].map(u8::from);
        text.extend_from_slice(&[0, kind, flags[0], flags[1], flags[2]]);
        text.extend_from_slice(name.as_bytes());
    }
    XxHash3_64::oneshot(&text).max(1)
}

fn key_line(key: u64) -> String {
    format!("{key:016x}\n")
}

impl StateFolder {
    /// Leaves the list of files for the next link. `force` is false where the one that is there may be good still.
    pub(super) fn keep_resolved(
        &self,
        io: &dyn Io,
        inputs: &ResolvedInputs,
        force: bool,
    ) -> std::io::Result<()> {
        if inputs.key == 0 {
            return Ok(());
        }
        let line = key_line(inputs.key);
        if !force
            && let Ok(Some(text)) = StateFolder::read(io, &self.dir, RESOLVED)
            && text.starts_with(line.as_bytes())
        {
            return Ok(());
        }
        let all = inputs.inputs.iter().zip(&inputs.files).zip(&inputs.contents);
        let known = all.map(|((input, file), &content)| Known {
            path: file.path().to_owned(),
            content,
            whole_archive: input.whole_archive,
            as_needed: input.as_needed,
            needed_name: input.needed_name.clone(),
            members: file.members_read(),
        });
        let record = Record {
            inputs: known.collect(),
            dependencies: inputs.dependencies.clone(),
            entry: inputs.entry.clone(),
            has_shared_libraries: inputs.has_shared_libraries,
        };
        let mut text = line.into_bytes();
        serde_json::to_writer(&mut text, &record)?;
        self.replace_unflushed(io, RESOLVED, &text)
    }
}

/// The inputs of a command line of which only `changed` are other ones than at the last link of `output`. `None` if they
/// have to be looked for as usual: there was no such link, or one of the names is none of its files.
pub fn resolve_claimed(
    io: &Arc<dyn Io>,
    output: &Path,
    trust: StateTrust,
    search: &SearchPath,
    args: &[InputArg],
    changed: &[PathBuf],
) -> Option<ResolvedInputs> {
    let Ok(Target::File(slot)) = locate(&**io, output) else { return None };
    let dir = StateFolder::look(&**io, &slot.dir, &slot.name, trust).ok()?;
    let text = StateFolder::read(&**io, &dir, RESOLVED).ok()??;
    let key = key(&**io, search, args);
    let record = text.strip_prefix(key_line(key).as_bytes()).filter(|_| key != 0)?;
    let record: Record = serde_json::from_slice(record).ok()?;

    let mut named = vec![false; record.inputs.len()];
    for name in changed {
        let mut is_known = false;
        for (known, named) in record.inputs.iter().zip(&mut named) {
            if [&known.path].into_iter().chain(&known.members).any(|path| same_path(path, name)) {
                *named = true;
                is_known = true;
            }
        }
        if !is_known {
            return None;
        }
    }
    let mut found = ResolvedInputs {
        key,
        partial: true,
        dependencies: record.dependencies,
        entry: record.entry,
        has_shared_libraries: record.has_shared_libraries,
        ..ResolvedInputs::default()
    };
    for (known, named) in record.inputs.into_iter().zip(named) {
        let thin = known.content == FileContent::ThinArchive;
        let file = match named {
            // Another kind of file is another input: that is for a link that looks at everything to say.
            true => {
                let stat = io.stat(&known.path).ok()?;
                let content = super::search::content_of(&**io, &known.path, &stat).ok()?;
                if content != known.content {
                    return None;
                }
                FileInput::new(io.clone(), known.path, &stat, thin)
            }
            false => FileInput::unseen(io.clone(), known.path),
        };
        let file = Arc::new(file);
        let mut input = Input::lazy(file.path().to_string_lossy(), file.identity(), file.clone());
        input.whole_archive = known.whole_archive;
        input.as_needed = known.as_needed;
        input.needed_name = known.needed_name;
        input.unchanged = !named;
        found.inputs.push(input);
        found.files.push(file);
        found.contents.push(known.content);
    }
    Some(found)
}

/// Errors for names of `changed` that are no files of a link, with those that are.
///
/// `texts` are files that options name: a version script may well be what changed, and is read in each link.
pub fn unknown_inputs(
    io: &dyn Io,
    found: &ResolvedInputs,
    texts: &[PathBuf],
    changed: &[PathBuf],
) -> Vec<ResolveError> {
    let mut errors = Vec::new();
    for name in changed {
        let mut files = found.dependencies.iter().chain(texts);
        if files.any(|path| same_path(path, name)) || same_file(io, found, name) || is_member(found, name) {
            continue;
        }
        let known = found.dependencies.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        errors.push(ResolveError::NotChanged { path: name.clone(), known });
    }
    errors
}

/// Whether two names lead to one file as far as their text tells.
fn same_path(a: &Path, b: &Path) -> bool {
    let plain = |path: &'_ Path| path.components().all(|part| !matches!(part, Component::ParentDir));
    let strip = |path: &'_ Path| -> PathBuf { path.strip_prefix(".").unwrap_or(path).to_owned() };
    if a == b || a.file_name() != b.file_name() {
        return a == b;
    }
    let (a, b) = (strip(a), strip(b));
    // `x/../a.o` is not `a.o` if x is a symbolic link.
    a == b
        || a.is_absolute() != b.is_absolute()
            && plain(&a)
            && plain(&b)
            && matches!((std::path::absolute(&a), std::path::absolute(&b)), (Ok(a), Ok(b)) if a == b)
}

fn same_file(io: &dyn Io, found: &ResolvedInputs, name: &Path) -> bool {
    let Ok(stat) = io.stat(name) else { return false };
    let file = (stat.identity.device, stat.identity.inode);
    found.files.iter().any(|known| known.is_file(file))
        || found.dependencies.iter().any(|path| {
            path.file_name() == name.file_name()
                && io.stat(path).is_ok_and(|stat| (stat.identity.device, stat.identity.inode) == file)
        })
}

/// Whether a name is that of a thin archive's member.
fn is_member(found: &ResolvedInputs, name: &Path) -> bool {
    let thin = found.files.iter().zip(&found.contents);
    thin.filter(|(_, content)| **content == FileContent::ThinArchive).any(|(file, _)| {
        let bytes = relink_engine::input::InputSource::bytes(&**file).ok();
        let members = bytes.and_then(|bytes| Archive::parse(bytes).ok()?.members().ok());
        members
            .into_iter()
            .flatten()
            .filter_map(|member| member.thin_path)
            .any(|path| same_path(&file.beside(&path), name))
    })
}

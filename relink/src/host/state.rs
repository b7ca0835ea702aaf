//! The state folder `<dir>/.relink/<output>/`: what one link leaves for the next, and how it is never half there.
//!
//! | File | Holds |
//! |---|---|
//! | `state-N` | the session's columns after link N, and behind them what later links changed |
//! | `image-N` | our own copy of the image; shares no inode with the output, which build tools remove and hard-link |
//! | `current` | the marker: which state and which image belong together; everything else may be torn |
//! | `command` | the command line of the last link, for `relink verify` |
//! | `inputs/` | hard links to inputs that rustc removes after the link, for `relink verify` |
//! | `log` | one line of JSON per link |
//! | `lock` | held for the whole link; the second linker of an output waits |
//!
//! # Order of a publication
//!
//! 1 What changed of the state is appended behind the bytes that the marker counts (or a whole `state-N+1` is
//! written), and `image-N+1` is written under a name that nothing refers to. 2 A copy of the image is renamed over
//! the output. 3 A new marker is renamed over `current`. 4 Parts that it does not name are removed.
//!
//! A kill before 2 leaves the old output and the old pair; between 2 and 3 the new output and the old pair; after 3
//! the new ones. All of them are right for the next link: it compares its inputs with those of the pair that the
//! marker names, and publishes a whole image, so it never matters which output stood there. Leftovers of a kill are
//! files that the marker does not name, which the next link removes first, and bytes behind those that it counts,
//! which the next link overwrites. Bytes that a marker counts never change, so a mapped state stays what it was.
//!
//! Nothing is forced to the disk (no linker does that), so a crash of the machine may lose what the marker names:
//! a marker from before the last start of the system is not trusted.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::Path;

use relink_formats::Bytes;
use serde::{Deserialize, Serialize};

use super::error::HostError;
use super::io::{Dir, FileKind, Io, Open};
use super::publish::Temporary;

const FOLDER: &str = ".relink";
const MARKER: &str = "current";
const LOCK: &str = "lock";
pub(super) const LOG: &str = "log";
pub(super) const COMMAND: &str = "command";
/// Layout of this folder; another number is another layout, and means a full link.
const FORMAT: u32 = 1;
/// Rounds of waiting for a lock whose folder was removed (`cargo clean`) in the meantime.
const LOCK_ROUNDS_MAX: usize = 10;

/// Contents of `current`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    format: u32,
    /// Version of the linker that wrote it.
    linker: String,
    /// Which start of the system it was written in.
    boot: Option<String>,
    pub(super) state: Part,
    /// Bytes of the state that are columns; the rest is what later links appended.
    pub(super) state_base: u64,
    pub(super) image: Part,
}

impl Marker {
    /// A number that neither of its parts has.
    pub(super) fn next_generation(&self) -> u64 {
        self.state.generation.max(self.image.generation).saturating_add(1)
    }
}

/// Which file holds a part, and how much of it counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) generation: u64,
    pub(super) bytes: u64,
}

/// What the earlier link left.
#[derive(Debug)]
pub(super) struct Prior {
    pub(super) marker: Marker,
    pub(super) state: Bytes,
    pub(super) image: Bytes,
    pub(super) image_file: File,
}

/// An open and locked state folder.
#[derive(Debug)]
pub(super) struct StateFolder {
    pub(super) dir: Dir,
    /// Its lock goes with it.
    _lock: File,
}

/// The name of `state-N` or `image-N`.
fn generation_name(stem: &str, generation: u64) -> OsString {
    OsString::from(format!("{stem}-{generation}"))
}

/// Which start of the system this is; `None` where the system does not tell.
fn boot_id(io: &dyn Io) -> Option<String> {
    let file = io.open_read(Path::new("/proc/sys/kernel/random/boot_id")).ok()?;
    let text = io.read_to_end(&file).ok()?;
    Some(String::from_utf8(text).ok()?.trim().to_owned())
}

/// Opens a directory that only its owner, who must be us, may write to. Someone else's state would be their choice
/// of the bytes of our program.
fn private_dir(io: &dyn Io, parent: &Dir, name: &OsStr, create: bool) -> Result<Dir, HostError> {
    let path = parent.path().join(name);
    let opened = match io.open_dir_at(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && create => match io.make_dir(parent, name) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => io.open_dir_at(parent, name),
        },
        other => other,
    };
    let dir = opened.map_err(HostError::io("open state folder", &path))?;
    let stat = io.stat_dir(&dir).map_err(HostError::io("open state folder", &path))?;
    let why = if stat.owner != rustix::process::geteuid().as_raw() {
        "it belongs to another user"
    } else if stat.mode & 0o022 != 0 {
        "other users may write to it"
    } else {
        return Ok(dir);
    };
    Err(HostError::io("trust state folder", &path)(io::Error::other(why)))
}

impl StateFolder {
    /// Opens the folder of the output `name` in `output_dir` and waits for its lock.
    pub(super) fn open(
        io: &dyn Io,
        output_dir: &Dir,
        name: &OsStr,
        create: bool,
    ) -> Result<StateFolder, HostError> {
        for _ in 0..LOCK_ROUNDS_MAX {
            let parent = private_dir(io, output_dir, OsStr::new(FOLDER), create)?;
            let dir = private_dir(io, &parent, name, create)?;
            let path = dir.path().join(LOCK);
            let locked = io.open_at(&dir, OsStr::new(LOCK), Open::Lock).and_then(|file| {
                io.lock(&file)?;
                let links = io.stat_file(&file)?.links;
                Ok((file, links))
            });
            let (lock, links) = locked.map_err(HostError::io("lock", &path))?;
            if links > 0 {
                return Ok(StateFolder { dir, _lock: lock });
            }
            // The folder was removed while we waited: what we hold locks nothing any more.
        }
        Err(HostError::io("lock", output_dir.path().join(FOLDER))(io::Error::other(
            "it is removed again and again",
        )))
    }

    /// Opens the folder to read its log only: no lock, nothing is made.
    pub(super) fn look(io: &dyn Io, output_dir: &Dir, name: &OsStr) -> Result<Dir, HostError> {
        let parent = private_dir(io, output_dir, OsStr::new(FOLDER), false)?;
        private_dir(io, &parent, name, false)
    }

    /// A file of the folder, if it is there.
    pub(super) fn read(io: &dyn Io, dir: &Dir, name: &str) -> io::Result<Option<Vec<u8>>> {
        match io.open_at(dir, OsStr::new(name), Open::Read) {
            Ok(file) => io.read_to_end(&file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the earlier link left; `Ok(None)` if there was none, a sentence if it can't be used.
    pub(super) fn prior(&self, io: &dyn Io) -> Result<Option<Prior>, String> {
        let text = StateFolder::read(io, &self.dir, MARKER).map_err(|error| format!("marker: {error}"))?;
        let Some(text) = text else { return Ok(None) };
        let marker: Marker =
            serde_json::from_slice(&text).map_err(|_| "the marker is not readable".to_owned())?;
        if marker.format != FORMAT || marker.linker != env!("CARGO_PKG_VERSION") {
            return Err(format!("written by relink {}", marker.linker));
        }
        if marker.boot != boot_id(io) {
            return Err("written before the system was started".to_owned());
        }
        let (_, state) = self.open_part(io, "state", &marker.state)?;
        let (image_file, image) = self.open_part(io, "image", &marker.image)?;
        Ok(Some(Prior { marker, state, image, image_file }))
    }

    fn open_part(&self, io: &dyn Io, stem: &str, part: &Part) -> Result<(File, Bytes), String> {
        let name = generation_name(stem, part.generation);
        let opened = || -> io::Result<(File, Bytes)> {
            let file = io.open_at(&self.dir, &name, Open::Read)?;
            let stat = io.stat_file(&file)?;
            if stat.kind != FileKind::Regular || stat.identity.size < part.bytes {
                return Err(io::Error::other(format!(
                    "{} bytes instead of {}",
                    stat.identity.size, part.bytes
                )));
            }
            let length = usize::try_from(part.bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
            let map = io.map(&file, length)?;
            Ok((file, map))
        };
        opened().map_err(|error| format!("{}: {}", name.to_string_lossy(), super::error::reason(&error)))
    }

    /// Removes what no marker names: leftovers of a link that was killed.
    pub(super) fn sweep(&self, io: &dyn Io, prior: Option<&Prior>) {
        let mut keep: Vec<OsString> = [LOCK, LOG, COMMAND, MARKER].iter().map(OsString::from).collect();
        keep.push(StateFolder::inputs_name());
        if let Some(prior) = prior {
            keep.push(generation_name("state", prior.marker.state.generation));
            keep.push(generation_name("image", prior.marker.image.generation));
        }
        for name in io.list_dir(&self.dir).unwrap_or_default() {
            if !keep.contains(&name) {
                // Best effort: what stays costs room, no more.
                let _ = io.remove(&self.dir, &name);
            }
        }
    }

    /// A file for the next `state-N` or `image-N`, which nothing names yet.
    pub(super) fn next_part<'a>(
        &'a self,
        io: &'a dyn Io,
        stem: &str,
        generation: u64,
    ) -> Result<Temporary<'a>, HostError> {
        let name = generation_name(stem, generation);
        let path = self.dir.path().join(&name);
        Temporary::named(io, &self.dir, name, true).map_err(HostError::io("write", path))
    }

    /// Writes behind the bytes of the state that count; they become part of it when a marker counts them.
    pub(super) fn append_state(&self, io: &dyn Io, marker: &Marker, log: &[u8]) -> io::Result<()> {
        let file = io.open_at(&self.dir, &generation_name("state", marker.state.generation), Open::Extend)?;
        io.write_at(&file, marker.state.bytes, log)
    }

    /// Makes a pair the one that counts.
    pub(super) fn commit(
        &self,
        io: &dyn Io,
        earlier: Option<&Marker>,
        state: &Part,
        image: &Part,
    ) -> Result<(), HostError> {
        let extended = earlier.filter(|marker| marker.state.generation == state.generation);
        let marker = Marker {
            format: FORMAT,
            linker: env!("CARGO_PKG_VERSION").to_owned(),
            boot: boot_id(io),
            state: state.clone(),
            state_base: extended.map_or(state.bytes, |marker| marker.state_base),
            image: image.clone(),
        };
        let text = serde_json::to_vec(&marker)
            .map_err(|error| HostError::io("write", self.dir.path().join(MARKER))(error.into()))?;
        self.write(io, MARKER, &text)
    }

    /// Makes the next link a full one.
    pub(super) fn forget(&self, io: &dyn Io) {
        let _ = io.remove(&self.dir, OsStr::new(MARKER));
    }

    /// Replaces a small file of the folder at once.
    pub(super) fn write(&self, io: &dyn Io, name: &str, bytes: &[u8]) -> Result<(), HostError> {
        let write = || {
            let temporary = Temporary::named(io, &self.dir, format!("{name}.new"), true)?;
            io.write_all(temporary.file()?, bytes)?;
            temporary.rename(&self.dir, OsStr::new(name))
        };
        write().map_err(HostError::io("write", self.dir.path().join(name)))
    }

    /// Removes the parts of an earlier pair that the new one does not share.
    pub(super) fn retire(&self, io: &dyn Io, old: &Marker, state: &Part, image: &Part) {
        // Best effort: the next link sweeps.
        if old.state.generation != state.generation {
            let _ = io.remove(&self.dir, &generation_name("state", old.state.generation));
        }
        if old.image.generation != image.generation {
            let _ = io.remove(&self.dir, &generation_name("image", old.image.generation));
        }
    }
}

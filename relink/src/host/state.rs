//! The state folder `<dir>/.relink/<output>/`: what one link leaves for the next, and how it is never half there.
//!
//! | File | Holds |
//! |---|---|
//! | `state-N` | the session's columns after link N, and behind them what later links changed |
//! | `image-N` | a kept image: that of the last link, or of the one before |
//! | `patch-N` | what link N changed of the image, with the bytes from before (`change.rs`) |
//! | `current` | the marker: which state, image and patch belong together; everything else may be torn |
//! | `current.new`, `command.new` | spare files, written over when their names' next contents come |
//! | `command` | the command line of the last link, for `relink verify` |
//! | `resolved` | the files that the command line led to, for a link that is told what changed (`claim.rs`) |
//! | `inputs/` | hard links to inputs that rustc removes after the link, for `relink verify` |
//! | `log` | one line of JSON per link |
//! | `lock` | held for the whole link; the second linker of an output waits |
//!
//! The image of the last link is that of `image-N` with the ranges of the marker's `patch-N` laid over it, whether the
//! file has them by now or not. It never depends on the output, which build tools remove and users strip.
//!
//! # Order of a publication
//!
//! 1 What changed of the state is appended behind the bytes that the marker counts (or a whole `state-N+1` is
//! written). 2 `patch-N+1` is written. 3 The kept image gets the ranges of `patch-N` and `patch-N+1`. 4 It changes
//! places with the output, or a copy of it takes the output's place (`turns.rs` says when which). 5 A new marker takes
//! the place of `current` at once. 6 What it does not name is removed, but for a patch whose file the next one gets.
//!
//! After a full link, 2 to 4 are: `image-N+1` is written, a copy of it is renamed over the output.
//!
//! A kill before 4 leaves the old output, between 4 and 5 the new one, both with the old marker. The image that this
//! marker names is then the one that had its turn half done, or the one that was the output: in both of them the
//! ranges of its patch, and those from before of every whole patch that no marker named yet, give the image that its
//! state describes. So the next link patches as if nothing had happened, compares its inputs with those of that
//! state, and replaces an output that is not the one that the marker knows. Leftovers of a kill are files that the
//! marker does not name, and bytes behind those that it counts, which the next link overwrites. Bytes of a state that
//! a marker counts never change, so a mapped state stays what it was.
//!
//! Nothing is forced to the disk (no linker does that), so a crash of the machine may lose what the marker names:
//! a marker from before the last start of the system is not trusted.

use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::Path;

use relink_engine::image::Image;
use relink_formats::Bytes;
use serde::{Deserialize, Serialize};

use super::change::{Change, overlaid};
use super::error::HostError;
use super::io::{Dir, FileKind, Io, Open, Stat};
use super::publish::Temporary;
use crate::PatchBytes;

const FOLDER: &str = ".relink";
const MARKER: &str = "current";
const LOCK: &str = "lock";
pub(super) const LOG: &str = "log";
pub(super) const COMMAND: &str = "command";
pub(super) const RESOLVED: &str = "resolved";
/// Layout of this folder; another number is another layout, and means a full link.
const FORMAT: u32 = 3;
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
    pub(super) current: Current,
}

/// What one link leaves for the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Current {
    /// Number of the link; those of files are at most this one, those of leftovers greater.
    pub(super) generation: u64,
    pub(super) state: Part,
    /// Bytes of the state that are columns; the rest is what later links appended.
    pub(super) state_base: u64,
    /// Bytes of log that all links since those columns were written have replayed, one after the other.
    pub(super) replayed: u64,
    pub(super) image: Part,
    /// What the image file was when it was left; a file that somebody wrote to since is no image of ours.
    pub(super) image_seen: Seen,
    /// What has to be laid over the image.
    pub(super) patch: Option<Part>,
    /// The output as it was published. Only a file that still is this one becomes a kept image.
    pub(super) output: Option<Seen>,
}

impl Current {
    /// Bytes of the log, which the next link replays.
    pub(super) fn log_bytes(&self) -> u64 {
        self.state.bytes.saturating_sub(self.state_base)
    }

    /// Bytes that have been replayed once the link that opened this one is done.
    pub(super) fn replayed_by_next(&self) -> u64 {
        self.replayed.saturating_add(self.log_bytes())
    }
}

/// What tells whether somebody wrote to a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    device: u64,
    inode: u64,
    size: u64,
    modified_ns: i64,
    changed_ns: i64,
}

impl Seen {
    pub(super) fn of(stat: &Stat) -> Seen {
        let identity = &stat.identity;
        Seen {
            device: identity.device,
            inode: identity.inode,
            size: identity.size,
            modified_ns: identity.mtime_ns,
            changed_ns: identity.changed_ns,
        }
    }

    /// Without the time of the last change, for a file that is about to lose a name.
    pub(super) fn about_to_change(self) -> Seen {
        Seen { changed_ns: 0, ..self }
    }

    /// The same file, and nobody did anything to it.
    pub(super) fn is_still(&self, other: &Seen) -> bool {
        self.same_file(other) && [0, other.changed_ns].contains(&self.changed_ns)
    }

    /// The same file with the same bytes; its names and mode may have changed.
    pub(super) fn same_file(&self, other: &Seen) -> bool {
        (self.device, self.inode) == (other.device, other.inode) && self.same_bytes(other)
    }

    /// Nobody wrote to it. A copy of the whole folder that keeps times passes.
    fn same_bytes(&self, other: &Seen) -> bool {
        (self.size, self.modified_ns) == (other.size, other.modified_ns)
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
    pub(super) current: Current,
    pub(super) state: Bytes,
    /// The file of the kept image.
    pub(super) image: Bytes,
    pub(super) image_file: File,
    /// Whether it may be written to: it has one name, and nobody else has it open or mapped.
    pub(super) image_free: bool,
    /// What has to be laid over it, one after the other.
    pub(super) overlay: Vec<PatchBytes>,
    /// Generations of patches that a killed link left.
    leftovers: Vec<u64>,
    /// Generation of a patch that nothing names any more: its file is the next one's.
    spare: Option<u64>,
    /// What the folder had in it.
    names: Vec<OsString>,
}

impl Prior {
    /// A number that no file has.
    pub(super) fn next_generation(&self) -> u64 {
        let newest = self.current.generation.max(self.current.image.generation);
        self.leftovers.iter().copied().fold(newest, u64::max).saturating_add(1)
    }

    /// The image of the last link.
    pub(super) fn whole_image(&self) -> Image {
        overlaid(&self.image, &self.overlay)
    }
}

/// An open and locked state folder.
#[derive(Debug)]
pub(super) struct StateFolder {
    pub(super) dir: Dir,
    /// Which start of the system this is, once it was asked for.
    boot: OnceCell<Option<String>>,
    /// Its lock goes with it.
    _lock: File,
}

/// The name of `state-N`, `image-N` or `patch-N`.
pub(super) fn generation_name(stem: &str, generation: u64) -> OsString {
    OsString::from(format!("{stem}-{generation}"))
}

/// The name of the file that takes the place of one of the folder, and of the one that had it.
fn spare_name(name: &str) -> OsString {
    OsString::from(format!("{name}.new"))
}

/// Which start of the system this is; `None` where the system does not tell.
fn boot_id(io: &dyn Io) -> Option<String> {
    let file = io.open_read(Path::new("/proc/sys/kernel/random/boot_id")).ok()?;
    let text = io.read_to_end(&file).ok()?;
    Some(String::from_utf8(text).ok()?.trim().to_owned())
}

/// Whose state folder is used. Someone else's state would be their choice of the bytes of our program.
///
/// A folder is made with mode 0700 whatever the umask, so that one that a group may write to (umask 002, a group of its
/// own for each user) was never made so by us. Symbolic links are never followed, whatever is trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StateTrust {
    /// Our own, if nobody else may write to it.
    #[default]
    Own,
    /// Anybody's: for file systems that know no owners, and for a root that is none outside of its container.
    Any,
}

/// Opens a directory that only its owner, who must be us, may write to, unless all are trusted.
fn private_dir(
    io: &dyn Io,
    parent: &Dir,
    name: &OsStr,
    trust: StateTrust,
    create: bool,
) -> Result<Dir, HostError> {
    let path = parent.path().join(name);
    let opened = match io.open_dir_at(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && create => match io.make_dir(parent, name) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => io.open_dir_at(parent, name),
        },
        other => other,
    };
    let dir = opened.map_err(HostError::io("open state folder", &path))?;
    if trust == StateTrust::Any {
        return Ok(dir);
    }
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
        trust: StateTrust,
        create: bool,
    ) -> Result<StateFolder, HostError> {
        for _ in 0..LOCK_ROUNDS_MAX {
            let parent = private_dir(io, output_dir, OsStr::new(FOLDER), trust, create)?;
            let dir = private_dir(io, &parent, name, trust, create)?;
            let path = dir.path().join(LOCK);
            let locked = io.open_at(&dir, OsStr::new(LOCK), Open::Lock).and_then(|file| {
                io.lock(&file)?;
                let links = io.stat_file(&file)?.links;
                Ok((file, links))
            });
            let (lock, links) = locked.map_err(HostError::io("lock", &path))?;
            if links > 0 {
                return Ok(StateFolder { dir, boot: OnceCell::new(), _lock: lock });
            }
            // The folder was removed while we waited: what we hold locks nothing any more.
        }
        Err(HostError::io("lock", output_dir.path().join(FOLDER))(io::Error::other(
            "it is removed again and again",
        )))
    }

    /// Opens the folder to read its log only: no lock, nothing is made.
    pub(super) fn look(
        io: &dyn Io,
        output_dir: &Dir,
        name: &OsStr,
        trust: StateTrust,
    ) -> Result<Dir, HostError> {
        let parent = private_dir(io, output_dir, OsStr::new(FOLDER), trust, false)?;
        private_dir(io, &parent, name, trust, false)
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
        if marker.boot != *self.boot.get_or_init(|| boot_id(io)) {
            return Err("written before the system was started".to_owned());
        }
        let current = marker.current;
        let (_, state) = self.open_part(io, "state", &current.state)?;
        // Before we map it ourselves.
        let image_free = self.is_free(io, &current.image).unwrap_or(false);
        let (image_file, image) = self.open_part(io, "image", &current.image)?;
        let (mut overlay, mut leftovers) = (Vec::new(), Vec::new());
        if let Some(part) = &current.patch {
            let change = self.change(io, part.generation, current.image.bytes);
            let change = change.filter(|change| change.generation == part.generation);
            overlay = change.ok_or_else(|| format!("patch-{} is not readable", part.generation))?.after;
        }
        let names = self.names(io);
        let number = |name: &OsString| name.to_str()?.strip_prefix("patch-")?.parse::<u64>().ok();
        let named = current.patch.as_ref().map(|part| part.generation);
        let older = |&number: &u64| number < current.generation && Some(number) != named;
        let spare = names.iter().filter_map(number).filter(older).max();
        for generation in names.iter().filter_map(number).filter(|&number| number > current.generation) {
            // One that is torn was never begun with; its number is taken all the same.
            leftovers.push(generation);
            let change = self.change(io, generation, current.image.bytes);
            if let Some(change) = change.filter(|change| change.base == current.generation) {
                overlay.extend(change.before);
            }
        }
        let seen =
            io.stat_file(&image_file).map(|stat| Seen::of(&stat)).map_err(|error| error.to_string())?;
        if leftovers.is_empty() && !seen.same_bytes(&current.image_seen) {
            return Err(format!("image-{} was written to", current.image.generation));
        }
        Ok(Some(Prior { current, state, image, image_file, image_free, overlay, leftovers, spare, names }))
    }

    /// What is in the folder.
    fn names(&self, io: &dyn Io) -> Vec<OsString> {
        let listed = io.list_dir(&self.dir).unwrap_or_default();
        listed.into_iter().map(|(name, _)| name).collect()
    }

    /// Whether an image has no user but us. An error, too, means that it has: that of a running program is busy.
    fn is_free(&self, io: &dyn Io, image: &Part) -> io::Result<bool> {
        let file = io.open_at(&self.dir, &generation_name("image", image.generation), Open::Extend)?;
        let stat = io.stat_file(&file)?;
        let ours = stat.kind == FileKind::Regular
            && stat.links == 1
            && stat.owner == rustix::process::geteuid().as_raw()
            && stat.identity.size == image.bytes;
        Ok(ours && io.is_alone(&file)?)
    }

    /// The contents of a `patch-N`, if it is whole.
    fn change(&self, io: &dyn Io, generation: u64, image_bytes: u64) -> Option<Change> {
        let file = io.open_at(&self.dir, &generation_name("patch", generation), Open::Read).ok()?;
        let stat = io.stat_file(&file).ok().filter(|stat| stat.kind == FileKind::Regular)?;
        let bytes = io.read_at(&file, 0, usize::try_from(stat.identity.size).ok()?).ok()?;
        Change::decode(&bytes, image_bytes)
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

    /// Removes what no marker names, but for the patches that a killed link left: they are what makes the image whole.
    pub(super) fn sweep(&self, io: &dyn Io, prior: Option<&Prior>) {
        let mut keep: Vec<OsString> =
            [LOCK, LOG, COMMAND, RESOLVED, MARKER].iter().map(OsString::from).collect();
        keep.extend([COMMAND, MARKER].map(spare_name));
        keep.push(StateFolder::inputs_name());
        if let Some(prior) = prior {
            let patches = prior.leftovers.iter().chain(&prior.spare);
            keep.extend(named_by(&prior.current));
            keep.extend(patches.map(|&generation| generation_name("patch", generation)));
        }
        let listed = match prior {
            Some(_) => Vec::new(),
            None => self.names(io),
        };
        for name in prior.map_or(&listed, |prior| &prior.names) {
            if !keep.contains(name) {
                // Best effort: what stays costs room, no more.
                let _ = io.remove(&self.dir, name);
            }
        }
    }

    /// A file for the next `state-N`, `image-N` or `patch-N`, which nothing names yet.
    pub(super) fn next_part<'a>(
        &'a self,
        io: &'a dyn Io,
        stem: &str,
        generation: u64,
    ) -> Result<Temporary<'a>, HostError> {
        let name = generation_name(stem, generation);
        let path = self.dir.path().join(&name);
        // An image will be an output some day, and has the mode of one; nobody else gets into the folder anyway.
        Temporary::named(io, &self.dir, name, stem != "image").map_err(HostError::io("write", path))
    }

    /// Writes the next `patch-N`, which stays whatever happens from here on, into the file of one that nothing names any
    /// more if there is one.
    pub(super) fn write_patch(
        &self,
        io: &dyn Io,
        prior: &Prior,
        generation: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        let name = generation_name("patch", generation);
        let spare = prior.spare.map_or(name.clone(), |spare| generation_name("patch", spare));
        let patch = Temporary::reusing(io, &self.dir, spare, bytes)?;
        match prior.spare {
            Some(_) => patch.rename(&self.dir, &name),
            None => {
                drop(patch.keep());
                Ok(())
            }
        }
    }

    /// Writes behind the bytes of the state that count; they become part of it when a marker counts them. False, and
    /// nothing is written, if the file has another name: that of a folder copied by hard links, whose own marker may
    /// count other bytes there.
    pub(super) fn append_state(&self, io: &dyn Io, state: &Part, log: &[u8]) -> io::Result<bool> {
        let file = io.open_at(&self.dir, &generation_name("state", state.generation), Open::Extend)?;
        if io.stat_file(&file)?.links != 1 {
            return Ok(false);
        }
        io.write_at(&file, state.bytes, log)?;
        Ok(true)
    }

    /// Makes these files the ones that count. How many bytes the marker has.
    pub(super) fn commit(&self, io: &dyn Io, current: &Current) -> Result<u64, HostError> {
        let marker = Marker {
            format: FORMAT,
            linker: env!("CARGO_PKG_VERSION").to_owned(),
            boot: self.boot.get_or_init(|| boot_id(io)).clone(),
            current: current.clone(),
        };
        let text = serde_json::to_vec(&marker)
            .map_err(|error| HostError::io("write", self.dir.path().join(MARKER))(error.into()))?;
        let written = self.replace_by_spare(io, MARKER, &text);
        written.map_err(HostError::io("write", self.dir.path().join(MARKER)))?;
        Ok(text.len() as u64)
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

    /// The same for a file that is worth no flush and that nobody reads without the lock: it and another take turns.
    pub(super) fn replace_by_spare(&self, io: &dyn Io, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = Temporary::reusing(io, &self.dir, spare_name(name), bytes)?;
        temporary.change_places(&self.dir, OsStr::new(name))
    }

    /// The same for one that may be read at any time.
    pub(super) fn replace_unflushed(&self, io: &dyn Io, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = Temporary::named(io, &self.dir, spare_name(name), true)?;
        io.write_all(temporary.file()?, bytes)?;
        temporary.rename_unflushed(&self.dir, OsStr::new(name))
    }

    /// Removes the files of the earlier link that the new marker does not name, but for its patch: the next one gets that
    /// file.
    pub(super) fn retire(&self, io: &dyn Io, prior: &Prior, current: &Current) {
        let keep = named_by(current);
        let patch = |generation: &u64| generation_name("patch", *generation);
        let spare =
            current.patch.as_ref().and(prior.current.patch.as_ref()).map(|part| patch(&part.generation));
        // Without a patch there may be no other for long.
        let unused = prior.spare.iter().filter(|_| current.patch.is_none());
        let patches = prior.leftovers.iter().chain(unused).map(patch);
        let old = named_by(&prior.current).into_iter().chain(patches);
        for name in old.filter(|name| !keep.contains(name) && Some(name) != spare.as_ref()) {
            // Best effort: the next link sweeps.
            let _ = io.remove(&self.dir, &name);
        }
    }
}

/// Files that belong together.
fn named_by(current: &Current) -> Vec<OsString> {
    let parts =
        [("state", Some(&current.state)), ("image", Some(&current.image)), ("patch", current.patch.as_ref())];
    parts.into_iter().filter_map(|(stem, part)| Some(generation_name(stem, part?.generation))).collect()
}

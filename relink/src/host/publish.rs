//! Puts a finished file in the place of its output: at once, or not at all.
//!
//! A plain file is written beside its output and renamed over it, so that a reader finds the old bytes or the new
//! ones, a running program keeps its inode, and a hard link that somebody holds keeps its contents (cargo's
//! `target/debug/x` is one). What is no plain file (`/dev/null`, a pipe, a device) is written into, and stays what
//! it is. Links are followed first: `-o link` replaces what the link points to.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::error::HostError;
use super::io::{Dir, FileKind, Io, Open, Stat};
use super::link::IoWriter;

/// As many as the kernel follows in one path.
const LINKS_MAX: usize = 40;
/// Two links of one output in one directory draw names from the clock; this many collisions are no accident.
const NAMES_MAX: usize = 100;

/// Where an output goes.
#[derive(Debug)]
pub(super) enum Target {
    /// The null device: nothing to do.
    Null,
    /// Something that is written into.
    Stream(PathBuf),
    /// A name of a plain file.
    File(Slot),
}

/// A name in a directory, taken or not.
#[derive(Debug)]
pub(super) struct Slot {
    /// The directory, held open.
    pub(super) dir: Dir,
    /// The name in it; no symbolic link.
    pub(super) name: OsString,
    /// The file that has the name now.
    pub(super) existing: Option<Stat>,
    /// The path as the user wrote it, for messages.
    pub(super) shown: PathBuf,
}

/// Finds out what `path` is.
pub(super) fn locate(io: &dyn Io, path: &Path) -> Result<Target, HostError> {
    let open = |error| HostError::io("open", path)(error);
    let found = match io.stat(path) {
        Ok(stat) => Some(stat),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(open(error)),
    };
    match found.map(|stat| stat.kind) {
        Some(FileKind::Null) => return Ok(Target::Null),
        Some(FileKind::Stream) => return Ok(Target::Stream(path.to_owned())),
        Some(FileKind::Directory) => {
            return Err(HostError::BadOutput { path: path.to_owned(), why: "it is a directory" });
        }
        _ => {}
    }
    follow(io, path)
}

/// Follows links in the last part of a path, also one that leads nowhere yet; the kernel does it for the others.
///
/// Another link of the same output may put a new file there at any moment, even between two calls of ours: what is found
/// by a name that is no link is never taken for anything but a plain file.
fn follow(io: &dyn Io, shown: &Path) -> Result<Target, HostError> {
    let failed = |error| HostError::io("open output", shown)(error);
    let mut path = shown.to_owned();
    for _ in 0..LINKS_MAX {
        let Some(name) = path.file_name().map(OsStr::to_owned) else { break };
        let parent = path.parent().unwrap_or(Path::new(""));
        let dir = io.open_dir(parent).map_err(failed)?;
        let existing = match io.stat_at(&dir, &name) {
            Ok(stat) => Some(stat),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        if !existing.is_some_and(|stat| stat.kind == FileKind::Symlink) {
            return Ok(Target::File(Slot { dir, name, existing, shown: shown.to_owned() }));
        }
        // `/dev/stdout` is one: a file that somebody opened, and that may have lost its name.
        if io.is_procfs(&dir).map_err(failed)? {
            return Ok(Target::Stream(shown.to_owned()));
        }
        let target = io.read_link_at(&dir, &name).map_err(failed)?;
        path = parent.join(target);
    }
    Err(HostError::BadOutput { path: shown.to_owned(), why: "it does not lead to a file name" })
}

/// A file under a name of its own that is removed again unless it is put in the place of another.
#[derive(Debug)]
pub(super) struct Temporary<'a> {
    io: &'a dyn Io,
    dir: &'a Dir,
    name: OsString,
    file: Option<File>,
}

impl<'a> Temporary<'a> {
    /// A new file `.NAME.relink-…` beside NAME.
    pub(super) fn beside(io: &'a dyn Io, slot: &'a Slot) -> Result<Temporary<'a>, HostError> {
        let mut error = std::io::ErrorKind::AlreadyExists.into();
        for attempt in 0..NAMES_MAX {
            let mut name = OsString::from(".");
            // A name may have 255 bytes; that of the output may have them all.
            name.push(if slot.name.len() < 200 { slot.name.as_os_str() } else { OsStr::new("output") });
            name.push(format!(".relink-{:x}-{attempt}", io.now_ns()));
            match io.open_at(&slot.dir, &name, Open::CreateNew { private: false }) {
                Ok(file) => return Ok(Temporary { io, dir: &slot.dir, name, file: Some(file) }),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => error = e,
                Err(e) => return Err(HostError::io("create output", &slot.shown)(e)),
            }
        }
        Err(HostError::io("create output", &slot.shown)(error))
    }

    /// A new file of a name that is known to be free (and is freed if not).
    pub(super) fn named(
        io: &'a dyn Io,
        dir: &'a Dir,
        name: impl Into<OsString>,
        private: bool,
    ) -> std::io::Result<Temporary<'a>> {
        let name = name.into();
        let how = Open::CreateNew { private };
        let file = match io.open_at(dir, &name, how) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                io.remove(dir, &name)?;
                io.open_at(dir, &name, how)?
            }
            other => other?,
        };
        Ok(Temporary { io, dir, name, file: Some(file) })
    }

    /// A private file of a name under which a spare one may lie, with these contents. A spare is written over, unless it
    /// has another name too: ext4 looks through all inodes that lost their file in the last minutes for one that did not,
    /// so that a file anew with each link takes 0.1 to 0.3 ms, more than all that is written into it.
    pub(super) fn reusing(
        io: &'a dyn Io,
        dir: &'a Dir,
        name: impl Into<OsString>,
        bytes: &[u8],
    ) -> std::io::Result<Temporary<'a>> {
        let name = name.into();
        let spare = io.open_at(dir, &name, Open::Extend).ok();
        let spare = spare.and_then(|file| io.stat_file(&file).ok().map(|stat| (file, stat)));
        match spare.filter(|(_, stat)| stat.kind == FileKind::Regular && stat.links == 1) {
            Some((file, stat)) => {
                let spare = Temporary { io, dir, name, file: Some(file) };
                io.write_at(spare.file()?, 0, bytes)?;
                if stat.identity.size > bytes.len() as u64 {
                    io.set_length(spare.file()?, bytes.len() as u64)?;
                }
                Ok(spare)
            }
            None => {
                let new = Temporary::named(io, dir, name, true)?;
                io.write_all(new.file()?, bytes)?;
                Ok(new)
            }
        }
    }

    /// The file; `None` only while it is being dropped.
    pub(super) fn file(&self) -> std::io::Result<&File> {
        self.file.as_ref().ok_or_else(|| std::io::Error::other("the file is closed"))
    }

    /// Gives it a place: closes it (a program can't run while a writer has it open), then renames.
    pub(super) fn rename(mut self, to: &Dir, name: &OsStr) -> std::io::Result<()> {
        drop(self.file.take());
        self.io.rename(self.dir, &self.name, to, name)?;
        std::mem::take(&mut self.name); // Nothing is left to remove.
        Ok(())
    }

    /// The file, to be closed before it has its place.
    pub(super) fn take_file(&mut self) -> std::io::Result<File> {
        self.file.take().ok_or_else(|| std::io::Error::other("the file is closed"))
    }

    /// The name it has.
    pub(super) fn name(&self) -> &OsStr {
        &self.name
    }

    /// The same as [`Temporary::rename`] for a file that need not outlive a crash of the machine: ext4 allocates and
    /// flushes what is renamed over another file at once, which takes milliseconds.
    pub(super) fn rename_unflushed(self, to: &Dir, name: &OsStr) -> std::io::Result<()> {
        let (io, dir, own) = (self.io, self.dir, self.name.clone());
        self.change_places(to, name)?;
        // Where names can't change places, there is none of ours left.
        let _ = io.remove(dir, &own);
        Ok(())
    }

    /// The same, and the other file stays under our name.
    pub(super) fn change_places(mut self, to: &Dir, name: &OsStr) -> std::io::Result<()> {
        drop(self.file.take());
        match self.io.exchange(self.dir, &self.name, to, name) {
            Ok(()) => {
                std::mem::take(&mut self.name);
                Ok(())
            }
            Err(_) => self.rename(to, name),
        }
    }

    /// Lets it stay under its own name.
    pub(super) fn keep(mut self) -> Option<File> {
        std::mem::take(&mut self.name);
        self.file.take()
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            // Best effort: there is an error on its way already.
            let _ = self.io.remove(self.dir, &self.name);
        }
    }
}

/// Permission bits of the file that takes the place of `existing`; `created` are those of a new program.
///
/// An output that was not executable (an empty file of `mktemp`) becomes so for those who may read it, as with ld.
fn mode_for(existing: Option<&Stat>, created: u32) -> u32 {
    match existing {
        None => created,
        Some(stat) if stat.mode & 0o111 == 0 => {
            let mode = stat.mode & 0o777;
            mode | ((mode & 0o444) >> 2 & created)
        }
        Some(stat) => stat.mode & 0o777,
    }
}

/// Gives a finished temporary file the owner and mode of an output, and its place.
pub(super) fn replace(
    io: &dyn Io,
    temporary: Temporary<'_>,
    slot: &Slot,
    executable: bool,
) -> Result<(), HostError> {
    let failed = |error| HostError::io("write output", &slot.shown)(error);
    dress(io, temporary.file().map_err(failed)?, slot, executable)?;
    temporary.rename(&slot.dir, &slot.name).map_err(HostError::io("replace output", &slot.shown))
}

/// Gives a finished file the owner and mode of the output whose place it will take.
pub(super) fn dress(io: &dyn Io, file: &File, slot: &Slot, executable: bool) -> Result<(), HostError> {
    let failed = |error| HostError::io("write output", &slot.shown)(error);
    let created = io.stat_file(file).map_err(failed)?;
    if let Some(old) = &slot.existing
        && rustix::process::geteuid().is_root()
        && (old.owner, old.group) != (created.owner, created.group)
    {
        // Root that builds in somebody's tree leaves them the file; a file system may have no owners.
        let _ = io.set_owner(file, old.owner, old.group);
    }
    let mode = match executable {
        true => mode_for(slot.existing.as_ref(), created.mode),
        false => slot.existing.map_or(created.mode & 0o666, |stat| stat.mode & 0o777),
    };
    if mode != created.mode {
        io.set_mode(file, mode).map_err(failed)?;
    }
    Ok(())
}

/// Writes bytes to where they go, from memory.
pub(super) fn write(io: &dyn Io, target: &Target, bytes: &[u8], executable: bool) -> Result<(), HostError> {
    match target {
        Target::Null => Ok(()),
        Target::Stream(path) => {
            let failed = HostError::io("write output", path);
            let file = io.open_stream(path).map_err(HostError::io("open output", path))?;
            let whole = || {
                io.write_all(&file, bytes)?;
                match io.stat_file(&file)?.kind {
                    // Behind a descriptor, with more in it than that.
                    FileKind::Regular => io.set_length(&file, bytes.len() as u64),
                    _ => Ok(()),
                }
            };
            whole().map_err(failed)
        }
        Target::File(slot) => {
            let temporary = Temporary::beside(io, slot)?;
            let written = temporary.file().and_then(|file| io.write_all(file, bytes));
            written.map_err(HostError::io("write output", &slot.shown))?;
            replace(io, temporary, slot, executable)
        }
    }
}

/// Writes a text file (map, report, dependencies) as outputs are written: at once, and into what is no plain file.
pub fn write_file(io: &dyn Io, path: &Path, bytes: &[u8]) -> Result<(), HostError> {
    write(io, &locate(io, path)?, bytes, false)
}

/// The same for what is better not held in memory: `fill` writes it.
pub fn write_file_with(
    io: &dyn Io,
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<(), HostError> {
    let target = locate(io, path)?;
    let fill_file = |file: &File| {
        let mut writer = BufWriter::with_capacity(1 << 20, IoWriter { io, file, written: 0 });
        fill(&mut writer)?;
        writer.flush()
    };
    match target {
        Target::Null => Ok(()),
        Target::Stream(path) => {
            let file = io.open_stream(&path).map_err(HostError::io("open", &path))?;
            fill_file(&file).map_err(HostError::io("write", path))
        }
        Target::File(slot) => {
            let temporary = Temporary::beside(io, &slot)?;
            temporary.file().and_then(fill_file).map_err(HostError::io("write", &slot.shown))?;
            replace(io, temporary, &slot, false)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::super::fault::{Fault, FaultyIo};
    use super::super::io::SystemIo;
    use super::*;

    fn publish(path: &Path, bytes: &[u8]) -> Result<(), HostError> {
        write(&SystemIo, &locate(&SystemIo, path)?, bytes, true)
    }

    fn names(dir: &Path) -> Vec<OsString> {
        let mut names = SystemIo.list(dir).unwrap();
        names.sort();
        names
    }

    #[test]
    fn hard_link_keeps_old_bytes_and_mode_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (out, held) = (dir.path().join("out"), dir.path().join("held"));
        publish(&out, b"one").unwrap();
        std::fs::set_permissions(&out, std::fs::Permissions::from_mode(0o750)).unwrap();
        std::fs::hard_link(&out, &held).unwrap();
        publish(&out, b"two").unwrap();
        assert_eq!(std::fs::read(&held).unwrap(), b"one");
        assert_eq!(std::fs::read(&out).unwrap(), b"two");
        assert_eq!(out.metadata().unwrap().mode() & 0o7777, 0o750);
        assert_eq!(names(dir.path()), ["held", "out"]);
    }

    #[test]
    fn file_that_could_not_run_becomes_executable() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        std::fs::write(&out, b"").unwrap();
        std::fs::set_permissions(&out, std::fs::Permissions::from_mode(0o600)).unwrap();
        publish(&out, b"program").unwrap();
        assert_eq!(out.metadata().unwrap().mode() & 0o7777, 0o700);
    }

    #[test]
    fn symlinks_are_followed_and_stay() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        symlink("../real", dir.path().join("sub/second")).unwrap();
        symlink("sub/second", dir.path().join("first")).unwrap();
        // The chain leads nowhere at first, then to a file.
        for bytes in [b"one", b"two"] {
            publish(&dir.path().join("first"), bytes).unwrap();
            assert_eq!(std::fs::read(&real).unwrap(), bytes);
            assert!(dir.path().join("sub/second").symlink_metadata().unwrap().is_symlink());
        }
        symlink("loop", dir.path().join("loop")).unwrap();
        assert!(publish(&dir.path().join("loop"), b"x").is_err());
    }

    #[test]
    fn devices_and_pipes_are_written_into() {
        let before = Path::new("/dev/null").metadata().unwrap();
        publish(Path::new("/dev/null"), b"image").unwrap();
        let after = Path::new("/dev/null").metadata().unwrap();
        assert_eq!((before.ino(), before.mode()), (after.ino(), after.mode()));

        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read(pipe).unwrap()
        });
        publish(&pipe, b"image").unwrap();
        assert_eq!(reader.join().unwrap(), b"image");
        assert_eq!(names(dir.path()), ["pipe"]);
    }

    #[test]
    fn removed_file_behind_a_descriptor_is_written_into() {
        use std::os::fd::AsRawFd;
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("gone")).unwrap();
        std::fs::remove_file(dir.path().join("gone")).unwrap();
        for image in [&b"image of the first link"[..], b"image"] {
            publish(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())), image).unwrap();
            assert_eq!(file.metadata().unwrap().len(), image.len() as u64);
        }
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn file_that_others_replace_meanwhile_is_never_written_into() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let dir = tempfile::tempdir().unwrap();
        let (out, next) = (dir.path().join("out"), dir.path().join("next"));
        std::fs::write(&out, b"image").unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::fs::write(&next, b"image").unwrap();
                    std::fs::rename(&next, &out).unwrap();
                }
            });
            let found = (0..5000).all(|_| matches!(locate(&SystemIo, &out), Ok(Target::File(_))));
            done.store(true, Ordering::Relaxed);
            assert!(found);
        });
    }

    #[test]
    fn directories_and_missing_directories_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = publish(dir.path(), b"x").unwrap_err().to_string();
        assert_eq!(error, format!("cannot write output {}: it is a directory", dir.path().display()));
        let out = dir.path().join("no/out");
        let error = publish(&out, b"x").unwrap_err().to_string();
        assert_eq!(error, format!("cannot open output {}: No such file or directory", out.display()));
    }

    #[test]
    fn fault_at_every_call_leaves_old_or_new_bytes() {
        const FULL_DISK: i32 = 28;
        for fault in [Fault::Fail(FULL_DISK), Fault::Kill] {
            for index in 0.. {
                let dir = tempfile::tempdir().unwrap();
                let out = dir.path().join("out");
                std::fs::write(&out, b"old image").unwrap();
                let io = FaultyIo::at(index, fault);
                let result = locate(&io, &out).and_then(|target| write(&io, &target, b"new image", true));
                let bytes = std::fs::read(&out).unwrap();
                assert_eq!(bytes == b"new image", result.is_ok(), "{fault:?} {index}");
                assert!(bytes == b"old image" || bytes == b"new image");
                if fault != Fault::Kill {
                    assert_eq!(names(dir.path()), ["out"], "a temporary file stayed behind: {index}");
                }
                if let Err(error) = &result {
                    assert!(error.to_string().contains(out.to_str().unwrap()), "{error}");
                }
                if io.mutations() <= index {
                    assert!(index > 2, "the plan never came to a fault");
                    break;
                }
            }
        }
    }
}

//! Files as inputs of a link: mapped, and watched for changes while they are read.
//!
//! The identity (device, inode, size, modification time) is what lets the next link skip a file without reading
//! it, so it is given only where it proves something: see [`FileInput::identity`].

use std::hash::Hasher;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use relink_engine::input::{FileIdentity, InputSource};
use relink_formats::Bytes;
use twox_hash::XxHash3_64;

use super::error::HostError;
use super::io::{FileKind, Io, Stat};

/// Files below this size are read, larger ones mapped. Measured with every page touched and memory kept (2-core VM,
/// ext4, page cache): 4 KiB read 2 µs, mapped 6; 16 KiB 8 and 6; 64 KiB 29 and 8; 1 MiB 420 and 52. What is read can't
/// raise SIGBUS if a compiler truncates it in the middle of a link.
const MAP_BYTES_MIN: u64 = 16 << 10;

/// What is only hashed is read piece by piece into memory that stays in the processor's cache.
const HASH_BUFFER_BYTES: usize = 128 << 10;

/// Time stamps advance in steps of up to 10 ms (the kernel's tick), so a file that was modified less than two such
/// steps ago could be written again under the same stamp (git's racy rule).
const STAMP_STEP_NS: i64 = 20_000_000;

/// One file of the command line.
#[derive(Debug)]
pub struct FileInput {
    io: Arc<dyn Io>,
    path: PathBuf,
    /// None if nobody has looked yet.
    stat: Option<FileIdentity>,
    /// Whether `stat` proves that the bytes are the same next time.
    proves: bool,
    /// Whether it does for who trusts the modification time.
    proves_by_mtime: bool,
    /// What it was when it was read.
    read: OnceLock<FileIdentity>,
    /// It was another file, or was written to, when it was read.
    has_changed: AtomicBool,
    /// Members of a thin archive that were read.
    members: Mutex<Vec<(PathBuf, FileIdentity)>>,
}

impl FileInput {
    /// A file that `stat` was taken of. `thin` says that it is a thin archive, whose members are elsewhere.
    pub fn new(io: Arc<dyn Io>, path: PathBuf, stat: &Stat, thin: bool) -> FileInput {
        let settled = io.now_ns().saturating_sub(STAMP_STEP_NS);
        let identity = &stat.identity;
        let proves_by_mtime = !thin && stat.kind == FileKind::Regular && identity.mtime_ns < settled;
        FileInput {
            io,
            path,
            stat: Some(stat.identity),
            proves: proves_by_mtime && identity.changed_ns < settled,
            proves_by_mtime,
            read: OnceLock::new(),
            has_changed: AtomicBool::new(false),
            members: Mutex::default(),
        }
    }

    /// A file that nobody has looked at, for it is said to be as it was.
    pub(super) fn unseen(io: Arc<dyn Io>, path: PathBuf) -> FileInput {
        FileInput {
            io,
            path,
            stat: None,
            proves: false,
            proves_by_mtime: false,
            read: OnceLock::new(),
            has_changed: AtomicBool::new(false),
            members: Mutex::default(),
        }
    }

    /// As [`FileInput::is_file`], as far as anybody looked.
    pub(super) fn may_be(&self, file: (u64, u64)) -> bool {
        self.stat.is_none() || self.is_file(file)
    }

    /// Whether it is this device's file of this inode.
    pub(super) fn is_file(&self, file: (u64, u64)) -> bool {
        self.stat.is_some_and(|stat| (stat.device, stat.inode) == file)
    }

    /// The path of a thin archive's member: as ar writes them, relative to the archive's own directory.
    pub(super) fn beside(&self, member: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(member)
    }

    /// The path that it is read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's identity, if equal identity next time means equal bytes. `None` for a file that was modified
    /// within the step of the clock, for a thin archive (its own bytes say nothing of its members) and for a pipe.
    pub fn identity(&self) -> Option<FileIdentity> {
        self.stat.filter(|_| self.proves)
    }

    /// The same for who trusts the modification time, which anybody may set: a file that only got or lost a name, as those of
    /// rustc do, is as it was.
    pub(super) fn identity_by_mtime(&self) -> Option<FileIdentity> {
        self.stat.filter(|_| self.proves_by_mtime).map(|identity| FileIdentity { changed_ns: 0, ..identity })
    }

    /// The files that were read as members of a thin archive.
    pub fn members_read(&self) -> Vec<PathBuf> {
        let members = self.members.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        members.iter().map(|(path, _)| path.clone()).collect()
    }

    /// An error if the file, or a member that was read, was written to since. A name that leads to another file by
    /// now (a compiler renamed a new object over it) is fine: what was mapped is still the old one.
    pub fn check_unchanged(&self) -> Result<(), HostError> {
        let mut read: Vec<(&Path, FileIdentity)> = Vec::new();
        if self.has_changed.load(Ordering::Relaxed) {
            return Err(HostError::InputChanged { path: self.path.clone() });
        }
        let members = self.members.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(&stat) = self.read.get() {
            read.push((&self.path, stat));
        }
        read.extend(members.iter().map(|(path, identity)| (path.as_path(), *identity)));
        for (path, before) in read {
            match self.io.stat(path) {
                Ok(now) if written_to(before, now.identity) => {
                    return Err(HostError::InputChanged { path: path.to_owned() });
                }
                // Removed since: what was mapped is still there.
                _ => {}
            }
        }
        Ok(())
    }

    /// Notes that the file is not what it was when it was looked at.
    fn changed(&self) -> io::Error {
        self.has_changed.store(true, Ordering::Relaxed);
        io::Error::other("changed while it was being linked; link again")
    }

    /// Reads one file, whose identity must be `expected` if there is an expectation.
    fn load(&self, path: &Path, expected: Option<FileIdentity>) -> io::Result<(Bytes, FileIdentity)> {
        let file = self.io.open_read(path)?;
        let before = self.io.stat_file(&file)?;
        match before.kind {
            FileKind::Regular => {}
            FileKind::Directory => return Err(io::ErrorKind::IsADirectory.into()),
            // A pipe: no size to go by, and nothing to compare.
            _ => return Ok((Bytes::from(self.io.read_to_end(&file)?), before.identity)),
        }
        if expected.is_some_and(|identity| !identity.same_bytes(&before.identity)) {
            return Err(self.changed());
        }
        let size = usize::try_from(before.identity.size).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let bytes = if before.identity.size < MAP_BYTES_MIN {
            Bytes::from(self.io.read_at(&file, 0, size)?)
        } else {
            self.io.map(&file, size)?
        };
        if !self.io.stat_file(&file)?.identity.same_bytes(&before.identity) || bytes.len() != size {
            return Err(self.changed());
        }
        Ok((bytes, before.identity))
    }
}

/// A name more or less, or another mode, is no write: rustc's objects get names while they are linked.
fn written_to(before: FileIdentity, now: FileIdentity) -> bool {
    (before.device, before.inode) == (now.device, now.inode) && !before.same_bytes(&now)
}

impl InputSource for FileInput {
    fn content_hash(&self, scratch: &mut Vec<u8>) -> io::Result<u64> {
        let Some(expected) = self.stat else { return Ok(XxHash3_64::oneshot(&self.bytes()?)) };
        let file = self.io.open_read(&self.path)?;
        scratch.resize(scratch.len().max(HASH_BUFFER_BYTES), 0);
        let (mut hasher, mut offset) = (XxHash3_64::new(), 0);
        loop {
            let rest = usize::try_from(expected.size - offset).unwrap_or(usize::MAX);
            let wanted = &mut scratch[..rest.min(HASH_BUFFER_BYTES)];
            if self.io.read_into(&file, offset, wanted)? < wanted.len() {
                return Err(self.changed());
            }
            offset += wanted.len() as u64;
            hasher.write(wanted);
            if offset == expected.size {
                break;
            }
        }
        // Nothing but the hash is used of it: what is written from here on is for the next link to see.
        match self.io.stat_file(&file)?.identity.same_bytes(&expected) {
            true => Ok(hasher.finish()),
            false => Err(self.changed()),
        }
    }

    fn bytes(&self) -> io::Result<Bytes> {
        let (bytes, stat) = self.load(&self.path, self.stat)?;
        self.read.get_or_init(|| stat);
        Ok(bytes)
    }

    fn member(&self, path: &str) -> io::Result<Bytes> {
        let path = self.beside(path);
        let (bytes, identity) = self.load(&path, None)?;
        self.members.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((path, identity));
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::super::io::SystemIo;
    use super::*;

    fn input(path: &Path, thin: bool) -> FileInput {
        FileInput::new(Arc::new(SystemIo), path.to_owned(), &SystemIo.stat(path).unwrap(), thin)
    }

    fn age(path: &Path) {
        let file = std::fs::File::options().append(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
        // The time of the last change can't be set.
        std::thread::sleep(Duration::from_millis(40));
    }

    #[test]
    fn small_files_are_read_and_large_ones_mapped() {
        let dir = tempfile::tempdir().unwrap();
        for size in [0, 1, (16 << 10) - 1, 16 << 10, 300_000] {
            let path = dir.path().join("a.o");
            std::fs::write(&path, vec![7; size]).unwrap();
            assert_eq!(input(&path, false).bytes().unwrap(), vec![7; size]);
        }
    }

    #[test]
    fn hash_is_that_of_the_bytes_and_notices_a_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.o");
        let mut scratch = Vec::new();
        for size in [0, 1, 241, HASH_BUFFER_BYTES - 1, HASH_BUFFER_BYTES, 3 * HASH_BUFFER_BYTES + 7] {
            let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            let input = input(&path, false);
            assert_eq!(input.content_hash(&mut scratch).unwrap(), XxHash3_64::oneshot(&bytes), "{size}");
            input.check_unchanged().unwrap();
            for other in
                [&[&bytes[..], b"x"].concat(), &bytes[..size / 2]].into_iter().filter(|new| new.len() != size)
            {
                std::fs::write(&path, other).unwrap();
                let error = input.content_hash(&mut scratch).map(|_| ()).unwrap_err();
                assert!(error.to_string().contains("changed while"), "{size}: {error}");
                assert!(input.check_unchanged().is_err());
            }
        }
    }

    #[test]
    fn identity_is_not_given_where_it_proves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.o");
        std::fs::write(&path, b"x").unwrap();
        assert_eq!(input(&path, false).identity(), None, "written a moment ago");
        assert_eq!(input(&path, false).identity_by_mtime(), None);
        let file = std::fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
        assert_eq!(input(&path, false).identity(), None, "changed a moment ago");
        assert_eq!(input(&path, false).identity_by_mtime().unwrap().size, 1);
        assert_eq!(input(&path, true).identity_by_mtime(), None, "thin");
        age(&path);
        assert_eq!(input(&path, false).identity().unwrap().size, 1);
        assert_eq!(input(&path, true).identity(), None, "thin");
    }

    #[test]
    fn file_written_to_between_stat_and_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.o");
        std::fs::write(&path, b"old").unwrap();
        age(&path);
        let input = input(&path, false);
        std::fs::write(&path, b"new").unwrap();
        assert!(input.bytes().unwrap_err().to_string().contains("changed while"));
    }

    #[test]
    fn file_written_to_after_the_read_is_an_error_and_one_replaced_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.o");
        std::fs::write(&path, b"old").unwrap();
        age(&path);
        let (read, unread) = (input(&path, false), input(&path, false));
        read.bytes().unwrap();
        read.check_unchanged().unwrap();
        std::fs::write(dir.path().join("b.o"), b"new").unwrap();
        std::fs::rename(&path, dir.path().join("c.o")).unwrap();
        std::fs::rename(dir.path().join("b.o"), &path).unwrap();
        read.check_unchanged().unwrap();
        std::fs::rename(dir.path().join("c.o"), &path).unwrap();
        read.check_unchanged().unwrap();
        std::fs::write(&path, b"older").unwrap();
        assert!(read.check_unchanged().is_err());
        unread.check_unchanged().unwrap();
    }

    #[test]
    fn thin_members_are_found_beside_their_archive() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/m.o"), b"member").unwrap();
        std::fs::write(dir.path().join("lib.a"), b"!<thin>\n").unwrap();
        let input = input(&dir.path().join("lib.a"), true);
        assert_eq!(input.member("sub/m.o").unwrap(), "member");
        assert_eq!(input.member("none.o").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(input.members_read(), [dir.path().join("sub/m.o")]);
        age(&dir.path().join("sub/m.o"));
        assert!(input.check_unchanged().is_err());
    }
}

//! A file system that fails on demand, for tests of what a failure leaves behind; and one whose files change while they
//! are read, whose clock is wrong, and that counts how often it is asked.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use relink_engine::image::ImageMemory;
use relink_formats::Bytes;

use super::io::{Dir, Io, Open, Stat, SystemIo};

/// What happens at the chosen call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This one call fails with an error number (28 is a full disk); a write puts down half of its bytes before.
    Fail(i32),
    /// The process is as good as killed: this call (a write half done) and every later one fails, reads too.
    Kill,
}

/// Counts the calls that change something, and makes one of them fail. Everything else goes to [`SystemIo`].
#[derive(Debug)]
pub struct FaultyIo {
    inner: SystemIo,
    at: Option<(usize, Fault)>,
    mutations: AtomicUsize,
    written: AtomicU64,
    no_exchange: bool,
    no_memory: bool,
    dead: AtomicBool,
    looks: AtomicUsize,
    clock_offset_ns: i64,
    owner: Option<u32>,
    meddler: Option<Meddler>,
}

/// Called with the path of each file that was opened to be read.
struct Meddler(Box<dyn Fn(&Path) + Send + Sync>);

impl fmt::Debug for Meddler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meddler")
    }
}

impl FaultyIo {
    /// Only counts.
    pub fn counting() -> FaultyIo {
        FaultyIo {
            inner: SystemIo,
            at: None,
            mutations: AtomicUsize::new(0),
            written: AtomicU64::new(0),
            no_exchange: false,
            no_memory: false,
            dead: AtomicBool::new(false),
            looks: AtomicUsize::new(0),
            clock_offset_ns: 0,
            owner: None,
            meddler: None,
        }
    }

    /// A file system that can't exchange names.
    pub fn without_exchange(self) -> FaultyIo {
        FaultyIo { no_exchange: true, ..self }
    }

    /// A file system on which a file can't be memory to write to.
    pub fn without_memory(self) -> FaultyIo {
        FaultyIo { no_memory: true, ..self }
    }

    /// A machine whose clock is wrong by so many nanoseconds. Times of files that the kernel sets are right.
    pub fn with_clock(self, offset_ns: i64) -> FaultyIo {
        FaultyIo { clock_offset_ns: offset_ns, ..self }
    }

    /// A file system all of whose directories belong to this user.
    pub fn with_owner(self, owner: u32) -> FaultyIo {
        FaultyIo { owner: Some(owner), ..self }
    }

    /// Somebody who may do something to a file between the moment it is opened to be read and the read.
    pub fn with_meddler(self, meddler: impl Fn(&Path) + Send + Sync + 'static) -> FaultyIo {
        FaultyIo { meddler: Some(Meddler(Box::new(meddler))), ..self }
    }

    /// How many calls asked something: opened, listed, read, or took the `stat` of a file or directory.
    pub fn looks(&self) -> usize {
        self.looks.load(Ordering::SeqCst)
    }

    /// Call number `index` (from 0) of those that change something meets `fault`.
    pub fn at(index: usize, fault: Fault) -> FaultyIo {
        FaultyIo { at: Some((index, fault)), ..FaultyIo::counting() }
    }

    /// How many calls changed something, or tried to.
    pub fn mutations(&self) -> usize {
        self.mutations.load(Ordering::SeqCst)
    }

    /// How many bytes were written to files or copied between them.
    pub fn bytes_written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    fn count(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::SeqCst);
    }

    fn alive(&self) -> io::Result<()> {
        match self.dead.load(Ordering::SeqCst) {
            true => Err(io::Error::other("the process was killed before this call")),
            false => Ok(()),
        }
    }

    /// Counts a call that asks something.
    fn look(&self) -> io::Result<()> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.alive()
    }

    /// Counts a changing call; an error if it is the chosen one.
    fn mutate(&self) -> io::Result<()> {
        self.alive()?;
        let index = self.mutations.fetch_add(1, Ordering::SeqCst);
        match self.at {
            Some((at, Fault::Fail(number))) if at == index => Err(io::Error::from_raw_os_error(number)),
            Some((at, Fault::Kill)) if at == index => {
                self.dead.store(true, Ordering::SeqCst);
                Err(io::Error::other("the process was killed in this call"))
            }
            _ => Ok(()),
        }
    }
}

impl Io for FaultyIo {
    fn open_read(&self, path: &Path) -> io::Result<File> {
        self.look()?;
        let file = self.inner.open_read(path)?;
        if let Some(Meddler(meddle)) = &self.meddler {
            meddle(path);
        }
        Ok(file)
    }
    fn open_dir(&self, path: &Path) -> io::Result<Dir> {
        self.look()?;
        self.inner.open_dir(path)
    }
    fn open_dir_at(&self, dir: &Dir, name: &OsStr) -> io::Result<Dir> {
        self.look()?;
        self.inner.open_dir_at(dir, name)
    }
    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.look()?;
        self.inner.stat(path)
    }
    fn stat_at(&self, dir: &Dir, name: &OsStr) -> io::Result<Stat> {
        self.look()?;
        self.inner.stat_at(dir, name)
    }
    fn stat_file(&self, file: &File) -> io::Result<Stat> {
        self.look()?;
        self.inner.stat_file(file)
    }
    fn stat_dir(&self, dir: &Dir) -> io::Result<Stat> {
        self.look()?;
        let stat = self.inner.stat_dir(dir)?;
        Ok(Stat { owner: self.owner.unwrap_or(stat.owner), ..stat })
    }
    fn is_procfs(&self, dir: &Dir) -> io::Result<bool> {
        self.look()?;
        self.inner.is_procfs(dir)
    }

    fn read_link_at(&self, dir: &Dir, name: &OsStr) -> io::Result<PathBuf> {
        self.look()?;
        self.inner.read_link_at(dir, name)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.look()?;
        self.inner.list(path)
    }
    fn list_dir(&self, dir: &Dir) -> io::Result<Vec<(OsString, u64)>> {
        self.look()?;
        self.inner.list_dir(dir)
    }
    fn read_into(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.look()?;
        self.inner.read_into(file, offset, buffer)
    }
    fn read_to_end(&self, file: &File) -> io::Result<Vec<u8>> {
        self.look()?;
        self.inner.read_to_end(file)
    }
    fn open_pipe(&self, path: &Path, write: bool) -> io::Result<File> {
        self.look()?;
        self.inner.open_pipe(path, write)
    }
    fn read_now(&self, file: &File, length: usize) -> io::Result<Vec<u8>> {
        self.look()?;
        self.inner.read_now(file, length)
    }
    fn map(&self, file: &File, length: usize) -> io::Result<Bytes> {
        self.look()?;
        self.inner.map(file, length)
    }
    fn is_alone(&self, file: &File) -> io::Result<bool> {
        self.look()?;
        self.inner.is_alone(file)
    }
    fn now_ns(&self) -> i64 {
        self.inner.now_ns() + self.clock_offset_ns
    }

    fn open_at(&self, dir: &Dir, name: &OsStr, how: Open) -> io::Result<File> {
        if how.mutates() {
            self.mutate()?
        } else {
            self.look()?
        }
        self.inner.open_at(dir, name, how)
    }
    fn open_stream(&self, path: &Path) -> io::Result<File> {
        self.mutate()?;
        self.inner.open_stream(path)
    }
    fn make_dir(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        self.mutate()?;
        self.inner.make_dir(dir, name)
    }
    fn write_all(&self, file: &File, bytes: &[u8]) -> io::Result<()> {
        let alive = self.alive();
        self.mutate().inspect_err(|_| {
            if alive.is_ok() {
                // What a full disk, or a kill in the middle of a write, leaves behind.
                let _ = self.inner.write_all(file, &bytes[..bytes.len() / 2]);
            }
        })?;
        self.count(bytes.len() as u64);
        self.inner.write_all(file, bytes)
    }
    fn write_at(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let alive = self.alive();
        self.mutate().inspect_err(|_| {
            if alive.is_ok() {
                let _ = self.inner.write_at(file, offset, &bytes[..bytes.len() / 2]);
            }
        })?;
        self.count(bytes.len() as u64);
        self.inner.write_at(file, offset, bytes)
    }
    fn set_length(&self, file: &File, length: u64) -> io::Result<()> {
        self.mutate()?;
        self.inner.set_length(file, length)
    }
    fn copy(&self, from: &File, to: &File, length: u64) -> io::Result<u64> {
        let alive = self.alive();
        self.mutate().inspect_err(|_| {
            if alive.is_ok() {
                let _ = self.inner.copy(from, to, length / 2);
            }
        })?;
        let copied = self.inner.copy(from, to, length)?;
        self.count(copied);
        Ok(copied)
    }
    fn map_new(&self, file: &File, length: usize) -> io::Result<Box<dyn ImageMemory>> {
        self.mutate()?;
        if self.no_memory {
            return Err(io::Error::from_raw_os_error(95)); // EOPNOTSUPP, as those say that can't.
        }
        self.count(length as u64);
        self.inner.map_new(file, length)
    }
    fn set_mode(&self, file: &File, mode: u32) -> io::Result<()> {
        self.mutate()?;
        self.inner.set_mode(file, mode)
    }
    fn set_owner(&self, file: &File, owner: u32, group: u32) -> io::Result<()> {
        self.mutate()?;
        self.inner.set_owner(file, owner, group)
    }
    fn rename(&self, from: &Dir, old: &OsStr, to: &Dir, new: &OsStr) -> io::Result<()> {
        self.mutate()?;
        self.inner.rename(from, old, to, new)
    }
    fn hard_link(&self, from: &Path, dir: &Dir, name: &OsStr) -> io::Result<()> {
        self.mutate()?;
        self.inner.hard_link(from, dir, name)
    }

    fn exchange(&self, from: &Dir, old: &OsStr, to: &Dir, new: &OsStr) -> io::Result<()> {
        self.mutate()?;
        if self.no_exchange {
            return Err(io::Error::from_raw_os_error(22)); // EINVAL, as those say that can't.
        }
        self.inner.exchange(from, old, to, new)
    }
    fn link(&self, from: &Dir, old: &OsStr, to: &Dir, new: &OsStr) -> io::Result<()> {
        self.mutate()?;
        self.inner.link(from, old, to, new)
    }
    fn set_modified(&self, dir: &Dir, name: &OsStr, time_ns: i64) -> io::Result<()> {
        self.mutate()?;
        self.inner.set_modified(dir, name, time_ns)
    }
    fn remove(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        self.mutate()?;
        self.inner.remove(dir, name)
    }
    fn lock(&self, file: &File) -> io::Result<()> {
        self.mutate()?;
        self.inner.lock(file)
    }
}

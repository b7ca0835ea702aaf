//! A file system of a few files in memory, for judges of what a command line names. Nothing can be written.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use relink::ImageMemory;
use relink::host::{Dir, Io, Open, Stat, SystemIo};
use relink_formats::Bytes;

/// The files, all in one folder without a name.
#[derive(Debug, Default)]
pub struct MemoryIo {
    files: HashMap<PathBuf, File>,
}

impl MemoryIo {
    /// A file system with these files.
    ///
    /// # Panics
    /// If the kernel gives no memory for them.
    pub fn new<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> MemoryIo {
        let open = |(name, bytes): (&str, &[u8])| {
            let memory = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC);
            let mut file = File::from(memory.expect("files in memory"));
            file.write_all(bytes).expect("memory can be written");
            (PathBuf::from(name), file)
        };
        MemoryIo { files: files.into_iter().map(open).collect() }
    }

    fn find(&self, path: &Path) -> io::Result<&File> {
        let path = path.strip_prefix(".").unwrap_or(path);
        self.files.get(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

impl Io for MemoryIo {
    fn open_read(&self, path: &Path) -> io::Result<File> {
        self.find(path)?.try_clone()
    }
    fn open_dir(&self, _: &Path) -> io::Result<Dir> {
        refused()
    }
    fn open_dir_at(&self, _: &Dir, _: &OsStr) -> io::Result<Dir> {
        refused()
    }
    fn stat(&self, path: &Path) -> io::Result<Stat> {
        SystemIo.stat_file(self.find(path)?)
    }
    fn stat_at(&self, _: &Dir, _: &OsStr) -> io::Result<Stat> {
        refused()
    }
    fn stat_file(&self, file: &File) -> io::Result<Stat> {
        SystemIo.stat_file(file)
    }
    fn stat_dir(&self, _: &Dir) -> io::Result<Stat> {
        refused()
    }
    fn is_procfs(&self, _: &Dir) -> io::Result<bool> {
        Ok(false)
    }

    fn read_link_at(&self, _: &Dir, _: &OsStr) -> io::Result<PathBuf> {
        refused()
    }
    fn list(&self, _: &Path) -> io::Result<Vec<OsString>> {
        Ok(self.files.keys().map(|path| path.as_os_str().to_owned()).collect())
    }
    fn list_dir(&self, _: &Dir) -> io::Result<Vec<(OsString, u64)>> {
        refused()
    }
    fn read_into(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        SystemIo.read_into(file, offset, buffer)
    }
    fn read_to_end(&self, file: &File) -> io::Result<Vec<u8>> {
        // From the start: all handles of a file share one position.
        let size = SystemIo.stat_file(file)?.identity.size;
        SystemIo.read_at(file, 0, usize::try_from(size).unwrap_or(usize::MAX))
    }
    fn open_pipe(&self, _: &Path, _: bool) -> io::Result<File> {
        refused()
    }
    fn read_now(&self, _: &File, _: usize) -> io::Result<Vec<u8>> {
        refused()
    }
    fn map(&self, file: &File, length: usize) -> io::Result<Bytes> {
        Ok(SystemIo.read_at(file, 0, length)?.into())
    }
    fn is_alone(&self, _: &File) -> io::Result<bool> {
        Ok(false)
    }
    fn now_ns(&self) -> i64 {
        SystemIo.now_ns()
    }

    fn open_at(&self, _: &Dir, _: &OsStr, _: Open) -> io::Result<File> {
        refused()
    }
    fn open_stream(&self, _: &Path) -> io::Result<File> {
        refused()
    }
    fn make_dir(&self, _: &Dir, _: &OsStr) -> io::Result<()> {
        refused()
    }
    fn write_all(&self, _: &File, _: &[u8]) -> io::Result<()> {
        refused()
    }
    fn write_at(&self, _: &File, _: u64, _: &[u8]) -> io::Result<()> {
        refused()
    }
    fn set_length(&self, _: &File, _: u64) -> io::Result<()> {
        refused()
    }
    fn copy(&self, _: &File, _: &File, _: u64) -> io::Result<u64> {
        refused()
    }
    fn map_new(&self, _: &File, _: usize) -> io::Result<Box<dyn ImageMemory>> {
        refused()
    }
    fn set_mode(&self, _: &File, _: u32) -> io::Result<()> {
        refused()
    }
    fn set_owner(&self, _: &File, _: u32, _: u32) -> io::Result<()> {
        refused()
    }
    fn rename(&self, _: &Dir, _: &OsStr, _: &Dir, _: &OsStr) -> io::Result<()> {
        refused()
    }
    fn hard_link(&self, _: &Path, _: &Dir, _: &OsStr) -> io::Result<()> {
        refused()
    }
    fn exchange(&self, _: &Dir, _: &OsStr, _: &Dir, _: &OsStr) -> io::Result<()> {
        refused()
    }
    fn link(&self, _: &Dir, _: &OsStr, _: &Dir, _: &OsStr) -> io::Result<()> {
        refused()
    }
    fn set_modified(&self, _: &Dir, _: &OsStr, _: i64) -> io::Result<()> {
        refused()
    }
    fn remove(&self, _: &Dir, _: &OsStr) -> io::Result<()> {
        refused()
    }
    fn lock(&self, _: &File) -> io::Result<()> {
        refused()
    }
}

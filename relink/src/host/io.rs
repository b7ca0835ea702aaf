//! The one door to the file system: every call that [`host`](crate::host) makes goes through [`Io`].
//!
//! Two reasons. A test can make any single call fail, or stop the world after it ([`FaultyIo`](super::FaultyIo)).
//! And the whole list of what the linker ever does to a disk stands here, to be read in one go.
//!
//! Names below a directory are given relative to an open [`Dir`], so that nobody who may write to a parent
//! directory can swap a folder between the check of its owner and its use.

use std::ffi::{OsStr, OsString};
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use relink_engine::image::ImageMemory;
use relink_engine::input::FileIdentity;
use relink_formats::Bytes;
use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags, RenameFlags, Timespec, Timestamps};

use super::map;

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A plain file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link; only from calls that do not follow one.
    Symlink,
    /// The null device, whatever its name.
    Null,
    /// Pipe, terminal, socket, device.
    Stream,
}

/// What `stat` tells.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits (0o7777).
    pub mode: u32,
    /// Owner.
    pub owner: u32,
    /// Group.
    pub group: u32,
    /// Names of the file; 0 once it is removed.
    pub links: u64,
    /// Device, inode, size and times.
    pub identity: FileIdentity,
}

/// How [`Io::open_at`] opens a file. None of them follows a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// To read.
    Read,
    /// A new file to read and write with mode `0o777 & ~umask` (or `0o600`); fails if the name is taken.
    CreateNew {
        /// `0o600` instead.
        private: bool,
    },
    /// A file that is there, to read and write at offsets; an error if it is a program that runs.
    Extend,
    /// Its end, to write, and all of it to read; made with mode 0600 if it does not exist.
    Append,
    /// To lock; made with mode 0600 if it does not exist.
    Lock,
}

impl Open {
    /// Whether the call can change the disk.
    pub fn mutates(self) -> bool {
        self != Open::Read
    }
}

/// An open directory and the name it was opened by.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    /// For messages.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The calls. Reading ones first, then those that change something.
pub trait Io: Send + Sync + Debug {
    /// Opens a file to read it.
    fn open_read(&self, path: &Path) -> io::Result<File>;
    /// Opens a directory.
    fn open_dir(&self, path: &Path) -> io::Result<Dir>;
    /// Opens a directory inside another; a symbolic link is an error.
    fn open_dir_at(&self, dir: &Dir, name: &OsStr) -> io::Result<Dir>;
    /// What a path leads to, through links.
    fn stat(&self, path: &Path) -> io::Result<Stat>;
    /// What a name in a directory is; does not follow a link.
    fn stat_at(&self, dir: &Dir, name: &OsStr) -> io::Result<Stat>;
    /// What an open file is.
    fn stat_file(&self, file: &File) -> io::Result<Stat>;
    /// What an open directory is.
    fn stat_dir(&self, dir: &Dir) -> io::Result<Stat>;
    /// Where a symbolic link points.
    fn read_link_at(&self, dir: &Dir, name: &OsStr) -> io::Result<PathBuf>;
    /// Whether a directory is of procfs, whose links lead to open files, whatever their text says.
    fn is_procfs(&self, dir: &Dir) -> io::Result<bool>;
    /// Names in a directory, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;
    /// Names in an open directory and the inodes that they lead to, in no order.
    fn list_dir(&self, dir: &Dir) -> io::Result<Vec<(OsString, u64)>>;
    /// Fills a buffer from `offset`; how many bytes there were, fewer only at the end of the file.
    fn read_into(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Reads at most `length` bytes from `offset`; fewer only at the end of the file.
    fn read_at(&self, file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let read = self.read_into(file, offset, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }
    /// Reads a stream to its end.
    fn read_to_end(&self, file: &File) -> io::Result<Vec<u8>>;
    /// Opens one end of a pipe that is there; neither this nor reading waits for anything. What is no pipe is an error.
    fn open_pipe(&self, path: &Path, write: bool) -> io::Result<File>;
    /// Reads at most `length` bytes of what such a pipe holds at this moment.
    fn read_now(&self, file: &File, length: usize) -> io::Result<Vec<u8>>;
    /// Maps the first `length` bytes of a file.
    fn map(&self, file: &File, length: usize) -> io::Result<Bytes>;
    /// Whether nobody else has a file, which is open to write, open or mapped; also true if the system can't tell.
    fn is_alone(&self, file: &File) -> io::Result<bool>;
    /// The clock, nanoseconds since 1970.
    fn now_ns(&self) -> i64;

    /// Opens a file of a directory.
    fn open_at(&self, dir: &Dir, name: &OsStr, how: Open) -> io::Result<File>;
    /// Opens a pipe, terminal or device to write into it; creates and truncates nothing.
    fn open_stream(&self, path: &Path) -> io::Result<File>;
    /// Makes a directory with mode 0700.
    fn make_dir(&self, dir: &Dir, name: &OsStr) -> io::Result<()>;
    /// Writes at the file's position.
    fn write_all(&self, file: &File, bytes: &[u8]) -> io::Result<()>;
    /// Writes at an offset.
    fn write_at(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes a file longer (zeros) or shorter.
    fn set_length(&self, file: &File, length: u64) -> io::Result<()>;
    /// Copies the first `length` bytes of a file to the start of another, which is new; shares blocks where the file
    /// system can. How many bytes were copied rather than shared.
    fn copy(&self, from: &File, to: &File, length: u64) -> io::Result<u64>;
    /// A new file of `length` zeros as memory, with its room on the disk; an error where there can be none, which is no
    /// reason to give up: its bytes can be written as well.
    fn map_new(&self, file: &File, length: usize) -> io::Result<Box<dyn ImageMemory>>;
    /// Sets the permission bits.
    fn set_mode(&self, file: &File, mode: u32) -> io::Result<()>;
    /// Sets owner and group.
    fn set_owner(&self, file: &File, owner: u32, group: u32) -> io::Result<()>;
    /// Puts a name in the place of another, at once.
    fn rename(&self, from: &Dir, old: &OsStr, to: &Dir, new: &OsStr) -> io::Result<()>;
    /// Gives a file a name more.
    fn hard_link(&self, from: &Path, dir: &Dir, name: &OsStr) -> io::Result<()>;
    /// Makes each of two names that of the other's file, at once.
    fn exchange(&self, from: &Dir, old: &OsStr, to: &Dir, new: &OsStr) -> io::Result<()>;
    /// Gives a file a second name, which must be free.
    fn link(&self, from: &Dir, old: &OsStr, to: &Dir, new: &OsStr) -> io::Result<()>;
    /// Sets when a file was modified; does not follow a link.
    fn set_modified(&self, dir: &Dir, name: &OsStr, time_ns: i64) -> io::Result<()>;
    /// Removes a name of a file.
    fn remove(&self, dir: &Dir, name: &OsStr) -> io::Result<()>;
    /// Waits for the exclusive lock of a file; the kernel gives it back when the process ends.
    fn lock(&self, file: &File) -> io::Result<()>;
}

/// The real one.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemIo;

const NS_PER_S: i64 = 1_000_000_000;

fn stat_of(stat: &fs::Stat) -> Stat {
    let kind = match fs::FileType::from_raw_mode(stat.st_mode) {
        fs::FileType::RegularFile => FileKind::Regular,
        fs::FileType::Directory => FileKind::Directory,
        fs::FileType::Symlink => FileKind::Symlink,
        fs::FileType::CharacterDevice if (fs::major(stat.st_rdev), fs::minor(stat.st_rdev)) == (1, 3) => {
            FileKind::Null
        }
        _ => FileKind::Stream,
    };
    let time = |seconds: i64, nanoseconds: u64| {
        seconds.saturating_mul(NS_PER_S).saturating_add(i64::try_from(nanoseconds).unwrap_or(0))
    };
    Stat {
        kind,
        mode: stat.st_mode & 0o7777,
        owner: stat.st_uid,
        group: stat.st_gid,
        links: stat.st_nlink,
        identity: FileIdentity {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_ns: time(stat.st_mtime, stat.st_mtime_nsec),
            changed_ns: time(stat.st_ctime, stat.st_ctime_nsec),
        },
    }
}

const READ_DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn entries(fd: impl AsFd) -> io::Result<Vec<(OsString, u64)>> {
    let mut entries = Vec::new();
    for entry in fs::Dir::read_from(fd)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            entries.push((OsString::from_vec(name.to_vec()), entry.ino()));
        }
    }
    Ok(entries)
}

/// Copies through the kernel; false if this pair of files can't be copied so and nothing was copied.
fn copy_in_kernel(from: &File, to: &File, length: u64) -> io::Result<bool> {
    let (mut read, mut written) = (0, 0);
    while read < length {
        let chunk = usize::try_from(length - read).unwrap_or(usize::MAX).min(1 << 30);
        match fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => {}
            // Which of them depends on kernel and file system; what they share is that a plain copy still works.
            Err(
                rustix::io::Errno::XDEV
                | rustix::io::Errno::INVAL
                | rustix::io::Errno::NOSYS
                | rustix::io::Errno::OPNOTSUPP
                | rustix::io::Errno::PERM
                | rustix::io::Errno::BADF,
            ) if read == 0 => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

impl Io for SystemIo {
    fn open_read(&self, path: &Path) -> io::Result<File> {
        File::open(path)
    }

    fn open_dir(&self, path: &Path) -> io::Result<Dir> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Ok(Dir { fd: fs::open(path, READ_DIR, Mode::empty())?, path: path.to_owned() })
    }

    fn open_dir_at(&self, dir: &Dir, name: &OsStr) -> io::Result<Dir> {
        let fd = fs::openat(&dir.fd, name, READ_DIR | OFlags::NOFOLLOW, Mode::empty())?;
        Ok(Dir { fd, path: dir.path.join(name) })
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        Ok(stat_of(&fs::stat(path)?))
    }

    fn stat_at(&self, dir: &Dir, name: &OsStr) -> io::Result<Stat> {
        Ok(stat_of(&fs::statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    fn stat_file(&self, file: &File) -> io::Result<Stat> {
        Ok(stat_of(&fs::fstat(file)?))
    }

    fn stat_dir(&self, dir: &Dir) -> io::Result<Stat> {
        Ok(stat_of(&fs::fstat(&dir.fd)?))
    }

    fn read_link_at(&self, dir: &Dir, name: &OsStr) -> io::Result<PathBuf> {
        let target = fs::readlinkat(&dir.fd, name, Vec::new())?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    fn is_procfs(&self, dir: &Dir) -> io::Result<bool> {
        Ok(fs::fstatfs(&dir.fd)?.f_type == fs::PROC_SUPER_MAGIC)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let entries = entries(fs::open(path, READ_DIR, Mode::empty())?)?;
        Ok(entries.into_iter().map(|(name, _)| name).collect())
    }

    fn list_dir(&self, dir: &Dir) -> io::Result<Vec<(OsString, u64)>> {
        entries(&dir.fd)
    }

    fn read_into(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn read_to_end(&self, mut file: &File) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes)?;
        Ok(bytes)
    }

    fn open_pipe(&self, path: &Path, write: bool) -> io::Result<File> {
        let end = if write { OFlags::WRONLY } else { OFlags::RDONLY };
        let file: File = fs::open(path, end | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?.into();
        match fs::FileType::from_raw_mode(fs::fstat(&file)?.st_mode) {
            fs::FileType::Fifo => Ok(file),
            _ => Err(io::Error::other("is no pipe")),
        }
    }

    fn read_now(&self, mut file: &File, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let read = match io::Read::read(&mut file, &mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            other => other?,
        };
        bytes.truncate(read);
        Ok(bytes)
    }

    fn map(&self, file: &File, length: usize) -> io::Result<Bytes> {
        map::map_file(file, length)
    }

    fn is_alone(&self, file: &File) -> io::Result<bool> {
        map::is_alone(file)
    }

    fn now_ns(&self) -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }

    fn open_at(&self, dir: &Dir, name: &OsStr, how: Open) -> io::Result<File> {
        let private = Mode::RUSR | Mode::WUSR;
        let (flags, mode) = match how {
            // A pipe that somebody put into a state folder is no reason to wait.
            Open::Read => (OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()),
            Open::CreateNew { private: true } => (OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, private),
            Open::CreateNew { private: false } => {
                (OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, Mode::RWXU | Mode::RWXG | Mode::RWXO)
            }
            Open::Extend => (OFlags::RDWR, Mode::empty()),
            Open::Append => (OFlags::RDWR | OFlags::CREATE | OFlags::APPEND, private),
            Open::Lock => (OFlags::RDWR | OFlags::CREATE, private),
        };
        Ok(fs::openat(&dir.fd, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, mode)?.into())
    }

    fn open_stream(&self, path: &Path) -> io::Result<File> {
        Ok(fs::open(path, OFlags::WRONLY | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?.into())
    }

    fn make_dir(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        Ok(fs::mkdirat(&dir.fd, name, Mode::RWXU)?)
    }

    fn write_all(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut file, bytes)
    }

    fn write_at(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn set_length(&self, file: &File, length: u64) -> io::Result<()> {
        Ok(fs::ftruncate(file, length)?)
    }

    fn copy(&self, from: &File, to: &File, length: u64) -> io::Result<u64> {
        // It shares the whole file or nothing; one that is longer than what counts would have to be cut.
        if fs::fstat(from)?.st_size == i64::try_from(length).unwrap_or(0)
            && fs::ioctl_ficlone(to, from).is_ok()
        {
            return Ok(0);
        }
        if copy_in_kernel(from, to, length)? {
            return Ok(length);
        }
        let mut offset = 0;
        while offset < length {
            let chunk = usize::try_from(length - offset).unwrap_or(usize::MAX).min(1 << 20);
            let bytes = self.read_at(from, offset, chunk)?;
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            to.write_all_at(&bytes, offset)?;
            offset += bytes.len() as u64;
        }
        Ok(length)
    }

    fn map_new(&self, file: &File, length: usize) -> io::Result<Box<dyn ImageMemory>> {
        map::map_new(file, length)
    }

    fn set_mode(&self, file: &File, mode: u32) -> io::Result<()> {
        Ok(fs::fchmod(file, Mode::from_raw_mode(mode))?)
    }

    fn set_owner(&self, file: &File, owner: u32, group: u32) -> io::Result<()> {
        let (owner, group) = (fs::Uid::from_raw(owner), fs::Gid::from_raw(group));
        Ok(fs::fchown(file, Some(owner), Some(group))?)
    }

    fn rename(&self, from: &Dir, old: &OsStr, to: &Dir, new: &OsStr) -> io::Result<()> {
        Ok(fs::renameat(&from.fd, old, &to.fd, new)?)
    }

    fn hard_link(&self, from: &Path, dir: &Dir, name: &OsStr) -> io::Result<()> {
        Ok(fs::linkat(fs::CWD, from, &dir.fd, name, AtFlags::empty())?)
    }

    fn exchange(&self, from: &Dir, old: &OsStr, to: &Dir, new: &OsStr) -> io::Result<()> {
        Ok(fs::renameat_with(&from.fd, old, &to.fd, new, RenameFlags::EXCHANGE)?)
    }

    fn link(&self, from: &Dir, old: &OsStr, to: &Dir, new: &OsStr) -> io::Result<()> {
        Ok(fs::linkat(&from.fd, old, &to.fd, new, AtFlags::empty())?)
    }

    fn set_modified(&self, dir: &Dir, name: &OsStr, time_ns: i64) -> io::Result<()> {
        let (tv_sec, tv_nsec) = (time_ns.div_euclid(NS_PER_S), time_ns.rem_euclid(NS_PER_S));
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT as _ },
            last_modification: Timespec { tv_sec, tv_nsec },
        };
        Ok(fs::utimensat(&dir.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn remove(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        Ok(fs::unlinkat(&dir.fd, name, AtFlags::empty())?)
    }

    fn lock(&self, file: &File) -> io::Result<()> {
        loop {
            match fs::flock(file, FlockOperation::LockExclusive) {
                Err(rustix::io::Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }
}

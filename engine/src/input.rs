//! What is handed to a link.

use std::fmt;
use std::io;
use std::sync::Arc;

use formats::Bytes;
use relink_formats as formats;
use twox_hash::XxHash3_64;

/// Where the bytes of an input come from. The engine itself opens nothing.
pub trait InputSource: Send + Sync {
    /// The whole contents. Called at most once per frame, and not at all when the identity proves them unchanged.
    fn bytes(&self) -> io::Result<Bytes>;

    /// xxh3 (64 bits) of the whole contents, for those who want no more of them. `scratch` is memory that calls may share.
    fn content_hash(&self, scratch: &mut Vec<u8>) -> io::Result<u64> {
        let _ = scratch;
        Ok(XxHash3_64::oneshot(&self.bytes()?))
    }

    /// The contents of a thin archive's member; `path` is as written in the archive.
    fn member(&self, path: &str) -> io::Result<Bytes> {
        Err(io::Error::new(io::ErrorKind::NotFound, format!("no file behind the thin archive member {path}")))
    }
}

/// Bytes in memory as an input.
#[derive(Debug)]
pub struct InMemory(pub Bytes);

impl InputSource for InMemory {
    fn bytes(&self) -> io::Result<Bytes> {
        Ok(self.0.clone())
    }
}

/// What proves that a file is the one that was read before. Compared for equality, never for order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileIdentity {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Size, bytes.
    pub size: u64,
    /// Modification time, nanoseconds since 1970. Anybody may set it.
    pub mtime_ns: i64,
    /// When anything about the file changed last, its names and mode too, nanoseconds since 1970; 0 if unknown. Nobody can
    /// set it: where it alone differs, the contents are compared.
    pub changed_ns: i64,
}

impl FileIdentity {
    /// Whether nobody wrote to the file, as far as its times tell that a program may set.
    pub fn same_bytes(&self, other: &FileIdentity) -> bool {
        FileIdentity { changed_ns: 0, ..*self } == FileIdentity { changed_ns: 0, ..*other }
    }
}

/// One object or archive of the command line.
#[derive(Clone)]
pub struct Input {
    /// The name that messages show, as the user wrote it.
    pub name: String,
    /// Where its bytes come from.
    pub source: Arc<dyn InputSource>,
    /// Its identity, if its owner vouches that equal identity means equal bytes.
    pub identity: Option<FileIdentity>,
    /// Its owner vouches that it is what the last link found in its place: a patch does not look at it. A full link reads it
    /// as any other.
    pub unchanged: bool,
    /// `--whole-archive`: load all members.
    pub whole_archive: bool,
    /// `--as-needed`: a shared library is named in the output only if it defines something that is referred to.
    pub as_needed: bool,
    /// `DT_NEEDED` of a shared library that has no `DT_SONAME`: its path, or the file name that `-l` found.
    pub needed_name: Option<String>,
}

impl Input {
    /// An input from memory, without identity: its bytes are compared in each frame that it is replaced in.
    pub fn bytes(name: impl Into<String>, bytes: impl Into<Bytes>) -> Input {
        Input {
            name: name.into(),
            source: Arc::new(InMemory(bytes.into())),
            identity: None,
            unchanged: false,
            whole_archive: false,
            as_needed: false,
            needed_name: None,
        }
    }

    /// An input whose bytes are fetched when needed.
    pub fn lazy(
        name: impl Into<String>,
        identity: Option<FileIdentity>,
        source: Arc<dyn InputSource>,
    ) -> Input {
        Input {
            name: name.into(),
            source,
            identity,
            unchanged: false,
            whole_archive: false,
            as_needed: false,
            needed_name: None,
        }
    }

    /// The same with `--whole-archive`.
    pub fn whole(mut self) -> Input {
        self.whole_archive = true;
        self
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("name", &self.name).field("identity", &self.identity).finish()
    }
}

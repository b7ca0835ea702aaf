//! GNU make's job server: how many threads a link may run beside the other jobs of a build.
//!
//! The server is a pipe with a byte for each job that may be started. A process owns one job without a token; for each
//! further one it takes a byte and puts that very byte back when done.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::io::Io;

/// Tokens taken from a job server; they go back when this is dropped.
pub struct JobTokens {
    io: Arc<dyn Io>,
    back: File,
    tokens: Vec<u8>,
}

impl fmt::Debug for JobTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobTokens").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl JobTokens {
    /// Takes at most `wanted` tokens, as many as there are at this moment. `None` if `makeflags` (the variable
    /// `MAKEFLAGS`) names no server, or one that this process can't reach: make closes its pipe to rules that are not
    /// marked as recursive.
    pub fn take(io: &Arc<dyn Io>, makeflags: &str, wanted: usize) -> Option<JobTokens> {
        let (read, write) = server(makeflags)?;
        let front = io.open_pipe(&read, false).ok()?;
        let back = io.open_pipe(&write, true).ok()?;
        // Descriptors that make closed may have been opened again by somebody else.
        let pipe = |file| io.stat_file(file).ok().map(|stat| (stat.identity.device, stat.identity.inode));
        if pipe(&front)? != pipe(&back)? {
            return None;
        }
        let tokens = if wanted == 0 { Vec::new() } else { io.read_now(&front, wanted).ok()? };
        Some(JobTokens { io: io.clone(), back, tokens })
    }

    /// How many were taken.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

impl Drop for JobTokens {
    fn drop(&mut self) {
        // If make is gone, nobody needs them.
        let _ = self.io.write_all(&self.back, &self.tokens);
    }
}

/// Where tokens are read and written. The last server that is named counts.
fn server(makeflags: &str) -> Option<(PathBuf, PathBuf)> {
    let words = makeflags.split_ascii_whitespace().rev();
    let value = words
        .filter_map(|word| word.strip_prefix("--jobserver-auth=").or(word.strip_prefix("--jobserver-fds=")))
        .next()?;
    if let Some(path) = value.strip_prefix("fifo:") {
        return Some((path.into(), path.into()));
    }
    let descriptor = |text: &str| {
        let number: u32 = text.parse().ok()?;
        // Opened anew, so that reading without waiting is a matter of this process alone.
        Some(Path::new("/proc/self/fd").join(number.to_string()))
    };
    let (read, write) = value.split_once(',')?;
    Some((descriptor(read)?, descriptor(write)?))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::super::io::SystemIo;
    use super::*;

    #[test]
    fn servers() {
        let pipe = |read: &str, write: &str| {
            let path = |number: &str| PathBuf::from(format!("/proc/self/fd/{number}"));
            Some((path(read), path(write)))
        };
        for (flags, expected) in [
            ("", None),
            ("-j8", None),
            ("kj -- CFLAGS=-O2", None),
            (" -j8 --jobserver-auth=3,4", pipe("3", "4")),
            ("--jobserver-fds=5,6 -j", pipe("5", "6")),
            ("--jobserver-auth=3,4 -j --jobserver-auth=7,8", pipe("7", "8")),
            ("--jobserver-auth=-2,-2", None),
            ("--jobserver-auth=3", None),
            ("-j --jobserver-auth=fifo:/tmp/x", Some(("/tmp/x".into(), "/tmp/x".into()))),
        ] {
            assert_eq!(server(flags), expected, "{flags}");
        }
    }

    #[test]
    fn tokens_are_borrowed() {
        let io: Arc<dyn Io> = Arc::new(SystemIo);
        let (front, back) = std::io::pipe().unwrap();
        let flags = format!("--jobserver-auth={},{}", front.as_raw_fd(), back.as_raw_fd());
        std::io::Write::write_all(&mut &back, b"+-*").unwrap();
        let first = JobTokens::take(&io, &flags, 2).unwrap();
        assert_eq!(first.len(), 2);
        let second = JobTokens::take(&io, &flags, 7).unwrap();
        assert_eq!(second.len(), 1);
        assert!(JobTokens::take(&io, &flags, 7).unwrap().is_empty());
        assert!(JobTokens::take(&io, &flags, 0).unwrap().is_empty());
        drop((first, second));
        let mut all = JobTokens::take(&io, &flags, 9).unwrap();
        all.tokens.sort_unstable();
        assert_eq!(all.tokens, b"*+-");
    }

    #[test]
    fn what_is_no_server_is_left_alone() {
        let io: Arc<dyn Io> = Arc::new(SystemIo);
        let file = tempfile::tempfile().unwrap();
        let (front, mut back) = std::io::pipe().unwrap();
        let (_other_front, other_back) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut back, b"+").unwrap();
        for (read, write) in [
            (front.as_raw_fd(), file.as_raw_fd()),
            (file.as_raw_fd(), file.as_raw_fd()),
            (front.as_raw_fd(), other_back.as_raw_fd()),
            (1 << 20, 1 << 20),
        ] {
            assert!(JobTokens::take(&io, &format!("--jobserver-auth={read},{write}"), 1).is_none());
        }
    }
}

//! What can go wrong around a link: the environment, the link itself, or the check after it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use relink_engine::diagnostic::LinkError;

use crate::Violation;

/// Why there is no new output. The old one, and the state of the link that made it, are as they were.
#[derive(Debug)]
pub enum HostError {
    /// The system refused something.
    Io {
        /// What was tried, as a verb: `open`, `write to`.
        action: &'static str,
        /// What it was tried on.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The output's path can't take an output.
    BadOutput {
        /// The path as given.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file was written to while the link was reading it.
    InputChanged {
        /// The file.
        path: PathBuf,
    },
    /// The link's own errors.
    Link(LinkError),
    /// `--verify` found a difference between the image and a full link; it was not published.
    Violations(Vec<Violation>),
}

impl HostError {
    pub(super) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> HostError {
        let path = path.as_ref().to_owned();
        move |source| HostError::Io { action, path, source }
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostError::Io { action, path, source } => {
                write!(f, "cannot {action} {}: {}", path.display(), reason(source))
            }
            HostError::BadOutput { path, why } => write!(f, "cannot write output {}: {why}", path.display()),
            HostError::InputChanged { path } => {
                write!(f, "{}: changed while it was being linked; link again", path.display())
            }
            HostError::Link(error) => error.fmt(f),
            HostError::Violations(violations) => {
                write!(f, "the image differs from a full link of the same inputs:")?;
                violations.iter().try_for_each(|v| write!(f, "\n>>> invariant {}: {}", v.invariant, v.what))
            }
        }
    }
}

impl std::error::Error for HostError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            HostError::Io { source, .. } => Some(source),
            HostError::Link(error) => Some(error),
            _ => None,
        }
    }
}

impl From<LinkError> for HostError {
    fn from(error: LinkError) -> HostError {
        HostError::Link(error)
    }
}

/// The error as other linkers print it: `No such file or directory`, without Rust's `(os error 2)`.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

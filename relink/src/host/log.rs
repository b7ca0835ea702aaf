//! The history of an output: one line of JSON per link, and the command line that the last one had.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use relink_engine::report::{Counters, GateReason, SetTime};
use serde::{Deserialize, Serialize};

use super::error::HostError;
use super::io::{Dir, Io, Open};
use super::publish::{Target, locate};
use super::state::{COMMAND, LOG, StateFolder};

/// Above this size the older half of the log goes: at 1 KiB per link, a thousand links.
const LOG_BYTES_MAX: usize = 1 << 20;

/// One line of the log.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LogEntry<'a> {
    /// Milliseconds since 1970.
    pub(super) time_ms: i64,
    /// `full`, `patched`, `fell_back_full` or `failed`.
    pub(super) outcome: String,
    pub(super) total_ns: u64,
    pub(super) reasons: &'a [GateReason],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) counters: Option<&'a Counters>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) timings_ns: &'a [SetTime],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) changed_inputs: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) changed_atoms: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) notes: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// A command line, kept so that `relink verify` can link again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Arguments, response files put in their places.
    pub args: Vec<String>,
    /// Directory that relative names start from.
    pub cwd: PathBuf,
}

impl StateFolder {
    /// Appends a line. A line of less than a page is written whole or not at all, even by a process that is killed.
    pub(super) fn append_log(&self, io: &dyn Io, entry: &LogEntry<'_>) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let file = io.open_at(&self.dir, OsStr::new(LOG), Open::Append)?;
        io.write_all(&file, &line)?;
        if io.stat_file(&file)?.identity.size > LOG_BYTES_MAX as u64 {
            let text = StateFolder::read(io, &self.dir, LOG)?.unwrap_or_default();
            let half = &text[text.len() / 2..];
            let from = half.iter().position(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
            self.write(io, LOG, &half[from..]).map_err(std::io::Error::other)?;
        }
        Ok(())
    }

    /// Keeps the command line, unless it is the one that is kept already.
    pub(super) fn keep_command(&self, io: &dyn Io, command: &Command) -> Result<(), HostError> {
        let failed = |error| HostError::io("write", self.dir.path().join(COMMAND))(error);
        let text = serde_json::to_vec(command).map_err(|error| failed(error.into()))?;
        match StateFolder::read(io, &self.dir, COMMAND) {
            Ok(Some(kept)) if kept == text => Ok(()),
            _ => self.write(io, COMMAND, &text),
        }
    }

    /// The command line that was kept.
    pub(super) fn command(&self, io: &dyn Io) -> Option<Command> {
        serde_json::from_slice(&StateFolder::read(io, &self.dir, COMMAND).ok()??).ok()
    }
}

fn folder_of(io: &dyn Io, output: &Path) -> Result<Dir, HostError> {
    match locate(io, output)? {
        Target::File(slot) => StateFolder::look(io, &slot.dir, &slot.name),
        _ => Err(HostError::BadOutput { path: output.to_owned(), why: "it is no plain file" }),
    }
}

/// The history of an output, oldest first. A line that was torn by a crash is left out.
pub fn read_log(io: &dyn Io, output: &Path) -> Result<Vec<serde_json::Value>, HostError> {
    let dir = folder_of(io, output)?;
    let text = StateFolder::read(io, &dir, LOG).map_err(HostError::io("read", dir.path().join(LOG)))?;
    let text = text.unwrap_or_default();
    Ok(text.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

//! The history of an output: one line of JSON per link, and the command line that the last one had.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use relink_engine::report::{Counters, GateReason, SetTime};
use serde::{Deserialize, Serialize};

use super::error::HostError;
use super::io::{Io, Open};
use super::keep::Passing;
use super::publish::{Slot, Target, locate};
use super::state::{COMMAND, LOG, StateFolder, StateTrust};

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
    /// Appends a line, in one write: a kill may tear it, and then its reader leaves it out.
    pub(super) fn append_log(&self, io: &dyn Io, entry: &LogEntry<'_>) -> std::io::Result<()> {
        let mut file = io.open_at(&self.dir, OsStr::new(LOG), Open::Append)?;
        let stat = io.stat_file(&file)?;
        if stat.links > 1 {
            // A folder copied by hard links has a log of its own from here on.
            let text = StateFolder::read(io, &self.dir, LOG)?.unwrap_or_default();
            self.write(io, LOG, &text).map_err(std::io::Error::other)?;
            file = io.open_at(&self.dir, OsStr::new(LOG), Open::Append)?;
        }
        let size = stat.identity.size;
        let mut line = Vec::new();
        if size > 0 && io.read_at(&file, size - 1, 1)? != b"\n" {
            line.push(b'\n'); // Behind a torn line this one starts anew.
        }
        serde_json::to_writer(&mut line, entry)?;
        line.push(b'\n');
        io.write_all(&file, &line)?;
        if size > LOG_BYTES_MAX as u64 {
            let text = StateFolder::read(io, &self.dir, LOG)?.unwrap_or_default();
            let half = &text[text.len() / 2..];
            let from = half.iter().position(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
            self.write(io, LOG, &half[from..]).map_err(std::io::Error::other)?;
        }
        Ok(())
    }

    /// Keeps the command line and those of its files that will be gone, unless it is the one that is kept already and
    /// nothing of them has changed.
    pub(super) fn keep_command(
        &self,
        io: &dyn Io,
        command: &Command,
        passing: &[Passing<'_>],
        changed: bool,
    ) -> Result<(), HostError> {
        let failed = |error| HostError::io("write", self.dir.path().join(COMMAND))(error);
        let text = serde_json::to_vec(command).map_err(|error| failed(error.into()))?;
        let kept = StateFolder::read(io, &self.dir, COMMAND);
        let known = kept.is_ok_and(|kept| kept.is_some_and(|kept| kept == text));
        if changed || !known {
            self.keep_inputs(io, passing, &command.cwd);
        }
        match known {
            true => Ok(()),
            false => self.replace_by_spare(io, COMMAND, &text).map_err(failed),
        }
    }

    /// The command line that was kept, with the inputs that were.
    pub(super) fn command(&self, io: &dyn Io) -> Option<Command> {
        let command = serde_json::from_slice(&StateFolder::read(io, &self.dir, COMMAND).ok()??).ok()?;
        Some(self.with_kept_inputs(io, command))
    }
}

/// Where an output keeps its state.
pub(super) fn slot_of(io: &dyn Io, output: &Path) -> Result<Slot, HostError> {
    match locate(io, output)? {
        Target::File(slot) => Ok(slot),
        _ => Err(HostError::io("use the state of", output)(std::io::Error::other("it is no plain file"))),
    }
}

/// Says what a missing state folder means.
pub(super) fn never_linked(output: &Path, error: HostError) -> HostError {
    match error {
        HostError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            let why = std::io::Error::other("it was never linked with --incremental");
            HostError::io("use the state of", output)(why)
        }
        other => other,
    }
}

/// The history of an output, oldest first. A line that was torn by a crash is left out.
pub fn read_log(io: &dyn Io, output: &Path, trust: StateTrust) -> Result<Vec<serde_json::Value>, HostError> {
    let slot = slot_of(io, output)?;
    let dir = StateFolder::look(io, &slot.dir, &slot.name, trust);
    let dir = dir.map_err(|error| never_linked(output, error))?;
    let text = StateFolder::read(io, &dir, LOG).map_err(HostError::io("read", dir.path().join(LOG)))?;
    let text = text.unwrap_or_default();
    Ok(text.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

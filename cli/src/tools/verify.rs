//! `relink verify OUT`: the oracle in the field. A full link of the present inputs in memory, compared with what is
//! kept of the last one; and the output compared with that.

use std::path::Path;
use std::sync::Arc;

use relink::host::{self, Io, StoredLink, SystemIo};
use relink::{LinkSession, Outcome};

use super::ToolResult;
use crate::{console, ld};

pub(super) fn run(output: &Path) -> ToolResult {
    let io: Arc<dyn Io> = Arc::new(SystemIo);
    let output = std::path::absolute(output).unwrap_or_else(|_| output.to_owned());
    let stored = host::open_stored(&*io, &output, ld::trusted_state()).map_err(|error| error.to_string())?;
    let mut violations: Vec<String> = stored.output_differs.iter().cloned().collect();
    let mut session = relinked(&io, &stored)?;
    let outcome = session.resolve().map_err(|error| format!("linking the present inputs: {error}"))?;
    if let Some(change) = change_since(&session, outcome) {
        console::line(format_args!("{} is older than its inputs: {change}", output.display()));
        console::line("what is verified is what a link would make of them now");
    }
    let found = session.verify().map_err(|error| format!("linking the present inputs: {error}"))?;
    violations.extend(found.iter().map(|v| format!("invariant {}: {}", v.invariant, v.what)));
    if violations.is_empty() {
        console::line(format_args!("{}: as a full link would make it", output.display()));
        return Ok(0);
    }
    violations.iter().for_each(console::line);
    let plural = if violations.len() == 1 { "violation" } else { "violations" };
    Err(format!("{}: {} {plural}", output.display(), violations.len()))
}

/// What a link would do now; `None` if nothing, since nothing changed.
fn change_since(session: &LinkSession, outcome: Outcome) -> Option<String> {
    let report = session.report()?;
    match outcome {
        Outcome::Patched if session.patch().is_some_and(<[_]>::is_empty) => None,
        Outcome::Patched => Some(format!("{} changed", report.changed_inputs.join(", "))),
        _ if report.reasons.is_empty() => Some("a full link would be made".to_owned()),
        _ => Some(report.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
    }
}

/// A session with the inputs of the kept command line and the kept state.
fn relinked(io: &Arc<dyn Io>, stored: &StoredLink) -> Result<LinkSession, String> {
    let command = stored.command.as_ref().ok_or("no command line was kept with the state")?;
    let here = |error: std::io::Error| format!("{}: {}", command.cwd.display(), host::reason(&error));
    // Relative names of the command line start where it was given, also when they are read later.
    std::env::set_current_dir(&command.cwd).map_err(here)?;
    let recorded = ld::reread(io, &command.args).map_err(|errors| errors.join("\n"))?;
    let mut session = LinkSession::new(recorded.options).map_err(|error| error.to_string())?;
    for input in recorded.inputs.inputs {
        session.add_input(input);
    }
    let (state, image) = (stored.state.clone(), stored.image.clone());
    session.set_prior_parts(state, image);
    Ok(session)
}

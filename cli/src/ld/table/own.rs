//! Options that only this linker has; no other one must be given them.

use relink::host::StateTrust;
use relink::{GateKind, MoveKind, PlaceKind, ScheduleKind};

use super::Act::{Do, Set};
use super::{Spec, flag, with};
use crate::ld::act;
use crate::ld::value::{choice, percent, put, text};

/// Names what is other than last time.
pub(in crate::ld) const CHANGED: &str = "--changed";
/// Names a file with such names.
pub(in crate::ld) const CHANGED_LIST: &str = "--changed-list";

/// All of them; a static, so that a row of it is known by its address.
#[rustfmt::skip]
pub(in crate::ld) static OWN: &[Spec] = &[
    flag(&["--incremental"], Set(|c| c.incremental = true),
        "Keep state in .relink beside the output and patch it next time (or RELINK_INCREMENTAL=1)"),
    flag(&["--no-incremental"], Set(|c| c.incremental = false), ""),
    with(&["--code-slack"], "PERCENT", Do(|c, v| put(&mut c.tuning().code_slack_percent, percent(text(v)?))),
        "Free room after each function"),
    with(&["--data-slack"], "PERCENT", Do(|c, v| put(&mut c.tuning().data_slack_percent, percent(text(v)?))),
        "Free room after each datum"),
    with(&["--text-reserve"], "PERCENT", Do(|c, v| put(&mut c.tuning().text_reserve_percent, percent(text(v)?))),
        "Free room for code that moves"),
    with(&["--debug-slack"], "PERCENT", Do(|c, v| put(&mut c.tuning().debug_slack_percent, percent(text(v)?))),
        "Free room after each unit's debug information"),
    with(&["--move"], "POLICY", Do(|c, v| put(&mut c.tuning().move_kind, choice(text(v)?, MOVES))),
        "What becomes of code that outgrew its place: island, retarget, auto"),
    with(&["--place"], "POLICY", Do(|c, v| put(&mut c.tuning().place_kind, choice(text(v)?, PLACES))),
        "How a new place is chosen: first-fit, append"),
    with(&["--gate"], "POLICY", Do(|c, v| put(&mut c.tuning().gate_kind, choice(text(v)?, GATES))),
        "When to patch: strict; wide (functions, data and names may come and go); closed (never)"),
    with(&["--schedule"], "POLICY", Do(|c, v| put(&mut c.options.schedule_kind, choice(text(v)?, SCHEDULES))),
        "How a frame is run: single, multi"),
    with(&["--report"], "FILE", Do(|c, v| put(&mut c.report, Ok(Some(v.into())))),
        "Write outcome, reasons, counters and times as JSON (or RELINK_REPORT=FILE)"),
    flag(&["--verify"], Set(|c| c.verify = true),
        "Compare the image with a full link before it is published"),
    with(&[CHANGED], "FILE", Do(act::changed),
        "This input is another one than at the last link; those that are not named are not looked at"),
    with(&[CHANGED_LIST], "@FILE", Do(act::changed_list),
        "The same for a file with a name in each line, which may be none"),
    flag(&["--trust-state"], Set(|c| c.trust = StateTrust::Any),
        "Use the state folder of another user, or one that others may write to (or RELINK_TRUST_STATE=1)"),
    flag(&["--trust-mtime"], Set(|c| c.trust_mtime = true),
        "An input of the same size and modification time is as it was, whatever was done to it (or RELINK_TRUST_MTIME=1)"),
    with(&["--fallback-linker"], "PROGRAM", Do(|c, v| put(&mut c.fallback_linker, Ok(Some(v.into())))),
        "Run PROGRAM with the same arguments if they ask for what is not supported yet"),
];

const MOVES: &[(&str, MoveKind)] =
    &[("island", MoveKind::Island), ("retarget", MoveKind::Retarget), ("auto", MoveKind::Auto)];
const PLACES: &[(&str, PlaceKind)] = &[("first-fit", PlaceKind::FirstFit), ("append", PlaceKind::Append)];
const GATES: &[(&str, GateKind)] =
    &[("strict", GateKind::Strict), ("wide", GateKind::Wide), ("closed", GateKind::Closed)];
const SCHEDULES: &[(&str, ScheduleKind)] =
    &[("single", ScheduleKind::SingleThreaded), ("multi", ScheduleKind::MultiThreaded)];

//! What `ld.relink` does around a [`LinkSession`](crate::LinkSession), for embedders who want the same: inputs from
//! files, library search, the state folder, its lock, and publication of the output by rename.
//!
//! Nothing else of this workspace's libraries opens a file, and all of it goes through the trait [`Io`].
//!
//! ```no_run
//! use std::sync::Arc;
//! use relink::host::{self, HostRequest, InputArg, InputName, Io, SearchPath, SystemIo};
//!
//! let io: Arc<dyn Io> = Arc::new(SystemIo);
//! let object = InputArg::new(InputName::File("a.o".into()));
//! let inputs = host::resolve_inputs(&io, &SearchPath::default(), &[object]);
//! assert!(inputs.errors.is_empty());
//! let options = relink::LinkOptions { incremental: Some(Default::default()), ..Default::default() };
//! let (verify, trust, command) = (false, Default::default(), None);
//! let names_changes = false;
//! let request = HostRequest { names_changes, output: "a.out".into(), inputs, incremental: true, verify, trust, command };
//! let result = host::link(options, request, &*io)?;
//! println!("{}", result.report.outcome);
//! # Ok::<(), host::HostError>(())
//! ```

mod build_id;
mod change;
mod claim;
mod error;
mod fault;
mod input;
mod io;
mod jobserver;
mod keep;
mod link;
mod log;
mod map;
mod publish;
mod search;
mod state;
mod turns;

pub use build_id::{BuildIdCheck, check_build_id};
pub use claim::{resolve_claimed, unknown_inputs};
pub use error::{HostError, reason};
pub use fault::{Fault, FaultyIo};
pub use input::FileInput;
pub use io::{Dir, FileKind, Io, Open, Stat, SystemIo};
pub use jobserver::JobTokens;
pub use link::{
    HostRequest, HostResult, Session, StoredLink, link, link_with, open_stored, patch_with, read_file,
    while_inputs_change,
};
pub use log::{Command, read_log};
pub use publish::{write_file, write_file_with};
pub use search::{InputArg, InputName, ResolveError, ResolvedInputs, SearchPath, resolve_inputs};
pub use state::StateTrust;

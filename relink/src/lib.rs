//! relink: an incremental ELF linker as a library.
//!
//! A [`LinkSession`] links a program once; after [`LinkSession::replace_input`] the next
//! [`LinkSession::resolve`] patches the finished image, or, when the change can't be proven local, makes a
//! full link in the same process. The session does no IO of its own; [`host`] does, for those who ask.

mod content;
mod group;
#[cfg(feature = "fs")]
pub mod host;
mod session;
mod uses;

pub use content::{AtomId, ContentId, atom_ids, object_id};
pub use group::LinkGroup;
pub use relink_engine::diagnostic::{Diagnostic, LinkError, Place};
pub use relink_engine::image::ImageMemory;
pub use relink_engine::input::{FileIdentity, InMemory, Input, InputSource};
pub use relink_engine::options::{
    BuildId, DefsymValue, Discard, DynamicOptions, GateKind, HashStyle, IncrementalOptions, JustSymbols,
    LinkOptions, MoveKind, OutputKind, PlaceKind, ScheduleKind, Strip, Symbolic, Unresolved,
};
pub use relink_engine::report::{Counters, FrameReport, GateReason, Outcome, SetTime};
pub use relink_engine::store::{ColumnSize, StateLayout};
pub use relink_formats::compress::Algorithm as CompressionAlgorithm;
pub use relink_formats::expression::{Expression, ExpressionError};
pub use relink_formats::linked_symbols::{self, LinkedSymbol};
pub use relink_formats::units::{FileOffset, VirtAddr};
pub use relink_systems::Lend;
pub use session::{ImageSink, InputId, LinkSession, PatchBytes, Violation, state_layout};
pub use uses::NameUse;

//! The oracle: a full link of the present inputs in memory, laid over the image's own placement, byte by byte.
//!
//! Nothing here trusts what frames have written: every expected byte comes from pristine inputs, every resolved name
//! from a fresh resolution. Only addresses are taken from the store. All violations are collected.

mod bytes;
mod dynsym;
mod placement;
mod slots;
mod tables;

use relink_engine::diagnostic::LinkError;
use relink_engine::frame::{Frame, FrameKind, Request};
use relink_engine::image::Image;
use relink_engine::options::BuildId;
use relink_engine::program::Program;
use relink_engine::store::Store;

/// Something that is not as an invariant of ARCHITECTURE.md says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Number of the invariant.
    pub invariant: u8,
    /// What is wrong, where.
    pub what: String,
}

/// What the checks share.
pub(crate) struct Checker<'a> {
    pub store: &'a Store,
    pub image: &'a [u8],
    pub program: Program,
    pub findings: Vec<Finding>,
    /// The build-id is a digest, not given by the user.
    pub tree_id: bool,
}

impl Checker<'_> {
    pub(crate) fn report(&mut self, invariant: u8, what: String) {
        self.findings.push(Finding { invariant, what });
    }
}

/// Compares store and image with a full link of `request`'s inputs.
///
/// # Errors
/// If those inputs do not link.
pub fn verify(mut request: Request, store: &Store, image: &Image) -> Result<Vec<Finding>, LinkError> {
    if request.options.gc_sections {
        request.kept =
            placement::live_sections(store).map_err(|error| LinkError::other(error.to_string()))?;
    }
    let mut world = crate::world();
    let mut frames = crate::Frames::new(request.options.schedule_kind);
    let tree_id = matches!(request.options.build_id, BuildId::Tree { .. });
    let limit = request.options.error_limit;
    let options = request.options.clone();
    world.insert_resource(request);
    world.insert_resource(Frame { kind: FrameKind::Cold, ..Frame::default() });
    frames.derive(&mut world, 0, &mut |_| None);
    let mut frame = world.resource_mut::<Frame>();
    if !frame.errors.is_empty() {
        return Err(frame.take_errors(limit));
    }
    let program = std::mem::take(&mut *world.resource_mut::<Program>());
    let bytes = image.bytes();
    let mut checker = Checker { store, image: &bytes, program, findings: Vec::new(), tree_id };
    let result = placement::impose(&mut checker, &options).and_then(|placement| {
        bytes::check_atoms(&mut checker, &placement)?;
        bytes::check_slots(&mut checker)?;
        bytes::check_debug_units(&mut checker)?;
        tables::check_unwind(&mut checker, &placement)?;
        tables::check_symbols(&mut checker, &placement)?;
        dynsym::check_owners(&mut checker)?;
        slots::check_got(&mut checker)?;
        slots::check_dynamic(&mut checker, &options)?;
        tables::check_build_id(&mut checker)
    });
    if let Err(error) = result {
        checker.report(10, error.to_string());
    }
    Ok(checker.findings)
}

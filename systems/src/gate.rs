//! Gate: decides, before a byte is written, whether the frame is a patch.

use bevy_ecs::prelude::{Res, ResMut};
use relink_engine::frame::{Frame, FrameKind, Request};
use relink_engine::options::{DefsymValue, LinkOptions};
use relink_engine::policy::Differences;
use relink_engine::records::image_flags;
use relink_engine::report::GateReason;
use relink_engine::store::Store;

/// Lets the gate policy judge what Diff found. What is left are the reasons for a full link.
pub(crate) fn judge_differences(
    request: Res<'_, Request>,
    store: Option<Res<'_, Store>>,
    mut frame: ResMut<'_, Frame>,
) {
    let Some(options) = request.options.incremental.as_ref().filter(|_| frame.kind == FrameKind::Warm) else {
        return;
    };
    let differences = Differences {
        planned: std::mem::take(&mut frame.planned),
        beyond: std::mem::take(&mut frame.reasons),
    };
    let comes_or_goes = !differences.planned.is_empty();
    frame.reasons = crate::policies::gate(options.gate_kind).refuse(differences);
    if comes_or_goes && let Some(why) = follows_names(&request.options) {
        frame.refuse(GateReason::RelocationUnpatchable { input: String::new(), why: why.to_owned() });
    }
    // Only a full link finds out what there is to warn of, and each link has to say it.
    let warned =
        |store: &Store| store.image_record().is_ok_and(|image| image.flags & image_flags::WARNED != 0);
    if store.is_some_and(|store| warned(&store)) {
        frame.refuse(GateReason::WarningsToRepeat);
    }
}

/// Options that say something of names that a frame would have to ask again when names come and go.
fn follows_names(options: &LinkOptions) -> Option<&'static str> {
    let named = |(_, value): &(String, DefsymValue)| !matches!(value, DefsymValue::Absolute(_));
    if options.defsyms.iter().any(named) {
        Some("--defsym names symbols, and symbols come or go")
    } else if !options.just_symbols.is_empty() {
        Some("--just-symbols defines symbols, and symbols come or go")
    } else if options.retained_symbols.is_some() {
        Some("--retain-symbols-file chooses symbols, and symbols come or go")
    } else {
        None
    }
}

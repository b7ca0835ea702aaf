//! Gate: decides, before a byte is written, whether the frame is a patch.

use bevy_ecs::prelude::{Res, ResMut};
use relink_engine::frame::{Frame, FrameKind, Request};
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
    let differences = std::mem::take(&mut frame.reasons);
    frame.reasons = crate::policies::gate(options.gate_kind).refuse(differences);
    // Only a full link finds out what there is to warn of, and each link has to say it.
    let warned =
        |store: &Store| store.image_record().is_ok_and(|image| image.flags & image_flags::WARNED != 0);
    if store.is_some_and(|store| warned(&store)) {
        frame.refuse(GateReason::WarningsToRepeat);
    }
}

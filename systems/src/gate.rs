//! Gate: decides, before a byte is written, whether the frame is a patch.

use bevy_ecs::prelude::{Res, ResMut};
use relink_engine::frame::{Frame, FrameKind, Request};
use relink_engine::policy::Differences;

/// Lets the gate policy judge what Diff found. What is left are the reasons for a full link.
pub(crate) fn judge_differences(request: Res<'_, Request>, mut frame: ResMut<'_, Frame>) {
    let Some(options) = request.options.incremental.as_ref().filter(|_| frame.kind == FrameKind::Warm) else {
        return;
    };
    let differences = Differences {
        planned: std::mem::take(&mut frame.planned),
        beyond: std::mem::take(&mut frame.reasons),
    };
    frame.reasons = crate::policies::gate(options.gate_kind).refuse(differences);
}

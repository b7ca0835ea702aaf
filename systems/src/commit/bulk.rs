//! Commit of a cold frame: the program's rows are frozen into the store.

use bevy_ecs::prelude::{Commands, ResMut};
use relink_engine::frame::Frame;
use relink_engine::image::Image;
use relink_engine::program::Program;

/// Publishes the image and freezes the store.
pub(crate) fn commit_program(mut commands: Commands<'_, '_>, mut program: ResMut<'_, Program>, mut frame: ResMut<'_, Frame>) {
    if !frame.cold() {
        return;
    }
    frame.counters.bytes_written = program.image.len() as u64;
    commands.insert_resource(Image::owned(std::mem::take(&mut program.image)));
    frame.committed = true;
}

//! `-r`: objects become one object. Sections of one name are joined, symbols resolved, relocations rewritten; nothing
//! gets an address.

pub(crate) mod arrange;
pub(crate) mod symbols;
pub(crate) mod write;

use bevy_ecs::prelude::{Res, ResMut};
use relink_engine::diagnostic::Diagnostic;
use relink_engine::frame::{Frame, Request};
use relink_engine::image::ImageBytes;
use relink_engine::program::Program;

/// Joins all objects to one and writes it.
pub(crate) fn combine_objects(
    request: Res<'_, Request>,
    mut program: ResMut<'_, Program>,
    mut frame: ResMut<'_, Frame>,
) {
    if !frame.resolving() || !frame.errors.is_empty() {
        return;
    }
    let combined = arrange::arrange(&program, &request.options).and_then(|sections| {
        frame
            .warnings
            .extend(sections.warnings.iter().map(|text| Diagnostic::Other { message: text.clone() }));
        let symbols = symbols::choose(&program, &request.options, &sections);
        write::object(&program, &sections, &symbols)
    });
    match combined {
        Ok(image) => program.image = ImageBytes::Owned(image),
        Err(diagnostic) => frame.errors.push(*diagnostic),
    }
}

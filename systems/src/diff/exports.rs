//! New definitions that other modules may see. An image's table of exports has no room: such a name is for a full link.

use formats::shared_object::SharedObject;
use hashbrown::HashSet;
use relink_engine::frame::Request;
use relink_engine::records::{file_flags, image_flags};
use relink_formats as formats;

use super::Context;

/// Refuses new names that the image would have to export: all of them if the options export by rule, else those that a
/// library of the command line mentions.
pub(super) fn check_exposed_names(context: &mut Context<'_>, request: &Request) {
    let exposed = std::mem::take(&mut context.exposed);
    if exposed.is_empty() || context.plan.image.flags & image_flags::DYNAMIC == 0 {
        return;
    }
    let dynamic = &request.options.dynamic;
    let by_rule = context.plan.image.flags & image_flags::SHARED != 0
        || dynamic.export_dynamic
        || !dynamic.version_scripts.is_empty()
        || !dynamic.dynamic_lists.is_empty()
        || !dynamic.export_symbols.is_empty();
    let wanted: HashSet<Vec<u8>> = exposed.iter().map(|(name, _)| name.clone()).collect();
    let mut mentioned: HashSet<Vec<u8>> = HashSet::new();
    for (place, input) in (0..).zip(&request.inputs).filter(|_| !by_rule) {
        let file = match &context.plan.order {
            Some(order) => Ok(order.get(place as usize).copied().unwrap_or_default()),
            None => context.store.file_at(place),
        };
        // What comes is an object.
        let Some(row) = context.frame.check(file) else { return };
        if row.0 >= context.store.files.len() {
            continue;
        }
        let file = context.store.files.get(row.0);
        let Some(file) = context.frame.check(file) else { return };
        if file.flags & file_flags::SHARED == 0 {
            continue;
        }
        let library = input.source.bytes().ok().and_then(|bytes| SharedObject::parse(bytes).ok());
        let Some(library) = library else {
            // What it mentions is not known.
            return context.frame.reasons.extend(exposed.into_iter().map(|(_, reason)| reason));
        };
        let names = library.symbols.iter().map(|symbol| library.name(&symbol.name));
        mentioned.extend(names.filter(|name| wanted.contains(*name)).map(<[u8]>::to_vec));
    }
    for (name, reason) in exposed {
        if by_rule || mentioned.contains(&name) {
            context.frame.refuse(reason);
        }
    }
}

//! New definitions that other modules may see: which of them the image exports, by the same rule as a full link.

use hashbrown::HashSet;
use relink_engine::column::StoreError;
use relink_engine::frame::Request;
use relink_engine::records::{file_flags, symbol_flags};
use relink_engine::report::GateReason;
use relink_engine::rows::SymbolRow;

use super::imports::is_dynamic;
use super::{Context, Unit};
use crate::ingest::libraries::open_library;
use crate::resolve::bind::{Lists, Named};
use crate::resolve::dynamic::version_indexes;
use crate::view::text_of;

/// Plans the exports among the new names.
pub(super) fn plan_exports(
    context: &mut Context<'_>,
    request: &Request,
    units: &mut [Unit],
) -> Result<(), StoreError> {
    let exposed = std::mem::take(&mut context.exposed);
    if exposed.is_empty() || !is_dynamic(context) {
        return Ok(());
    }
    let names: HashSet<Vec<u8>> = exposed.iter().map(|(name, ..)| name.clone()).collect();
    let mentioned = mentioned_by_libraries(context, request, &names)?;
    let lists = Lists::read(context.options);
    let (Some(mentioned), Ok(lists)) = (mentioned, lists) else {
        // What libraries mention is not known.
        context.frame.reasons.extend(exposed.into_iter().map(|(.., reason)| reason));
        return Ok(());
    };
    let versions = version_indexes(&lists.nodes());
    for (name, row, _) in exposed {
        let record = context.symbol(row)?;
        let object = context.input_record(record.input)?.name;
        let object = text_of(context.store, context.plan, object);
        let named =
            Named { name: &name, object: &object, versioned: false, mentioned: mentioned.contains(&name) };
        let visible = lists.judge(&named, &record, context.options);
        let mut flags = 0;
        if visible.exported {
            flags |= symbol_flags::EXPORTED;
            let version = visible.version.and_then(|node| versions.get(usize::from(node)));
            let version = version.copied().unwrap_or(formats::dynamic::versions::VER_NDX_GLOBAL);
            context.plan.exports.push((row, version));
        }
        if visible.preemptible {
            flags |= symbol_flags::PREEMPTIBLE;
        }
        let mark = |record: &mut relink_engine::records::SymbolRecord| record.flags |= flags;
        if let Some(planned) = context.plan.symbols.get_mut(&row.0) {
            mark(planned);
        }
        for (changed, _, new) in units.iter_mut().flat_map(|unit| &mut unit.changes) {
            if *changed == row {
                mark(new);
            }
        }
    }
    Ok(())
}

/// Those of some names that libraries of the command line mention; `None` if one of them can't be asked.
fn mentioned_by_libraries(
    context: &mut Context<'_>,
    request: &Request,
    names: &HashSet<Vec<u8>>,
) -> Result<Option<HashSet<Vec<u8>>>, StoreError> {
    let mut mentioned = HashSet::new();
    for file in 0..context.store.files.len() {
        if context.store.files.get(file)?.flags & file_flags::SHARED == 0 {
            continue;
        }
        let Some(library) = open_library(request, context.store, context.plan, file)? else {
            return Ok(None);
        };
        let known = library.parsed.symbols.iter().map(|symbol| library.parsed.name(&symbol.name));
        mentioned.extend(known.filter(|name| names.contains(*name)).map(<[u8]>::to_vec));
    }
    Ok(Some(mentioned))
}

/// Whether a library of the command line mentions a symbol, as far as can be told.
pub(super) fn is_mentioned_by_library(
    context: &mut Context<'_>,
    request: &Request,
    row: SymbolRow,
) -> Result<bool, StoreError> {
    let name = context.store.strings.bytes(context.store.symbols.get(row.0)?.name)?.to_vec();
    let mentioned = mentioned_by_libraries(context, request, &HashSet::from([name]))?;
    Ok(mentioned.is_none_or(|mentioned| !mentioned.is_empty()))
}

/// What the frame would say of a name that other modules may see.
pub(super) type Exposed = (Vec<u8>, SymbolRow, GateReason);

use relink_formats as formats;

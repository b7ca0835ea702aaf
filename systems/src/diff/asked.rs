//! Names of which all mentions must be known: those that lose their definition, and those of which a member of an archive has
//! a copy from now on. A section that was dropped has no relocations, but its object mentions what it would refer to.

use std::collections::BTreeMap;

use hashbrown::HashSet;
use relink_engine::column::StoreError;
use relink_engine::records::GlobalRecord;
use relink_engine::report::GateReason;
use relink_engine::rows::SymbolRow;

use super::Context;
use super::members::{is_want, pull};
use super::rows::is_vacant_global;

/// Why it is asked, and what the frame says if something mentions the name.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    /// It is not defined any more: it would stand in the symbol table as undefined, or another member be pulled for it.
    Dropped(GateReason),
    /// Another definition prevails that may be in the link for this name alone: whoever wants it, and when, decides.
    Copied(GateReason),
}

/// Names that something mentions, or did, and why each is asked.
pub(super) type Questions = BTreeMap<SymbolRow, Asked>;

/// Looks for what inputs that do not change mention of the names that were asked. O(mentions of all objects), once, and only
/// if there is such a name.
pub(super) fn answer_questions(context: &mut Context<'_>) -> Result<(), StoreError> {
    let questions = std::mem::take(&mut context.questions);
    if questions.is_empty() {
        return Ok(());
    }
    let (mut mentioned, mut wanted) = (HashSet::new(), HashSet::new());
    find_mentions(context, |global| {
        if questions.contains_key(&global.symbol) {
            mentioned.insert(global.symbol);
            if is_want(global) {
                wanted.insert(global.symbol);
            }
        }
        true
    })?;
    for (row, asked) in questions {
        match asked {
            Asked::Dropped(reason) => {
                let wanted = wanted.contains(&row) || context.wanting.contains(&row);
                if wanted {
                    let name = context.store.strings.bytes(context.store.symbols.get(row.0)?.name)?;
                    pull(context, row, name)?;
                }
                if wanted || mentioned.contains(&row) {
                    context.frame.refuse(reason);
                }
            }
            Asked::Copied(reason) if wanted.contains(&row) || context.referenced.contains(&row) => {
                context.frame.refuse(reason);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Looks at the mentions of inputs that do not change, as long as that says so.
pub(super) fn find_mentions(
    context: &mut Context<'_>,
    mut look: impl FnMut(&GlobalRecord) -> bool,
) -> Result<(), StoreError> {
    let store = context.store;
    let mut own = HashSet::new();
    // One that comes has no row yet.
    for input in context.changed.iter().filter(|input| input.0 < store.inputs.len()) {
        let record = store.inputs.get(input.0)?;
        own.extend(record.globals.and(record.more_globals));
    }
    for at in 0..store.globals.len() {
        let global = store.globals.get(at)?;
        if !is_vacant_global(&global) && !own.contains(&at) && !look(&global) {
            context.frame.counters.mentions_examined += u64::from(at) + 1;
            return Ok(());
        }
    }
    context.frame.counters.mentions_examined += u64::from(store.globals.len());
    Ok(())
}

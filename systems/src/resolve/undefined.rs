//! Undefined symbols: one message a name, with the first references and what the user may have meant.

use formats::elf;
use hashbrown::HashSet;
use relink_engine::diagnostic::Diagnostic;
use relink_engine::frame::Frame;
use relink_engine::program::Program;
use relink_engine::records::place;
use relink_engine::rows::SymbolRow;
use relink_formats as formats;

use super::scan::site_place;

/// A reference to a name that nothing defines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Missing {
    pub symbol: SymbolRow,
    pub object: u32,
    pub section: u32,
    pub offset: u64,
}

/// Places shown for one name, as lld does.
const REFERENCES_SHOWN: usize = 3;

/// Groups the references by name, in order of first reference.
pub(crate) fn report(program: &Program, missing: Vec<Missing>, frame: &mut Frame) {
    let mut order: Vec<SymbolRow> = Vec::new();
    let mut groups: hashbrown::HashMap<SymbolRow, Vec<Missing>> = hashbrown::HashMap::new();
    for reference in missing {
        let group = groups.entry(reference.symbol).or_default();
        if group.is_empty() {
            order.push(reference.symbol);
        }
        group.push(reference);
    }
    for symbol in order {
        let group = &groups[&symbol];
        let references = group.iter().take(REFERENCES_SHOWN).map(|reference| {
            let object = &program.objects[reference.object as usize];
            site_place(object, reference.section as usize, reference.offset)
        });
        let name = String::from_utf8_lossy(program.names.of(symbol)).into_owned();
        let diagnostic = Diagnostic::UndefinedSymbol {
            references: references.collect(),
            reference_count: group.len(),
            suggestion: suggestion(program, &name),
            symbol: name,
        };
        frame.errors.push(diagnostic);
    }
}

/// What needed libraries refer to and nothing defines. A library that itself needs one which is not part of the link is
/// left alone: that one may define it.
pub(super) fn of_libraries(program: &Program) -> Vec<Diagnostic> {
    let known: HashSet<&[u8]> = program.shared.iter().map(|library| &library.needed_name[..]).collect();
    let mut defined: Option<HashSet<&[u8]>> = None;
    let mut missing = Vec::new();
    for library in program.shared.iter().filter(|library| library.needed) {
        let parsed = &library.parsed;
        if !parsed.needed.iter().all(|name| known.contains(parsed.name(name))) {
            continue;
        }
        let wanted =
            parsed.symbols.iter().filter(|symbol| !symbol.defined && symbol.binding != elf::STB_WEAK);
        for name in wanted.map(|symbol| parsed.name(&symbol.name)) {
            let ours = program.names.find(name).is_some_and(|row| {
                let atom = program.symbols[row.index()].atom;
                place::is_atom(atom) || atom == place::ABSOLUTE || atom == place::SHARED
            });
            let theirs = defined.get_or_insert_with(|| {
                let all = program.shared.iter().map(|library| &library.parsed);
                all.flat_map(|parsed| {
                    let defined = parsed.symbols.iter().filter(|symbol| symbol.defined);
                    defined.map(|symbol| parsed.name(&symbol.name))
                })
                .collect()
            });
            if !ours && !theirs.contains(name) {
                let name = String::from_utf8_lossy(name);
                let message = format!(
                    "undefined symbol: {name}\n>>> referenced by the shared library {}\n>>> (--allow-shlib-undefined lets it pass)",
                    library.name
                );
                missing.push(Diagnostic::Other { message });
            }
        }
    }
    missing
}

/// A defined name that differs in a letter or two, or only in its mangling.
fn suggestion(program: &Program, name: &str) -> Option<(String, String)> {
    let allowed = match name.len() {
        0..=2 => return None,
        3..=7 => 1,
        _ => 2,
    };
    let base = base_name(name);
    let mut best: Option<(usize, SymbolRow, String)> = None;
    for row in 0..program.globals {
        let symbol = &program.symbols[row as usize];
        if !place::is_atom(symbol.atom) {
            continue;
        }
        let Ok(other) = std::str::from_utf8(program.names.of(SymbolRow(row))) else { continue };
        let distance = if base_name(other) == base && other != name {
            0 // C against C++: the same name, mangled on one side or with other parameters.
        } else if other.len().abs_diff(name.len()) <= allowed {
            strsim::osa_distance(other, name)
        } else {
            continue;
        };
        if distance <= allowed && best.as_ref().is_none_or(|(known, ..)| distance < *known) {
            best = Some((distance, SymbolRow(row), other.to_owned()));
        }
    }
    let (_, row, other) = best?;
    let object = program.objects.get(program.symbols[row.index()].input.index())?;
    Some((other, object.name.clone()))
}

/// The identifier in a simple Itanium name (`_Z3fooi` -> `foo`); any other name is its own base.
fn base_name(name: &str) -> &str {
    let Some(rest) = name.strip_prefix("_Z") else { return name };
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let len: usize = rest[..digits].parse().unwrap_or(0);
    rest.get(digits..digits + len).filter(|base| !base.is_empty()).unwrap_or(name)
}

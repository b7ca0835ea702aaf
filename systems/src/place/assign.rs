//! Values of names that expressions define, once addresses are known.

use formats::expression::{Expression, Scope, SectionFacts, Value};
use hashbrown::HashMap;
use relink_engine::diagnostic::Diagnostic;
use relink_engine::options::LinkOptions;
use relink_engine::program::{Program, Term};
use relink_engine::records::place;
use relink_engine::rows::{AtomRow, SectionRow};
use relink_formats as formats;

/// Sections by name, with the row that their symbols refer to.
pub(crate) type Sections = HashMap<Vec<u8>, SectionFacts>;

/// The sections of a program that was just laid out.
pub(crate) fn sections_of(program: &Program) -> Sections {
    let rows = (0..).zip(&program.outputs).filter(|(_, section)| section.index != 0);
    rows.map(|(row, section)| {
        (section.name.clone(), facts(row, section.address, section.size, section.align))
    })
    .collect()
}

/// Facts of a section in the words of expressions.
pub(crate) fn facts(row: u32, address: u64, size: u64, align: u8) -> SectionFacts {
    let alignment = 1_u64.checked_shl(u32::from(align)).unwrap_or(0);
    SectionFacts { address: Value { number: address, section: Some(row) }, size, alignment }
}

/// Computes the assignments in order and gives their names addresses.
pub(crate) fn compute_assignments(
    program: &mut Program,
    options: &LinkOptions,
    sections: &Sections,
) -> Vec<Diagnostic> {
    let mut errors = Vec::new();
    for assignment in std::mem::take(&mut program.assignments) {
        let scope = Placed { program, terms: &assignment.terms, sections, options };
        match assignment.expression.evaluate(&scope) {
            Ok(value) => {
                let row = assignment.name.index();
                let atom = program.symbols[row].atom;
                if place::is_atom(atom) {
                    let atom = &mut program.atoms[atom.index()];
                    atom.address = value.number;
                    atom.output = value.section.map_or(SectionRow::default(), SectionRow);
                } else {
                    program.symbols[row].value = value.number;
                }
                if let Some(address) = program.addresses.get_mut(row) {
                    *address = value.number;
                }
            }
            Err(error) => {
                let name = String::from_utf8_lossy(program.names.of(assignment.name)).into_owned();
                errors.push(Diagnostic::Other { message: format!("--defsym {name}: {error}") });
            }
        }
        program.assignments.push(assignment);
    }
    errors
}

struct Placed<'a> {
    program: &'a Program,
    terms: &'a HashMap<String, Term>,
    sections: &'a Sections,
    options: &'a LinkOptions,
}

impl Placed<'_> {
    fn value(&self, atom: AtomRow, value: u64) -> Option<Value> {
        if atom == place::ABSOLUTE {
            return Some(Value::plain(value));
        }
        let atom = place::is_atom(atom).then(|| &self.program.atoms[atom.index()])?;
        // What has no section (an empty one was left out) moves with the image all the same.
        let section = Some(atom.output.0);
        Some(Value { number: atom.address.wrapping_add(value), section })
    }
}

impl Scope for Placed<'_> {
    fn symbol(&self, name: &str) -> Option<Value> {
        match *self.terms.get(name)? {
            Term::Name(row) => {
                let symbol = &self.program.symbols[row.index()];
                self.value(symbol.atom, symbol.value)
            }
            Term::Place(atom, value) => self.value(atom, value),
        }
    }

    fn section(&self, name: &str) -> Option<SectionFacts> {
        self.sections.get(name.as_bytes()).copied()
    }

    fn page_size(&self) -> u64 {
        self.options.max_page_size
    }

    fn header_size(&self) -> u64 {
        super::addresses::header_bytes(self.program.segments.len() as u64)
    }
}

/// Whether an expression can have another value although no symbol of it has another address: sizes of sections without
/// addresses follow the edits.
pub(crate) fn follows_sizes(expression: &Expression, is_loaded: &dyn Fn(&str) -> bool) -> bool {
    expression.sized_sections().into_iter().any(|name| !is_loaded(name))
}

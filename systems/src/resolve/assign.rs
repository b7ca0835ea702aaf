//! Names that options define: at once where that is a number or a place, else as an assignment for after the layout.

use formats::elf;
use formats::expression::{Expression, ExpressionError};
use hashbrown::HashMap;
use relink_engine::diagnostic::{Diagnostic, Place};
use relink_engine::frame::{Frame, Request};
use relink_engine::options::{DefsymValue, OutputKind};
use relink_engine::program::{Assignment, Program, Term};
use relink_engine::records::{AtomRecord, SymbolRecord, atom_flags, place, symbol_flags};
use relink_engine::rows::{AtomRow, InputRow, NONE, SymbolRow};
use relink_formats as formats;

use crate::ingest::wrap::wrapped;
use crate::place::symbols::is_linker_name;

/// Defines what `--just-symbols` lists, unless the inputs do: two strong definitions are one too many. An input's weak
/// definition makes way, as in any other case.
pub(crate) fn define_listed_symbols(request: &Request, program: &mut Program, frame: &mut Frame) {
    for list in &request.options.just_symbols {
        for symbol in list.symbols.iter() {
            let Some(row) = program.names.find(symbol.name.as_bytes()) else { continue };
            let known = program.symbols[row.index()];
            let defined = place::is_atom(known.atom) || known.atom == place::ABSOLUTE;
            if defined && (symbol.weak || known.info >> 4 != elf::STB_WEAK) {
                if !symbol.weak && !request.options.allow_multiple_definition {
                    let object = program.objects.get(known.input.index()).map(|object| object.name.clone());
                    let first = Place { object: object.unwrap_or_default(), ..Place::default() };
                    let second = Place { object: list.file.clone(), ..Place::default() };
                    let symbol = symbol.name.clone();
                    frame.errors.push(Diagnostic::DuplicateSymbol { symbol, first, second });
                }
                continue;
            }
            let record = &mut program.symbols[row.index()];
            record.atom = place::ABSOLUTE;
            record.value = symbol.address.0;
            record.size = symbol.size;
            record.input = InputRow::default();
            // The address is that of the code, or of the entry that stands for an indirect function.
            let kind = if symbol.kind == elf::STT_GNU_IFUNC { elf::STT_FUNC } else { own_type(symbol.kind) };
            record.info = (if symbol.weak { elf::STB_WEAK } else { elf::STB_GLOBAL } << 4) | kind;
            record.flags &= !(symbol_flags::COMMON | symbol_flags::TLS | symbol_flags::IFUNC);
            record.flags |= symbol_flags::OPTION;
        }
    }
}

/// Gives each name of `--defsym` its definition, which prevails over those of the inputs.
pub(crate) fn define_option_names(request: &Request, program: &mut Program, frame: &mut Frame) {
    let values: HashMap<&str, &DefsymValue> =
        request.options.defsyms.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let mut definer = Definer { request, program, values, state: HashMap::new(), late: HashMap::new() };
    for (name, _) in &request.options.defsyms {
        if let Err(error) = definer.define_with_needs(name) {
            frame.errors.push(Diagnostic::Other { message: error });
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// What it refers to is being defined.
    Begun,
    Done,
}

struct Definer<'a> {
    request: &'a Request,
    program: &'a mut Program,
    /// The last value of each name.
    values: HashMap<&'a str, &'a DefsymValue>,
    state: HashMap<&'a str, State>,
    /// Names that have an assignment, and whether it is relative.
    late: HashMap<SymbolRow, bool>,
}

impl<'a> Definer<'a> {
    /// Defines a name behind all others that its value names; a stack of our own, for chains of any length.
    fn define_with_needs(&mut self, name: &'a str) -> Result<(), String> {
        let mut stack = vec![name];
        while let Some(&name) = stack.last() {
            let Some(value) =
                self.values.get(name).copied().filter(|_| self.state.get(name) != Some(&State::Done))
            else {
                stack.pop();
                continue;
            };
            let first = self.state.insert(name, State::Begun).is_none();
            let mut needs = Vec::new();
            for symbol in value.symbols() {
                let meant = self.meant(symbol);
                let Some((&need, _)) = self.values.get_key_value(meant.as_str()) else { continue };
                match self.state.get(need) {
                    Some(State::Done) => {}
                    _ if need == name => {} // What the inputs say of it.
                    None => needs.push(need),
                    Some(State::Begun) => {
                        stack.iter().for_each(|&name| {
                            self.state.insert(name, State::Done);
                        });
                        return Err(format!(
                            "--defsym {need}: its value needs that of {name}, and the other way round"
                        ));
                    }
                }
            }
            if first && !needs.is_empty() {
                stack.extend(needs);
                continue;
            }
            self.state.insert(name, State::Done);
            stack.pop();
            self.define(name, value).map_err(|error| format!("--defsym {name}: {error}"))?;
        }
        Ok(())
    }

    /// The name that a reference means.
    fn meant(&self, name: &str) -> String {
        let meant = wrapped(&self.request.options.wrap, name.as_bytes());
        meant.map_or_else(|| name.to_owned(), |meant| String::from_utf8_lossy(&meant).into_owned())
    }

    fn record(&self, name: &str) -> Option<(SymbolRow, SymbolRecord)> {
        let row = self.program.names.find(self.meant(name).as_bytes())?;
        Some((row, self.program.symbols[row.index()]))
    }

    fn define(&mut self, name: &str, value: &DefsymValue) -> Result<(), ExpressionError> {
        let Some(row) = self.program.names.find(name.as_bytes()) else { return Ok(()) };
        let expression = match value {
            DefsymValue::Absolute(number) => Expression::Number(*number),
            DefsymValue::Symbol(other, offset) => sum(other, *offset),
            DefsymValue::Expression(expression) => expression.folded(&|asked| {
                let known = self.record(asked).map(|(_, record)| record.atom);
                (asked != name && self.values.contains_key(asked))
                    || known.is_some_and(|atom| !matches!(atom, place::UNDEFINED | place::LAZY))
            })?,
        };
        let simple = match expression.as_offset() {
            Some((other, offset)) => self.place_of(other).map(|definition| (definition, offset)),
            None => None,
        };
        match (simple, &expression) {
            (_, Expression::Number(number)) => self.fix(row, place::ABSOLUTE, *number, None, 0),
            (Some((other, offset)), _) => {
                let value = other.value.wrapping_add_signed(offset);
                self.fix(row, other.atom, value, Some(other), offset);
            }
            _ => self.assign(row, expression)?,
        }
        Ok(())
    }

    /// What defines a name, if that is settled by now.
    fn place_of(&self, name: &str) -> Option<SymbolRecord> {
        let (row, record) = self.record(name)?;
        let settled =
            place::is_atom(record.atom) || record.atom == place::ABSOLUTE && self.late.get(&row).is_none();
        settled.then_some(record)
    }

    fn fix(&mut self, row: SymbolRow, atom: AtomRow, value: u64, like: Option<SymbolRecord>, offset: i64) {
        let tls = like.filter(|other| other.flags & symbol_flags::TLS != 0);
        // A second name of a function is a function, and one of an IFUNC has to be called like it.
        let same = like.filter(|_| offset == 0).or(tls);
        let record = &mut self.program.symbols[row.index()];
        record.atom = atom;
        record.value = value;
        record.size = 0;
        record.input = like.map_or(InputRow::default(), |other| other.input);
        record.info =
            (elf::STB_GLOBAL << 4) | same.map_or(elf::STT_NOTYPE, |other| own_type(other.info & 0xf));
        record.flags &= !(symbol_flags::COMMON | symbol_flags::TLS | symbol_flags::IFUNC);
        record.flags |= same.map_or(0, |other| other.flags & (symbol_flags::TLS | symbol_flags::IFUNC));
        record.flags |= symbol_flags::OPTION;
    }

    fn assign(&mut self, row: SymbolRow, expression: Expression) -> Result<(), ExpressionError> {
        if self.request.options.output_kind == OutputKind::Relocatable {
            return Err(ExpressionError::NoAddresses);
        }
        let mut terms = HashMap::new();
        let mut relative = HashMap::new();
        for symbol in expression.symbols() {
            let undefined = || ExpressionError::UndefinedSymbol(symbol.to_owned());
            let (other, record) = self.record(symbol).ok_or_else(undefined)?;
            let defined = place::is_atom(record.atom) || record.atom == place::ABSOLUTE;
            let term = match defined {
                true if other == row => Term::Place(record.atom, record.value),
                true => Term::Name(other),
                false if other != row && is_linker_name(symbol.as_bytes()) => {
                    self.program.symbols[other.index()].flags |= symbol_flags::REFERENCED;
                    Term::Name(other)
                }
                false => return Err(undefined()),
            };
            terms.insert(symbol.to_owned(), term);
            relative.insert(
                symbol.to_owned(),
                self.late.get(&other).copied().unwrap_or(record.atom != place::ABSOLUTE),
            );
        }
        let options = &self.request.options;
        let moves = expression.is_relative(
            &|symbol| relative.get(symbol) == Some(&true),
            options.output_kind.is_position_independent(),
            options.max_page_size,
        )?;
        let atom = match moves {
            false => place::ABSOLUTE,
            true => {
                let flags = atom_flags::SYNTHETIC | atom_flags::LIVE | atom_flags::EXACT;
                self.program.atoms.push(AtomRecord { section: NONE, flags, ..Default::default() });
                AtomRow(self.program.atoms.len() as u32 - 1)
            }
        };
        self.fix(row, atom, 0, None, 0);
        self.late.insert(row, moves);
        self.program.assignments.push(Assignment { name: row, expression, terms });
        Ok(())
    }
}

fn sum(name: &str, offset: i64) -> Expression {
    use formats::expression::Binary;
    let symbol = Expression::Symbol(name.to_owned());
    match offset {
        0 => symbol,
        offset => Expression::Binary(Binary::Add, Box::new((symbol, Expression::Number(offset as u64)))),
    }
}

/// A type that a second name may have: common storage has an owner already.
fn own_type(kind: u8) -> u8 {
    if kind == elf::STT_COMMON { elf::STT_OBJECT } else { kind }
}

//! The text of `-Map`: sections, and in them what was placed where.

use std::io;

use hashbrown::HashMap;
use relink_engine::column::StoreError;
use relink_engine::program::Program;
use relink_engine::records::{AtomRecord, atom_flags, place};
use relink_engine::rows::{AtomRow, SymbolRow, TargetKind};
use relink_engine::store::Store;

const HEADER: &str = "             VMA     Size Align Out     In      Symbol";

/// Writes the map as lld's columns: address, size, alignment; output section, input section, symbol.
///
/// # Errors
/// The writer's.
pub fn write(program: &Program, writer: &mut dyn io::Write) -> io::Result<()> {
    writeln!(writer, "{HEADER}")?;
    for section in program.outputs.iter().filter(|section| section.index != 0) {
        let name = String::from_utf8_lossy(&section.name);
        writeln!(
            writer,
            "{:>16x} {:>8x} {:>5} {name}",
            section.address,
            section.size,
            1_u64 << section.align
        )?;
        for &row in &section.atoms {
            let atom = &program.atoms[row.index()];
            let input = match program.object(atom) {
                Some(object) if atom.flags & atom_flags::COMMON == 0 => {
                    format!("{}:({})", object.name, program.section_name(atom))
                }
                Some(object) => format!("{}:(COMMON)", object.name),
                None => format!("<internal>:({name})"),
            };
            writeln!(
                writer,
                "{:>16x} {:>8x} {:>5}         {input}",
                atom.address,
                atom.size,
                1_u64 << atom.align
            )?;
            let Some(object) = program.object(atom) else { continue };
            let mut names: Vec<(u64, u64, String)> = Vec::new();
            for (index, target) in object.targets.iter().enumerate() {
                let TargetKind::Symbol(symbol) = target.kind() else { continue };
                let record = &program.symbols[symbol.index()];
                if place::is_atom(record.atom) && record.atom == row && record.input == atom.input {
                    let name = String::from_utf8_lossy(object.parsed.symbol_name(index)).into_owned();
                    names.push((address(program, symbol), record.size, name));
                }
            }
            names.sort();
            for (address, size, name) in names {
                writeln!(writer, "{address:>16x} {size:>8x} {:>5}                 {name}", 1)?;
            }
        }
    }
    Ok(())
}

fn address(program: &Program, row: SymbolRow) -> u64 {
    program.addresses.get(row.index()).copied().unwrap_or(0)
}

/// The same of an incremental link, which frames may have patched.
///
/// # Errors
/// The writer's, and damage of the state.
pub fn write_store(store: &Store, writer: &mut dyn io::Write) -> io::Result<()> {
    let (mut atoms, mut symbols) = collect(store).map_err(io::Error::other)?;
    writeln!(writer, "{HEADER}")?;
    for row in 0..store.sections.len() {
        let section = store.sections.get(row).map_err(io::Error::other)?;
        if section.index == 0 {
            continue;
        }
        let (name, align) = (store.text(section.name), 1_u64 << section.align.min(63));
        writeln!(writer, "{:>16x} {:>8x} {align:>5} {name}", section.address, section.size)?;
        let mut placed = atoms.remove(&row).unwrap_or_default();
        // Labels of the linker's own stand in the first section, whatever they are the end of.
        placed.retain(|(_, atom)| {
            atom.address >= section.address && atom.address <= section.address + section.size
        });
        placed.sort_unstable_by_key(|(_, atom)| atom.address);
        for (row, atom) in placed {
            let input = match store.inputs.get(atom.input.0) {
                Ok(input) => store.text(input.name),
                Err(_) => "<internal>".to_owned(),
            };
            let own = if atom.flags & atom_flags::COMMON != 0 {
                "COMMON".to_owned()
            } else {
                store.text(atom.name)
            };
            let own = if own.is_empty() { name.clone() } else { own };
            let align = 1_u64 << atom.align.min(63);
            writeln!(writer, "{:>16x} {:>8x} {align:>5}         {input}:({own})", atom.address, atom.size)?;
            let mut names = symbols.remove(&row.0).unwrap_or_default();
            names.sort();
            for (value, size, name) in names {
                writeln!(
                    writer,
                    "{:>16x} {size:>8x} {:>5}                 {name}",
                    atom.address.wrapping_add(value),
                    1
                )?;
            }
        }
    }
    for row in 0..store.islands.len() {
        let island = store.islands.get(row).map_err(io::Error::other)?;
        let name =
            store.symbols.get(island.symbol.0).map(|symbol| store.text(symbol.name)).unwrap_or_default();
        writeln!(
            writer,
            "{:>16x} {:>8x} {:>5}                 {name}.island",
            island.address, island.size, 1
        )?;
    }
    Ok(())
}

type Placed = HashMap<u32, Vec<(AtomRow, AtomRecord)>>;
type Named = HashMap<u32, Vec<(u64, u64, String)>>;

/// Live atoms by section, named symbols by atom.
fn collect(store: &Store) -> Result<(Placed, Named), StoreError> {
    let (mut atoms, mut symbols) = (Placed::new(), Named::new());
    for row in 0..store.atoms.len() {
        let atom = store.atoms.get(row)?;
        let cut = atom_flags::MERGE | atom_flags::EH_FRAME;
        if atom.flags & atom_flags::LIVE != 0 && atom.flags & cut == 0 && atom.output.some().is_some() {
            atoms.entry(atom.output.0).or_default().push((AtomRow(row), atom));
        }
    }
    for row in 0..store.symbols.len() {
        let symbol = store.symbols.get(row)?;
        if place::is_atom(symbol.atom) && symbol.name.len > 0 {
            symbols.entry(symbol.atom.0).or_default().push((
                symbol.value,
                symbol.size,
                store.text(symbol.name),
            ));
        }
    }
    Ok((atoms, symbols))
}

/// Names of the loaded objects; what can't be read is left out.
pub fn loaded_inputs(store: &Store) -> Vec<String> {
    let inputs = store.link_order().unwrap_or_default().into_iter();
    inputs.filter_map(|row| Some(store.text(store.inputs.get(row.0).ok()?.name))).collect()
}

/// Sections that garbage collection dropped, as `a.o:(.text.f)`.
pub fn dropped_sections(store: &Store) -> Vec<String> {
    let name = |row| {
        let atom = store.atoms.get(row).ok().filter(|atom| atom.flags & atom_flags::DEAD != 0)?;
        let input = store.inputs.get(atom.input.0).ok()?;
        Some(format!("{}:({})", store.text(input.name), store.text(atom.name)))
    };
    (0..store.atoms.len()).filter_map(name).collect()
}

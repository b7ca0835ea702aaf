//! The text of `-Map`: sections, and in them what was placed where.

use std::io;

use relink_engine::program::Program;
use relink_engine::records::{atom_flags, place};
use relink_engine::rows::{SymbolRow, TargetKind};

/// Writes the map as lld's columns: address, size, alignment; output section, input section, symbol.
///
/// # Errors
/// The writer's.
pub fn write(program: &Program, writer: &mut dyn io::Write) -> io::Result<()> {
    writeln!(writer, "{:>16} {:>8} {:>5} Out     In      Symbol", "VMA", "Size", "Align")?;
    for section in program.outputs.iter().filter(|section| section.index != 0) {
        let name = String::from_utf8_lossy(&section.name);
        writeln!(writer, "{:>16x} {:>8x} {:>5} {name}", section.address, section.size, 1_u64 << section.align)?;
        for &row in &section.atoms {
            let atom = &program.atoms[row.index()];
            let input = match program.object(atom) {
                Some(object) if atom.flags & atom_flags::COMMON == 0 => {
                    format!("{}:({})", object.name, program.section_name(atom))
                }
                Some(object) => format!("{}:(COMMON)", object.name),
                None => format!("<internal>:({name})"),
            };
            writeln!(writer, "{:>16x} {:>8x} {:>5}         {input}", atom.address, atom.size, 1_u64 << atom.align)?;
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

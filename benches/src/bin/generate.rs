//! `generate DIR FUNCTIONS [CONSTANT]`: writes the objects of a generated program, for linkers that read files. With a
//! constant, only the object of the second unit, one function of which returns that much more.

use std::path::Path;

use relink_benches::workload::{Edit, Program};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let (dir, functions, constant) = match &arguments[1..] {
        [dir, functions] => (dir, functions, None),
        [dir, functions, constant] => (dir, functions, Some(constant.parse()?)),
        _ => return Err("usage: generate DIR FUNCTIONS [CONSTANT]".into()),
    };
    let program = Program::new(functions.parse()?);
    let units = if constant.is_some() { 1..2 } else { 0..program.units() };
    for unit in units {
        let edit = |function: usize| match constant {
            Some(constant) if function == 0 => Edit { constant, padding: 0 },
            _ => Edit::default(),
        };
        // As compilers do it: a linker may have the old one mapped.
        let path = Path::new(dir).join(format!("unit{unit:05}.o"));
        std::fs::write(path.with_extension("new"), program.unit(unit, edit))?;
        std::fs::rename(path.with_extension("new"), path)?;
    }
    Ok(())
}

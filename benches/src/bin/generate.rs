//! `generate DIR FUNCTIONS`: writes the objects of a generated program, for linkers that read files.

use std::path::Path;

use relink_benches::workload::{Edit, Program};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, dir, functions] = &arguments[..] else {
        return Err("usage: generate DIR FUNCTIONS".into());
    };
    let program = Program::new(functions.parse()?);
    for unit in 0..program.units() {
        std::fs::write(
            Path::new(dir).join(format!("unit{unit:05}.o")),
            program.unit(unit, |_| Edit::default()),
        )?;
    }
    Ok(())
}

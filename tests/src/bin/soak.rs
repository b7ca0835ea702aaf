//! `soak --program lua|generated --gate strict|wide --frames N --seed N`: one program under very many edits, with bounds of all that grows.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to the person who runs it")]

use std::process::ExitCode;

use relink::GateKind;
use relink_tests::soak::{Program, soak};

fn arguments() -> Result<(Program, GateKind, u64, usize), String> {
    let (mut program, mut gate, mut seed, mut frames) = (Program::Generated, GateKind::Strict, 1, 1000);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|error| format!("{value}: {error}"));
        match (word.as_str(), value.as_str()) {
            ("--program", "generated") => program = Program::Generated,
            ("--program", "lua") => program = Program::Lua,
            ("--gate", "strict") => gate = GateKind::Strict,
            ("--gate", "wide") => gate = GateKind::Wide,
            ("--seed", _) => seed = number()?,
            ("--frames", _) => frames = number()? as usize,
            _ => return Err(format!("unknown argument {word} {value}")),
        }
    }
    Ok((program, gate, seed, frames))
}

fn main() -> ExitCode {
    let (program, gate, seed, frames) = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!(
                "{error}\nusage: soak [--program lua|generated] [--gate strict|wide] [--seed N] [--frames N]"
            );
            return ExitCode::from(2);
        }
    };
    match soak(program, gate, seed, frames) {
        Ok(summary) => {
            println!("{program:?} behind the {gate:?} gate, seed {seed}: {summary}");
            for (reason, count) in &summary.reasons {
                println!("  {count:6} {reason}");
            }
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

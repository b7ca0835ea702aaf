//! `soak --program lua|generated --frames N --seed N`: one program under very many edits, with bounds of all that grows.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to the person who runs it")]

use std::process::ExitCode;

use relink_tests::soak::{Program, soak};

/// From so many frames on, a run must have met the limit of debris.
const FRAMES_THAT_LEAVE_DEBRIS: usize = 1000;

fn arguments() -> Result<(Program, u64, usize), String> {
    let (mut program, mut seed, mut frames) = (Program::Generated, 1, 1000);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|error| format!("{value}: {error}"));
        match (word.as_str(), value.as_str()) {
            ("--program", "generated") => program = Program::Generated,
            ("--program", "lua") => program = Program::Lua,
            ("--seed", _) => seed = number()?,
            ("--frames", _) => frames = number()? as usize,
            _ => return Err(format!("unknown argument {word} {value}")),
        }
    }
    Ok((program, seed, frames))
}

fn main() -> ExitCode {
    let (program, seed, frames) = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}\nusage: soak [--program lua|generated] [--seed N] [--frames N]");
            return ExitCode::from(2);
        }
    };
    match soak(program, seed, frames) {
        Ok(summary) => {
            println!("{program:?}, seed {seed}: {summary}");
            for (reason, count) in &summary.reasons {
                println!("  {count:6} {reason}");
            }
            if frames >= FRAMES_THAT_LEAVE_DEBRIS && !summary.reasons.contains_key("debris-limit") {
                eprintln!("no frame met the limit of debris, so the run shows nothing about it");
                return ExitCode::FAILURE;
            }
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

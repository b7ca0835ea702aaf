//! `kill [--every N] [--scene patch|wide|cold|fallback] [--threads N]`: kills a link at its system calls, and makes them fail.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to the person who runs it")]

use std::process::ExitCode;

use relink_tests::kill::{Scene, run};

fn arguments() -> Result<(usize, Vec<Scene>, usize), String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut every, mut scenes, mut threads) = (1, Scene::ALL.to_vec(), threads);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = || value.parse::<usize>().map_err(|error| format!("{value}: {error}"));
        match (word.as_str(), value.as_str()) {
            ("--every", _) => every = number()?.max(1),
            ("--threads", _) => threads = number()?.max(1),
            ("--scene", "patch") => scenes = vec![Scene::Patch],
            ("--scene", "wide") => scenes = vec![Scene::Wide],
            ("--scene", "cold") => scenes = vec![Scene::Cold],
            ("--scene", "fallback") => scenes = vec![Scene::Fallback],
            _ => return Err(format!("unknown argument {word} {value}")),
        }
    }
    Ok((every, scenes, threads))
}

fn main() -> ExitCode {
    let (every, scenes, threads) = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}\nusage: kill [--every N] [--scene patch|wide|cold|fallback] [--threads N]");
            return ExitCode::from(2);
        }
    };
    let mut code = ExitCode::SUCCESS;
    for scene in scenes {
        match run(scene, every, 0, threads) {
            Ok(tally) => println!("{scene:?}: {tally}"),
            Err(failures) => {
                eprintln!("{failures}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

//! `simulate --seeds A..B --frames N [--threads N]`: runs the edit simulator over many seeds.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to the person who runs it")]

use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use relink_tests::simulate::{Statistics, simulate};

struct Arguments {
    seeds: Range<u64>,
    frames: usize,
    threads: usize,
}

fn arguments() -> Result<Arguments, String> {
    let mut parsed = Arguments {
        seeds: 0..10,
        frames: 200,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
        match word.as_str() {
            "--frames" => parsed.frames = number(value()?)? as usize,
            "--threads" => parsed.threads = (number(value()?)? as usize).max(1),
            "--seeds" => {
                let text = value()?;
                parsed.seeds = match text.split_once("..") {
                    Some((from, to)) => number(from.to_owned())?..number(to.to_owned())?,
                    None => {
                        let seed = number(text)?;
                        seed..seed + 1
                    }
                };
            }
            _ => return Err(format!("unknown argument {word}")),
        }
    }
    Ok(parsed)
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}\nusage: simulate [--seeds A..B] [--frames N] [--threads N]");
            return ExitCode::from(2);
        }
    };
    // Failures come back as values; what a panic prints on its way would only hide them.
    std::panic::set_hook(Box::new(|_| {}));
    let next = AtomicU64::new(arguments.seeds.start);
    let results = Mutex::new((Statistics::default(), 0));
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= arguments.seeds.end {
                        return;
                    }
                    let result = simulate(seed, arguments.frames);
                    let mut results = results.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    match result {
                        Ok(statistics) => {
                            println!(
                                "seed {seed}: {} patched ({} moves), {} fell back, {} idle",
                                statistics.patched, statistics.moved, statistics.fell_back, statistics.idle
                            );
                            results.0.add(&statistics);
                        }
                        Err(report) => {
                            println!("{report}\n");
                            results.1 += 1;
                        }
                    }
                }
            });
        }
    });
    let (statistics, failed) = results.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    println!(
        "{} seeds of {} frames: {} patched ({} moves), {} fell back, {} idle; {failed} seeds failed",
        arguments.seeds.end.saturating_sub(arguments.seeds.start),
        arguments.frames,
        statistics.patched,
        statistics.moved,
        statistics.fell_back,
        statistics.idle
    );
    for (reason, count) in &statistics.reasons {
        println!("  {count:6} {reason}");
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

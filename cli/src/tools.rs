//! The tools around the linker: `relink log`, `verify`, `build-id`, `inspect`, `demo`.

mod build_id;
mod demo;
mod inspect;
mod log;
mod verify;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::console;

/// An incremental linker for static x86-64 ELF programs.
#[derive(Debug, Parser)]
#[command(name = "relink", version, after_help = LINKER_HELP)]
struct Cli {
    #[command(subcommand)]
    tool: Tool,
}

const LINKER_HELP: &str = "As a linker: gcc -static -B DIR (a directory in which `ld` is a link to this program), \
clang -static --ld-path=…/ld.relink, or `relink ld OPTIONS FILES`; `relink ld --help` lists its options.";

#[derive(Debug, Subcommand)]
enum Tool {
    /// Links, with the options of ld
    Ld {
        /// As for ld
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Shows how an output was linked, time after time: full or patched, and why
    Log {
        /// The output of an incremental link
        output: PathBuf,
        /// One line of JSON per link
        #[arg(long)]
        json: bool,
    },
    /// Links the present inputs anew in memory and compares
    Verify {
        /// The output of an incremental link
        output: PathBuf,
    },
    /// Recomputes the build-id of a file from its bytes
    BuildId {
        /// A program that relink made
        file: PathBuf,
    },
    /// Shows what is kept of an output, and the work of its last link
    Inspect {
        /// The output of an incremental link
        output: PathBuf,
    },
    /// Links a small program, edits it, and links it again, three times
    Demo,
}

/// What a tool says in the end: the exit code, or an error to show.
type ToolResult = Result<i32, String>;

/// Runs the tool that the process was asked for; the exit code.
pub(crate) fn run() -> i32 {
    let result = match Cli::parse().tool {
        Tool::Ld { args } => return crate::ld::run(args),
        Tool::Log { output, json } => log::run(&output, json),
        Tool::Verify { output } => verify::run(&output),
        Tool::BuildId { file } => build_id::run(&file),
        Tool::Inspect { output } => inspect::run(&output),
        Tool::Demo => demo::run(),
    };
    result.unwrap_or_else(|error| {
        console::tool_error(error);
        1
    })
}

/// Nanoseconds for people.
fn duration(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        let durations = [999, 1500, 12_345_678, 2_500_000_000].map(duration);
        assert_eq!(durations, ["999 ns", "1.5 µs", "12.3 ms", "2.50 s"]);
        assert_eq!([12, 2048, 3 << 20].map(size), ["12 B", "2.0 KiB", "3.0 MiB"]);
    }

    #[test]
    fn command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}

//! The only place of the workspace that prints.
//!
//! Errors and warnings look as lld's: build tools, editors and cargo know that shape. Colours go only where
//! somebody looks at them, or where `--color-diagnostics` asks for them.

use std::fmt::Display;
use std::io::Write;

use anstream::ColorChoice;
use anstyle::{AnsiColor, Style};

/// How messages of the linker begin, by whatever name it was called.
const LINKER: &str = "ld.relink";

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Magenta.on_default().bold();

/// Says whether colours are wanted; without it the terminal and the environment (`NO_COLOR`) decide.
pub(crate) fn use_colors(choice: ColorChoice) {
    choice.write_global();
}

/// Prints to standard output. A reader that went away (`| head`) is no error.
pub(crate) fn print(text: impl Display) {
    let _ = write!(anstream::stdout().lock(), "{text}");
}

/// Prints a line to standard output.
pub(crate) fn line(text: impl Display) {
    print(format_args!("{text}\n"));
}

/// Prints bytes to standard output as they are.
pub(crate) fn bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// An error of the linker.
pub(crate) fn error(text: impl Display) {
    message("error", ERROR, text);
}

/// A warning of the linker.
pub(crate) fn warning(text: impl Display) {
    message("warning", WARNING, text);
}

/// What the user should know without being warned of it.
pub(crate) fn note(text: impl Display) {
    message("note", Style::new().bold(), text);
}

fn message(kind: &str, style: Style, text: impl Display) {
    let _ = writeln!(anstream::stderr().lock(), "{LINKER}: {style}{kind}: {style:#}{text}");
}

/// An error of a tool (`relink log` …).
pub(crate) fn tool_error(text: impl Display) {
    let _ = writeln!(anstream::stderr().lock(), "relink: {ERROR}error: {ERROR:#}{text}");
}

/// Text in bold where there are colours.
pub(crate) fn bold(text: impl Display) -> String {
    let style = Style::new().bold();
    format!("{style}{text}{style:#}")
}

/// An empty line between the blocks of two errors.
pub(crate) fn gap() {
    let _ = writeln!(anstream::stderr().lock());
}

//! Source lines as four independent readers see them.

use std::collections::BTreeMap;
use std::path::Path;

use crate::tools::{self, Said};

/// A source file (its last part) and a line.
pub type Place = (String, u32);

/// Function and place of each address, by each of the four readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Name of the reader.
    pub reader: &'static str,
    /// Place of each address that was asked for, in order; `None` where the reader knows no line.
    pub places: Vec<Option<Place>>,
}

fn place(text: &str) -> Option<Place> {
    // `path:line[:column] [(discriminator n)]`, `??:0`, `??:?`.
    let text = text.split(" (").next()?.trim();
    let mut parts = text.rsplit(':').collect::<Vec<_>>();
    parts.reverse();
    let line = parts.iter().skip(1).find_map(|part| part.parse::<u32>().ok())?;
    let file = parts.first()?.rsplit('/').next()?;
    (line != 0 && file != "??").then(|| (file.to_owned(), line))
}

/// Asks GNU addr2line, eu-addr2line, llvm-symbolizer and gdb.
#[track_caller]
pub fn ask(image: &Path, addresses: &[u64]) -> Vec<Seen> {
    let hex: Vec<String> = addresses.iter().map(|address| format!("{address:#x}")).collect();
    let path = image.to_string_lossy().into_owned();
    let with =
        |before: &[&str]| before.iter().map(|&s| s.to_owned()).chain(hex.iter().cloned()).collect::<Vec<_>>();
    let quiet = |said: Said| {
        assert!(said.stderr.trim().is_empty(), "{said}");
        said.ok().stdout
    };
    let one_a_line = |text: String| text.lines().map(place).collect::<Vec<_>>();

    let gnu = one_a_line(quiet(tools::ADDR2LINE.run(with(&["-e", &path]))));
    let elfutils = one_a_line(quiet(tools::EU_ADDR2LINE.run(with(&["-e", &path]))));
    let obj = format!("--obj={path}");
    let llvm = quiet(tools::LLVM_SYMBOLIZER.run(with(&[
        &obj,
        "--no-inlines",
        "--functions=none",
        "--output-style=GNU",
    ])));
    let llvm =
        one_a_line(llvm.lines().filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect());
    let commands: Vec<String> =
        hex.iter().flat_map(|address| ["-ex".into(), format!("info line *{address}")]).collect();
    let gdb = gdb(image, &commands.iter().map(String::as_str).collect::<Vec<_>>());
    let gdb = gdb.lines().map(gdb_place).collect();
    let seen = vec![
        Seen { reader: "addr2line", places: gnu },
        Seen { reader: "eu-addr2line", places: elfutils },
        Seen { reader: "llvm-symbolizer", places: llvm },
        Seen { reader: "gdb", places: gdb },
    ];
    for one in &seen {
        assert_eq!(one.places.len(), addresses.len(), "{} answers each address: {one:?}", one.reader);
    }
    seen
}

/// `Line 5 of "table.c" starts at …`, `Line 5 of "table.c" is at … but contains no code.`
fn gdb_place(text: &str) -> Option<Place> {
    let rest = text.strip_prefix("Line ")?;
    let (line, rest) = rest.split_once(" of \"")?;
    let (file, _) = rest.split_once('"')?;
    Some((file.rsplit('/').next()?.to_owned(), line.parse().ok()?))
}

/// Runs gdb without start-up files; panics if it complains.
#[track_caller]
pub fn gdb(image: &Path, commands: &[&str]) -> String {
    let start = [
        "-nx",
        "-batch",
        "-iex",
        "set debuginfod enabled off",
        "-iex",
        "set width 0",
        "-iex",
        "set height 0",
    ];
    let args = start.into_iter().chain(commands.iter().copied()).map(std::ffi::OsStr::new);
    let said = tools::GDB.run(args.chain([image.as_os_str()]));
    let complaints = said.stderr.lines().filter(|line| !line.trim().is_empty() && !harmless(line)).count();
    assert!(complaints == 0, "{said}");
    said.stdout
}

/// What gdb says on a machine without a terminal or permissions, about nothing in the image.
fn harmless(line: &str) -> bool {
    line.contains("Error disabling address space randomization")
        || line.contains("Unable to determine the number")
        // The text of a source that a test made up.
        || line.ends_with(".c: No such file or directory.")
}

/// Panics unless all four readers see these places at these addresses.
#[track_caller]
pub fn assert_places(image: &Path, expected: &[(u64, Place)]) {
    let addresses: Vec<u64> = expected.iter().map(|(address, _)| *address).collect();
    for seen in ask(image, &addresses) {
        for (place, (address, wanted)) in seen.places.iter().zip(expected) {
            assert_eq!(place.as_ref(), Some(wanted), "{} at {address:#x}", seen.reader);
        }
    }
}

/// The address at which a line starts, as gdb knows it.
#[track_caller]
pub fn address_of_line(image: &Path, file: &str, line: u32) -> u64 {
    let text = gdb(image, &["-ex", &format!("info line {file}:{line}")]);
    let (_, rest) =
        text.split_once("starts at address 0x").unwrap_or_else(|| panic!("no code at {file}:{line}: {text}"));
    let digits: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
    u64::from_str_radix(&digits, 16).expect("hexadecimal digits")
}

/// What each reader says of some places in each named function: to compare two images of one program.
#[track_caller]
pub fn of_functions(image: &Path, names: &[String]) -> BTreeMap<String, Vec<Option<Place>>> {
    let bytes = crate::read(image);
    let elf = crate::elf::Elf::parse(&bytes);
    let mut asked = Vec::new();
    for name in names {
        let symbol = elf.symbol(name);
        asked.extend(
            [0, symbol.size / 3, symbol.size / 2, symbol.size.saturating_sub(1)].map(|at| (name, at)),
        );
    }
    let addresses: Vec<u64> = asked.iter().map(|(name, at)| elf.symbol(name).address + at).collect();
    let mut answers: BTreeMap<String, Vec<Option<Place>>> = BTreeMap::new();
    for seen in ask(image, &addresses) {
        for ((name, at), place) in asked.iter().zip(seen.places) {
            answers.entry(format!("{name}+{at:#x} {}", seen.reader)).or_default().push(place);
        }
    }
    answers
}

/// Panics unless the readers see the same lines in these functions of two images.
#[track_caller]
pub fn assert_same_lines(image: &Path, measure: &Path, names: &[String]) {
    let (found, wanted) = (of_functions(image, names), of_functions(measure, names));
    let different: Vec<_> = wanted
        .iter()
        .filter(|(at, places)| found.get(*at) != Some(places))
        .map(|(at, places)| format!("{at}: {:?} instead of {places:?}", found.get(at)))
        .collect();
    assert!(different.is_empty(), "lines of {}:\n{}", image.display(), different.join("\n"));
}

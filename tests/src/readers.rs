//! The reader matrix: every reader is at least as content with an image as with one that it is compared with.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::OnceLock;

use crate::tools::{self, Said, Tool};

/// A reader and its arguments.
const READERS: &[(Tool, &[&str])] = &[
    (tools::READELF, &["-W", "-a"]),
    (tools::READELF, &["-w"]),
    (tools::EU_READELF, &["-w"]),
    (tools::EU_READELF, &["-a", "-N"]),
    (tools::LLVM_DWARFDUMP, &["--verify"]),
    (tools::EU_ELFLINT, &["--gnu-ld"]),
    (
        tools::GDB,
        &[
            "-nx",
            "-batch",
            "-iex",
            "set debuginfod enabled off",
            "-ex",
            "info line _start",
            "-ex",
            "maintenance expand-symtabs",
        ],
    ),
];

/// Complaints by reader and wording (numbers and paths taken out), with how often they came.
pub type Complaints = BTreeMap<String, usize>;

/// All that the readers hold against an image.
#[track_caller]
pub fn complaints(image: &Path) -> Complaints {
    let mut complaints = Complaints::new();
    let mut count = |reader: &str, text: &str| {
        *complaints.entry(format!("{reader}: {}", wording(text, image))).or_insert(0) += 1;
    };
    for (tool, args) in READERS {
        let said = tool.run(args.iter().map(std::ffi::OsStr::new).chain([image.as_os_str()]));
        let reader = format!("{} {}", tool.names[0], args.first().unwrap_or(&""));
        if said.status != 0 {
            count(&reader, &format!("exit status {}", said.status));
        }
        said.stderr
            .lines()
            .filter(|line| !line.trim().is_empty() && !notice(line))
            .for_each(|line| count(&reader, line));
        said.stdout.lines().filter(|line| complains(tool, line)).for_each(|line| count(&reader, line));
    }
    complaints
}

/// Images of more bytes than this take readers many seconds (`eu-readelf` on line tables).
const LARGE: u64 = 3 << 20;

/// The same, kept on disk by the bytes of the image: another linker gives the same ones each time, and so does ours unless
/// it is changed.
#[track_caller]
pub fn kept_complaints(image: &Path) -> Complaints {
    let mut hasher = DefaultHasher::new();
    (format!("{READERS:?}"), versions(), crate::read(image)).hash(&mut hasher);
    let kept = crate::cache_dir("complaints").join(format!("{:016x}.json", hasher.finish()));
    if let Some(known) = std::fs::read(&kept).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
        return known;
    }
    let found = complaints(image);
    crate::write(kept, serde_json::to_vec(&found).expect("names and numbers"));
    found
}

/// What the readers say that they are: another release of one finds other things.
fn versions() -> &'static str {
    static VERSIONS: OnceLock<String> = OnceLock::new();
    VERSIONS.get_or_init(|| READERS.iter().map(|(tool, _)| tool.run(["--version"]).ok().stdout).collect())
}

/// What real programs are measured by: the system's linker; for `llvm-dwarfdump` also lld, since linkers differ on what the
/// debug information of a dropped COMDAT copy shall say, and either way is common.
#[track_caller]
pub fn complaints_of_others(system: &Path, lld: &Path) -> Complaints {
    let mut measure = kept_complaints(system);
    for (what, times) in kept_complaints(lld) {
        if what.starts_with("llvm-dwarfdump") {
            let allowed = measure.entry(what).or_insert(0);
            *allowed = times.max(*allowed);
        }
    }
    measure
}

/// `readelf -w` remarks where location lists stand out of order, or bytes of no list stand between them, whatever they
/// hold. Both are legal, a moved contribution can't be without, and no reader minds.
fn notice(line: &str) -> bool {
    let remarks = ["There is a hole", "There is an overlap", "unused bytes at the end", "section start at"];
    line.contains(".debug_loc") && remarks.iter().any(|remark| line.contains(remark))
}

/// Whether a line of standard output is a complaint. Dumps quote the program's own strings, so words are not enough.
fn complains(tool: &Tool, line: &str) -> bool {
    let line = line.trim_start();
    match tool.names[0] {
        "eu-elflint" => !line.starts_with("No errors"),
        "llvm-dwarfdump" => line.starts_with("error:") || line.starts_with("warning:"),
        "readelf" => {
            ["readelf: ", "Warning:", "Error:"].iter().any(|p| line.starts_with(p))
                || line.contains("<corrupt")
        }
        "eu-readelf" => line.starts_with("eu-readelf: ") || line.contains("invalid data"),
        _ => false,
    }
}

/// Numbers become `N`, so that the same complaint about another address is the same complaint.
fn wording(text: &str, image: &Path) -> String {
    let text = text.replace(&*image.to_string_lossy(), "IMAGE");
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(c) = rest.chars().next() {
        let word = rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or("");
        let digits = word.strip_prefix("0x").unwrap_or(word);
        let number =
            word.starts_with(|c: char| c.is_ascii_digit()) && digits.chars().all(|c| c.is_ascii_hexdigit());
        let taken = if word.is_empty() { c.len_utf8() } else { word.len() };
        out += if number { "N" } else { &rest[..taken] };
        rest = &rest[taken..];
    }
    out
}

/// Panics if a reader complains.
#[track_caller]
pub fn assert_content(image: &Path) {
    assert_no_worse(image, &Complaints::new());
}

/// Panics if a reader complains of something, or more often, than of the image that is compared with.
#[track_caller]
pub fn assert_no_worse(image: &Path, measure: &Complaints) {
    let large = std::fs::metadata(image).is_ok_and(|file| file.len() > LARGE);
    let found = if large { kept_complaints(image) } else { complaints(image) };
    let worse: Vec<_> = found
        .iter()
        .filter(|(what, times)| measure.get(*what).copied().unwrap_or(0) < **times)
        .map(|(what, times)| {
            format!("{times} times (allowed {}): {what}", measure.get(what).copied().unwrap_or(0))
        })
        .collect();
    assert!(worse.is_empty(), "readers of {} complain:\n{}", image.display(), worse.join("\n"));
}

/// For messages: one reader's whole answer.
#[track_caller]
pub fn answer(tool: &Tool, args: &[&str], image: &Path) -> Said {
    tool.run(args.iter().map(std::ffi::OsStr::new).chain([image.as_os_str()]))
}

//! `@file`: arguments from files, as gcc, clang and cmake write them.

use std::ffi::OsString;
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use relink::host::{Io, read_file};

/// A file that names itself must end somewhere,
const DEPTH_MAX: usize = 32;
/// and so must one that does so twice. GNU's limit.
const FILES_MAX: usize = 2000;

/// Puts the contents of response files in the places of their names. A file that can't be read is an error, and
/// gives no arguments.
pub(super) fn expand(io: &dyn Io, args: Vec<OsString>) -> (Vec<OsString>, Vec<String>) {
    let expanded = Vec::with_capacity(args.len());
    let mut expansion = Expansion { io, files: 0, expanded, errors: Vec::new() };
    // What is behind a file that does not end is not looked at.
    let _ = expansion.expand(args, 0);
    (expansion.expanded, expansion.errors)
}

struct Expansion<'a> {
    io: &'a dyn Io,
    /// How many files have been read.
    files: usize,
    expanded: Vec<OsString>,
    errors: Vec<String>,
}

impl Expansion<'_> {
    fn expand(&mut self, args: Vec<OsString>, depth: usize) -> ControlFlow<()> {
        for arg in args {
            let Some(path) = arg.as_bytes().strip_prefix(b"@").filter(|path| !path.is_empty()) else {
                self.expanded.push(arg);
                continue;
            };
            let path = Path::new(std::ffi::OsStr::from_bytes(path));
            if depth == DEPTH_MAX || self.files == FILES_MAX {
                let path = path.display();
                self.errors.push(format!(
                    "response file {path}: it names itself, or there are more than {DEPTH_MAX} within each other or {FILES_MAX} at all"
                ));
                return ControlFlow::Break(());
            }
            self.files += 1;
            match read_file(self.io, path) {
                Ok(text) => self.expand(split(&text), depth + 1)?,
                Err(error) => self.errors.push(format!("response file: {error}")),
            }
        }
        ControlFlow::Continue(())
    }
}

/// Splits text as GNU's `buildargv` does: white space parts words, quotes of both kinds hold them together, and a
/// backslash takes the next byte as it is, inside quotes too.
fn split(text: &[u8]) -> Vec<OsString> {
    let is_special = |byte| matches!(byte, b'\\' | b'\'' | b'"' | b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut rest = text;
    loop {
        let plain = rest.iter().take_while(|&&byte| !is_special(byte)).count();
        if plain > 0 {
            word.get_or_insert_default().extend_from_slice(&rest[..plain]);
        }
        let Some((&byte, behind)) = rest[plain..].split_first() else { break };
        rest = behind;
        match byte {
            b'\\' => {
                let taken;
                (taken, rest) = rest.split_at(rest.len().min(1));
                word.get_or_insert_default().extend_from_slice(taken);
            }
            b'\'' | b'"' if quote.is_none() => {
                quote = Some(byte);
                word.get_or_insert_default(); // `''` is an empty word.
            }
            _ if quote == Some(byte) => quote = None,
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c if quote.is_none() => {
                words.extend(word.take().map(OsString::from_vec));
            }
            _ => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word.map(OsString::from_vec));
    words
}

#[cfg(test)]
mod tests {
    use relink::host::SystemIo;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        split(text.as_bytes()).into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn quoting_is_that_of_gnu() {
        assert_eq!(words("a.o  b.o\n\tc.o\r\n"), ["a.o", "b.o", "c.o"]);
        assert_eq!(words(r#""two words" 'and "more"' x\ y"#), ["two words", "and \"more\"", "x y"]);
        assert_eq!(
            words(r#"-o"o ut" '' "\"q\"" 'it\'s' # no comment"#),
            ["-oo ut", "", "\"q\"", "it's", "#", "no", "comment"]
        );
        assert_eq!(words(""), [""; 0]);
        assert_eq!(words("\\"), [""]);
    }

    #[test]
    fn files_nest_and_their_errors_are_collected() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(path("inner"), "b.o 'c d.o'").unwrap();
        std::fs::write(path("outer"), format!("a.o @{} e.o", path("inner"))).unwrap();
        std::fs::write(path("self"), format!("x.o @{}", path("self"))).unwrap();
        let at = |name: &str| OsString::from(format!("@{}", path(name)));
        let (expanded, errors) = expand(&SystemIo, vec![at("outer"), "-o".into(), "@".into(), at("none")]);
        assert_eq!(expanded, ["a.o", "b.o", "c d.o", "e.o", "-o", "@"]);
        assert_eq!(
            errors,
            [format!("response file: cannot open {}: No such file or directory", path("none"))]
        );
        let (expanded, errors) = expand(&SystemIo, vec![at("self")]);
        assert_eq!(expanded.len(), DEPTH_MAX);
        assert!(errors[0].contains("names itself"));
        // Twice in itself is more files than there are words in it.
        std::fs::write(path("twice"), format!("@{0} @{0}", path("twice"))).unwrap();
        let (expanded, errors) = expand(&SystemIo, vec![at("twice"), at("self")]);
        assert_eq!((expanded.len(), errors.len()), (0, 1));
    }
}

//! The small linker scripts that stand in for libraries, such as glibc's `libc.so` and `libm.a`.
//!
//! They only name further inputs. A script that lays out sections is refused by name.

use crate::error::FormatError;

/// One thing that a script asks for, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScriptItem {
    /// An input file, as written: an absolute path, or a name to look for beside the script and in `-L`.
    File {
        /// The path; a leading `=` or `$SYSROOT` is kept.
        name: String,
        /// Only needed at run time if it defines something that is used.
        as_needed: bool,
    },
    /// An input library, from `-lNAME`.
    Library {
        /// Without the `-l`; a leading `:` asks for this very file name.
        name: String,
        /// As for `File`.
        as_needed: bool,
    },
    /// The files up to `GroupEnd` may need one another.
    GroupStart,
    /// See `GroupStart`.
    GroupEnd,
    /// The default format; those for big and little endian, if given, are dropped.
    OutputFormat(String),
    /// The architecture.
    OutputArch(String),
    /// A directory to search, after those of the command line.
    SearchDir(String),
    /// The entry symbol.
    Entry(String),
}

/// Whether these bytes may be a script: text that is no archive. A guess, from the first 4 KiB.
pub fn looks_like_script(bytes: &[u8]) -> bool {
    let head = bytes.get(..4096).unwrap_or(bytes);
    let text = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c | 0x20..=0x7e | 0x80..);
    !head.is_empty() && head.iter().all(text) && !crate::archive::Archive::is_archive(bytes)
}

/// Reads a script.
///
/// Understood: `GROUP`, `INPUT`, `AS_NEEDED` inside these, `OUTPUT_FORMAT`, `OUTPUT_ARCH`, `SEARCH_DIR` and
/// `ENTRY`; comments, quoted names, commas between names.
///
/// # Errors
/// `Unsupported` names any other command and its line; `Syntax` says what was expected instead.
///
/// # Source
/// GNU ld manual, "Linker Scripts", "Commands Dealing with Files" and "… Object File Formats".
pub fn parse(text: &[u8]) -> Result<Vec<ScriptItem>, FormatError> {
    let mut tokens = Tokens { text, pos: 0, line: 1 };
    let mut items = Vec::new();
    while let Some(token) = tokens.next()? {
        match (token.kind, token.text) {
            (Kind::Punctuation, b";") => {}
            (Kind::Word, b"GROUP") => {
                items.push(ScriptItem::GroupStart);
                inputs(&mut tokens, &mut items)?;
                items.push(ScriptItem::GroupEnd);
            }
            (Kind::Word, b"INPUT") => inputs(&mut tokens, &mut items)?,
            (Kind::Word, b"OUTPUT_FORMAT") => {
                items.push(ScriptItem::OutputFormat(argument(&mut tokens, true)?))
            }
            (Kind::Word, b"OUTPUT_ARCH") => items.push(ScriptItem::OutputArch(argument(&mut tokens, false)?)),
            (Kind::Word, b"SEARCH_DIR") => items.push(ScriptItem::SearchDir(argument(&mut tokens, false)?)),
            (Kind::Word, b"ENTRY") => items.push(ScriptItem::Entry(argument(&mut tokens, false)?)),
            _ => {
                let construct = String::from_utf8_lossy(token.text);
                let what = format!("linker script construct `{construct}` in line {}", token.line);
                return Err(FormatError::Unsupported { what, offset: token.offset });
            }
        }
    }
    Ok(items)
}

/// The list of `GROUP` or `INPUT`, with its parentheses.
fn inputs(tokens: &mut Tokens<'_>, items: &mut Vec<ScriptItem>) -> Result<(), FormatError> {
    tokens.expect(b"(")?;
    // Counted, not recursive: the depth is the input's to choose.
    let mut as_needed_depth = 0_usize;
    loop {
        let token = tokens.demand("`)`")?;
        match (token.kind, token.text) {
            (Kind::Punctuation, b",") => {}
            (Kind::Punctuation, b")") => match as_needed_depth.checked_sub(1) {
                Some(depth) => as_needed_depth = depth,
                None => return Ok(()),
            },
            (Kind::Word, b"AS_NEEDED") => {
                tokens.expect(b"(")?;
                as_needed_depth += 1;
            }
            (Kind::Punctuation, _) => return Err(token.unexpected("a file name or `)`")),
            (Kind::Word | Kind::Quoted, _) => {
                let name = token.name()?;
                let as_needed = as_needed_depth > 0;
                items.push(match name.strip_prefix("-l") {
                    Some("") => return Err(token.unexpected("a library name after `-l`")),
                    Some(name) => ScriptItem::Library { name: name.to_string(), as_needed },
                    None => ScriptItem::File { name, as_needed },
                });
            }
        }
    }
}

/// The first argument of a command; with `more`, further ones after commas are passed over.
fn argument(tokens: &mut Tokens<'_>, more: bool) -> Result<String, FormatError> {
    tokens.expect(b"(")?;
    let first = tokens.demand("an argument")?;
    let name = first.name()?;
    loop {
        let token = tokens.demand("`)`")?;
        match (token.kind, token.text) {
            (Kind::Punctuation, b")") => return Ok(name),
            (Kind::Punctuation, b",") if more => {
                tokens.demand("an argument")?.name()?;
            }
            _ => return Err(token.unexpected("`)`")),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Word,
    Quoted,
    Punctuation,
}

#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    kind: Kind,
    text: &'a [u8],
    line: u32,
    offset: u64,
}

impl Token<'_> {
    fn name(&self) -> Result<String, FormatError> {
        if self.kind == Kind::Punctuation || self.text.is_empty() {
            return Err(self.unexpected("a name"));
        }
        std::str::from_utf8(self.text).map(str::to_string).map_err(|_| self.unexpected("a name in UTF-8"))
    }

    fn unexpected(&self, expected: &str) -> FormatError {
        let found = String::from_utf8_lossy(self.text);
        let what = format!("expected {expected}, found `{found}`");
        FormatError::Syntax { what, line: self.line, offset: self.offset }
    }
}

struct Tokens<'a> {
    text: &'a [u8],
    pos: usize,
    line: u32,
}

impl<'a> Tokens<'a> {
    fn rest(&self) -> &'a [u8] {
        self.text.get(self.pos..).unwrap_or_default()
    }

    /// Moves on by `count` bytes and returns them, counting lines.
    fn advance(&mut self, count: usize) -> &'a [u8] {
        let passed = self.rest().get(..count).unwrap_or_default();
        let lines = passed.iter().filter(|byte| **byte == b'\n').count();
        self.line = self.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        self.pos += passed.len();
        passed
    }

    fn error(&self, what: &str) -> FormatError {
        FormatError::Syntax { what: what.to_string(), line: self.line, offset: self.pos as u64 }
    }

    fn skip_blanks(&mut self) -> Result<(), FormatError> {
        loop {
            let rest = self.rest();
            let count = match rest {
                [byte, ..] if byte.is_ascii_whitespace() => {
                    rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
                }
                // Not in the manual of GNU ld, but LLD takes it and scripts in the wild have it.
                [b'#', ..] => rest.iter().take_while(|byte| **byte != b'\n').count(),
                [b'/', b'*', ..] => match rest.windows(2).skip(2).position(|pair| pair == b"*/") {
                    Some(at) => at + 4,
                    None => return Err(self.error("comment without its end")),
                },
                _ => return Ok(()),
            };
            self.advance(count);
        }
    }

    fn next(&mut self) -> Result<Option<Token<'a>>, FormatError> {
        self.skip_blanks()?;
        let (line, offset) = (self.line, self.pos as u64);
        let rest = self.rest();
        let (kind, text) = match rest {
            [] => return Ok(None),
            [b'"', quoted @ ..] => {
                let Some(len) = quoted.iter().position(|byte| *byte == b'"') else {
                    return Err(self.error("name without its closing quote"));
                };
                self.advance(len + 2);
                (Kind::Quoted, quoted.get(..len).unwrap_or_default())
            }
            [byte, ..] if is_punctuation(*byte) => (Kind::Punctuation, self.advance(1)),
            _ => {
                let ends = |at: &usize| {
                    rest.get(*at).is_none_or(|byte| {
                        byte.is_ascii_whitespace() || is_punctuation(*byte) || *byte == b'"'
                    }) || rest.get(*at..).is_some_and(|rest| rest.starts_with(b"/*"))
                };
                let len = (1..).find(ends).unwrap_or(rest.len());
                (Kind::Word, self.advance(len))
            }
        };
        Ok(Some(Token { kind, text, line, offset }))
    }

    fn demand(&mut self, expected: &str) -> Result<Token<'a>, FormatError> {
        let token = self.next()?;
        token.ok_or_else(|| self.error(&format!("expected {expected}, found the end")))
    }

    fn expect(&mut self, punctuation: &[u8]) -> Result<(), FormatError> {
        let expected = format!("`{}`", String::from_utf8_lossy(punctuation));
        let token = self.demand(&expected)?;
        match token.kind == Kind::Punctuation && token.text == punctuation {
            true => Ok(()),
            false => Err(token.unexpected(&expected)),
        }
    }
}

fn is_punctuation(byte: u8) -> bool {
    matches!(byte, b'(' | b')' | b'{' | b'}' | b';' | b',')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile::every_damage;

    fn file(name: &str, as_needed: bool) -> ScriptItem {
        ScriptItem::File { name: name.into(), as_needed }
    }

    fn library(name: &str, as_needed: bool) -> ScriptItem {
        ScriptItem::Library { name: name.into(), as_needed }
    }

    const LIBC: &[u8] = b"/* GNU ld script\n   Use the shared library, but some functions are only in\n   the static \
        library, so try that secondarily.  */\nOUTPUT_FORMAT(elf64-x86-64)\nGROUP ( /lib/x86_64-linux-gnu/libc.so.6 \
        /usr/lib/libc_nonshared.a  AS_NEEDED ( /lib64/ld-linux-x86-64.so.2 ) )\n";

    #[test]
    fn reads_libc() {
        let expected = vec![
            ScriptItem::OutputFormat("elf64-x86-64".into()),
            ScriptItem::GroupStart,
            file("/lib/x86_64-linux-gnu/libc.so.6", false),
            file("/usr/lib/libc_nonshared.a", false),
            file("/lib64/ld-linux-x86-64.so.2", true),
            ScriptItem::GroupEnd,
        ];
        assert_eq!(parse(LIBC), Ok(expected));
        assert!(looks_like_script(LIBC));
    }

    #[test]
    fn names_are_quoted_separated_and_nested() {
        let text = b"INPUT(-lgcc_s, \"a b.o\",AS_NEEDED(-l:x.so AS_NEEDED(y.so)z.so) =/w.o/**/v.o);";
        let expected = vec![
            library("gcc_s", false),
            file("a b.o", false),
            library(":x.so", true),
            file("y.so", true),
            file("z.so", true),
            file("=/w.o", false),
            file("v.o", false),
        ];
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn other_settings_are_kept() {
        let text = b"OUTPUT_FORMAT(\"a\", \"b\", \"c\") OUTPUT_ARCH(i386:x86-64)\nSEARCH_DIR(\"/x y\"); ENTRY(_start)";
        let expected = vec![
            ScriptItem::OutputFormat("a".into()),
            ScriptItem::OutputArch("i386:x86-64".into()),
            ScriptItem::SearchDir("/x y".into()),
            ScriptItem::Entry("_start".into()),
        ];
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn other_constructs_are_named_with_line_and_offset() {
        let what = "linker script construct `SECTIONS` in line 2".to_string();
        assert_eq!(parse(b"INPUT(a)\nSECTIONS { }"), Err(FormatError::Unsupported { what, offset: 9 }));
        assert!(parse(b"__stack = 4;").unwrap_err().to_string().contains("`__stack`"));
    }

    #[test]
    fn what_is_missing_is_said() {
        for text in [
            "GROUP",
            "GROUP(",
            "GROUP(a",
            "INPUT(-l)",
            "INPUT({)",
            "/* ",
            "INPUT(\"a",
            "ENTRY()",
            "ENTRY(a,b)",
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(matches!(error, FormatError::Syntax { line: 1, .. }), "{text}: {error}");
        }
    }

    #[test]
    fn binaries_do_not_look_like_scripts() {
        for bytes in [&b""[..], b"\x7fELF\x02\x01", b"!<arch>\n", b"!<thin>\nabc", b"a\0b"] {
            assert!(!looks_like_script(bytes));
        }
    }

    #[test]
    fn damage_never_panics() {
        every_damage(LIBC, |bytes| {
            let _ = parse(bytes);
            let _ = looks_like_script(bytes);
        });
    }
}

//! The grammar of version scripts.

use super::Line;
use super::Node;
use super::Rule;
use super::ScriptError;
use super::error;

/// Nodes with their lines, and the rules of all of them.
type Parsed = (Vec<(Node, Line)>, Vec<Rule>);

/// Reads a script.
pub(super) fn parse(text: &str) -> Result<Parsed, ScriptError> {
    let mut parser = Parser { tokens: Tokens { rest: text, line: 1 }, ahead: None };
    let (mut nodes, mut rules): Parsed = Default::default();
    let mut nameless = None;
    while parser.peek()?.kind != Kind::End {
        node(&mut parser, &mut nodes, &mut nameless, &mut rules)?;
    }
    Ok((nodes, rules))
}

/// `NAME { … } PARENT … ;`. Nodes without a name are one, whose index is `nameless`.
fn node(
    parser: &mut Parser<'_>,
    nodes: &mut Vec<(Node, Line)>,
    nameless: &mut Option<usize>,
    rules: &mut Vec<Rule>,
) -> Result<(), ScriptError> {
    let token = parser.next()?;
    let name = match token.kind {
        Kind::Punctuation if token.text == "{" => "",
        Kind::Word | Kind::Quoted if !token.text.is_empty() => {
            parser.expect("{")?;
            token.text
        }
        _ => return Err(token.unexpected("a version or `{`")),
    };
    let index = match name {
        "" => *nameless.get_or_insert(nodes.len()),
        _ => nodes.len(),
    };
    if index == nodes.len() {
        nodes.push((Node { name: name.to_owned(), parents: Vec::new() }, (0, token.line)));
    }
    patterns(parser, index, rules)?;
    loop {
        let token = parser.next()?;
        match token.kind {
            Kind::Punctuation if token.text == ";" => return Ok(()),
            Kind::End => return Ok(()),
            Kind::Word | Kind::Quoted if !name.is_empty() => {
                if let Some((node, _)) = nodes.get_mut(index) {
                    node.parents.push(token.text.to_owned());
                }
            }
            _ if name.is_empty() => return Err(token.unexpected("`;`")),
            _ => return Err(token.unexpected("`;` or a version")),
        }
    }
}

/// The inside of a node, with its closing brace.
fn patterns(parser: &mut Parser<'_>, node: usize, rules: &mut Vec<Rule>) -> Result<(), ScriptError> {
    let mut local = false;
    // For each `extern` that is open, whether it is for C++. Not recursive: the depth is the input's to
    // choose.
    let mut languages: Vec<bool> = Vec::new();
    loop {
        let token = parser.next()?;
        match (token.kind, token.text) {
            (Kind::Punctuation, ";") => {}
            (Kind::Punctuation, "}") => {
                if languages.pop().is_none() {
                    return Ok(());
                }
            }
            (Kind::Word, "global" | "local") if languages.is_empty() && parser.peek()?.text == ":" => {
                parser.next()?;
                local = token.text == "local";
            }
            (Kind::Word, "extern") if parser.peek()?.kind == Kind::Quoted => {
                let language = parser.next()?;
                languages.push(match language.text {
                    "C" => false,
                    "C++" => true,
                    _ => return Err(language.unexpected("`\"C\"` or `\"C++\"`")),
                });
                parser.expect("{")?;
            }
            (Kind::Word | Kind::Quoted, pattern) if !pattern.is_empty() => {
                rules.push(Rule {
                    pattern: pattern.to_owned(),
                    quoted: token.kind == Kind::Quoted,
                    demangled: languages.last().copied().unwrap_or(false),
                    local,
                    node,
                });
                let after = parser.peek()?;
                match after.text {
                    ";" | "}" if after.kind == Kind::Punctuation => {}
                    "(" | ")" | "," => return Err(after.unexpected("`;` (a name with signs needs quotes)")),
                    _ => return Err(after.unexpected("`;`")),
                }
            }
            _ => return Err(token.unexpected("a symbol or `}`")),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Word,
    /// Without its quotes.
    Quoted,
    Punctuation,
    End,
}

#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
    line: u32,
}

impl Token<'_> {
    fn unexpected(&self, expected: &str) -> ScriptError {
        let found = match self.kind {
            Kind::End => "the end".to_owned(),
            Kind::Quoted => format!("`\"{}\"`", self.text),
            _ => format!("`{}`", self.text),
        };
        error((0, self.line), format!("expected {expected}, found {found}"))
    }
}

/// Tokens with one to look ahead at.
struct Parser<'a> {
    tokens: Tokens<'a>,
    ahead: Option<Token<'a>>,
}

impl<'a> Parser<'a> {
    fn peek(&mut self) -> Result<Token<'a>, ScriptError> {
        let token = self.next()?;
        self.ahead = Some(token);
        Ok(token)
    }

    fn next(&mut self) -> Result<Token<'a>, ScriptError> {
        self.ahead.take().map_or_else(|| self.tokens.next(), Ok)
    }

    fn expect(&mut self, punctuation: &str) -> Result<(), ScriptError> {
        let token = self.next()?;
        match token.kind == Kind::Punctuation && token.text == punctuation {
            true => Ok(()),
            false => Err(token.unexpected(&format!("`{punctuation}`"))),
        }
    }
}

struct Tokens<'a> {
    rest: &'a str,
    line: u32,
}

impl<'a> Tokens<'a> {
    /// Moves on by `count` bytes and returns them, counting lines.
    fn advance(&mut self, count: usize) -> &'a str {
        let (passed, rest) = self.rest.split_at_checked(count).unwrap_or((self.rest, ""));
        let lines = passed.bytes().filter(|byte| *byte == b'\n').count();
        self.line = self.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        self.rest = rest;
        passed
    }

    /// Skips up to and with the first `end`; `false` if there is none.
    fn skip_past(&mut self, end: &str) -> bool {
        let found = self.rest.find(end);
        self.advance(found.map_or(self.rest.len(), |at| at + end.len()));
        found.is_some()
    }

    fn skip_blanks(&mut self) -> Result<(), ScriptError> {
        loop {
            let blank = self.rest.len() - self.rest.trim_ascii_start().len();
            self.advance(blank);
            if self.rest.starts_with('#') {
                self.skip_past("\n");
            } else if self.rest.starts_with("/*") {
                let line = self.line;
                self.advance(2);
                if !self.skip_past("*/") {
                    return Err(error((0, line), "comment without its end".to_owned()));
                }
            } else {
                return Ok(());
            }
        }
    }

    fn next(&mut self) -> Result<Token<'a>, ScriptError> {
        self.skip_blanks()?;
        let line = self.line;
        if let Some(quoted) = self.rest.strip_prefix('"') {
            let Some(len) = quoted.find('"') else {
                return Err(error((0, line), "name without its closing quote".to_owned()));
            };
            let text = self.advance(len + 2).get(1..=len).unwrap_or_default();
            return Ok(Token { kind: Kind::Quoted, text, line });
        }
        let (kind, len) = match word_len(self.rest) {
            0 if self.rest.is_empty() => (Kind::End, 0),
            0 => (Kind::Punctuation, 1),
            len => (Kind::Word, len),
        };
        Ok(Token { kind, text: self.advance(len), line })
    }
}

/// Length in bytes of the word that `rest` begins with. A single colon ends a word, two are part of a C++
/// name.
fn word_len(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut len = 0;
    while let Some(byte) = bytes.get(len) {
        let next = bytes.get(len + 1);
        len += match byte {
            b':' if next == Some(&b':') => 2,
            b'{' | b'}' | b';' | b':' | b'(' | b')' | b',' | b'"' | b'#' => break,
            b'/' if next == Some(&b'*') => break,
            byte if byte.is_ascii_whitespace() => break,
            _ => 1,
        };
    }
    len
}

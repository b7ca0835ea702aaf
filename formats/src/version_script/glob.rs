//! Shell patterns over bytes, many at once.
//!
//! A name is compared with those patterns only whose literal beginning it has. Crates were no help: those for
//! globs mean paths or characters, where `/`, `**`, braces and broken UTF-8 are special, and C++ names are
//! full of these; an automaton of all patterns (`regex-automata`) may take memory by the square of their
//! number.

use super::Rank;

/// A pattern behind its literal beginning.
#[derive(Clone, Debug)]
struct Glob {
    rank: Rank,
    tokens: Vec<Token>,
}

#[derive(Clone, Debug)]
enum Token {
    Byte(u8),
    /// `?`.
    One,
    /// `[…]`.
    Class(Box<[bool; 256]>),
    /// `*`.
    Many,
}

impl Token {
    fn fits(&self, byte: u8) -> bool {
        match self {
            Token::Byte(wanted) => *wanted == byte,
            Token::One => true,
            Token::Class(set) => set.get(usize::from(byte)).is_some_and(|accepted| *accepted),
            Token::Many => false,
        }
    }
}

/// The patterns with one literal beginning.
#[derive(Clone, Debug)]
struct Group {
    prefix: Vec<u8>,
    /// The group with the longest beginning that is a beginning of this one.
    parent: Option<usize>,
    /// Best rank first.
    globs: Vec<Glob>,
}

/// Patterns, found by their beginnings.
#[derive(Clone, Debug, Default)]
pub(super) struct Globs {
    /// By prefix, ascending.
    groups: Vec<Group>,
}

impl Globs {
    /// Prepares patterns with their ranks.
    pub(super) fn new<'a>(patterns: impl Iterator<Item = (&'a [u8], Rank)>) -> Globs {
        let mut all: Vec<(Vec<u8>, Glob)> = patterns
            .map(|(pattern, rank)| {
                let (prefix, tokens) = parse(pattern);
                (prefix, Glob { rank, tokens })
            })
            .collect();
        all.sort_by(|(a, left), (b, right)| a.cmp(b).then(left.rank.cmp(&right.rank)));
        let mut groups: Vec<Group> = Vec::new();
        for (prefix, glob) in all {
            match groups.last_mut().filter(|group| group.prefix == prefix) {
                Some(group) => group.globs.push(glob),
                None => {
                    let parent = last_beginning(&groups, groups.len().checked_sub(1), &prefix);
                    groups.push(Group { prefix, parent, globs: vec![glob] });
                }
            }
        }
        Globs { groups }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The best rank of the patterns that fit the whole name.
    pub(super) fn best(&self, name: &[u8]) -> Option<Rank> {
        // Between a beginning of the name and the name itself, in order, everything has that beginning. So
        // all groups that matter are the last one that isn't behind the name, and its parents.
        let behind = self.groups.partition_point(|group| group.prefix.as_slice() <= name);
        let mut at = last_beginning(&self.groups, behind.checked_sub(1), name);
        let mut best: Option<Rank> = None;
        while let Some(group) = at.and_then(|index| self.groups.get(index)) {
            let rest = name.get(group.prefix.len()..).unwrap_or_default();
            let better = |glob: &&Glob| best.is_none_or(|best| glob.rank < best);
            let found = group.globs.iter().take_while(better).find(|glob| fits(&glob.tokens, rest));
            best = found.map(|glob| glob.rank).or(best);
            at = group.parent;
        }
        best
    }
}

/// From group `at` on, through its parents: the first whose prefix `name` begins with.
fn last_beginning(groups: &[Group], mut at: Option<usize>, name: &[u8]) -> Option<usize> {
    while let Some(index) = at {
        let group = groups.get(index)?;
        if name.starts_with(&group.prefix) {
            return Some(index);
        }
        at = group.parent;
    }
    None
}

/// Whether the whole of `name` fits.
///
/// * Work: O(tokens × bytes): a star that failed to fit is tried one byte later, and the stars in front of it
///   never again.
fn fits(tokens: &[Token], name: &[u8]) -> bool {
    let (mut token, mut byte) = (0, 0);
    // Behind the last star: the token, and the byte to begin with.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match (tokens.get(token), name.get(byte)) {
            (Some(Token::Many), _) => {
                token += 1;
                if token == tokens.len() {
                    return true;
                }
                retry = Some((token, byte));
                continue;
            }
            (Some(wanted), Some(found)) if wanted.fits(*found) => {
                token += 1;
                byte += 1;
                continue;
            }
            (None, None) => return true,
            // The name ends too early; a later start would leave even less of it.
            (Some(_), None) => return false,
            _ => {}
        }
        let Some((star, start)) = retry else { return false };
        retry = Some((star, start + 1));
        (token, byte) = (star, start + 1);
    }
}

/// Whether a character of the pattern is special. An escaped one isn't, as in GNU ld.
pub(super) fn has_wildcard(pattern: &[u8]) -> bool {
    let mut bytes = pattern.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// The name that a pattern without wildcards stands for.
pub(super) fn unescape(pattern: &[u8]) -> Vec<u8> {
    parse(pattern).0
}

/// The literal beginning of a pattern, and the rest of it.
///
/// # Source
/// POSIX, "Pattern Matching Notation"; of bracket expressions, those without `[:class:]`, which a script
/// can't spell.
fn parse(pattern: &[u8]) -> (Vec<u8>, Vec<Token>) {
    let (mut prefix, mut tokens) = (Vec::new(), Vec::new());
    let mut rest = pattern;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        let token = match (byte, tail) {
            (b'*', _) => match tokens.last() {
                // Two of them mean the same as one.
                Some(Token::Many) => continue,
                _ => Token::Many,
            },
            (b'?', _) => Token::One,
            (b'[', _) => match class(tail) {
                Some((set, tail)) => {
                    rest = tail;
                    Token::Class(Box::new(set))
                }
                // Without its end it stands for itself.
                None => Token::Byte(*byte),
            },
            (b'\\', [escaped, tail @ ..]) => {
                rest = tail;
                Token::Byte(*escaped)
            }
            _ => Token::Byte(*byte),
        };
        match token {
            Token::Byte(byte) if tokens.is_empty() => prefix.push(byte),
            token => tokens.push(token),
        }
    }
    (prefix, tokens)
}

/// Which bytes a bracket expression accepts, and what follows it. `rest` begins behind its `[`.
fn class(rest: &[u8]) -> Option<([bool; 256], &[u8])> {
    let (negated, mut rest) = match rest {
        [b'!' | b'^', tail @ ..] => (true, tail),
        _ => (false, rest),
    };
    let mut set = [false; 256];
    let mut is_first = true;
    loop {
        let (low, tail) = match rest {
            // In front, the bracket is a member.
            [b']', tail @ ..] if !is_first => return Some((set.map(|accepted| accepted != negated), tail)),
            _ => member(rest)?,
        };
        is_first = false;
        let (high, tail) = match tail {
            [b'-', tail @ ..] if tail.first().is_some_and(|end| *end != b']') => member(tail)?,
            _ => (low, tail),
        };
        rest = tail;
        for byte in low..=high {
            if let Some(accepted) = set.get_mut(usize::from(byte)) {
                *accepted = true;
            }
        }
    }
}

fn member(rest: &[u8]) -> Option<(u8, &[u8])> {
    match rest {
        [b'\\', byte, tail @ ..] | [byte, tail @ ..] => Some((*byte, tail)),
        [] => None,
    }
}

//! Version scripts and dynamic lists: which symbols an image exports, under which version.
//!
//! ```text
//! V1 { global: open; read*; extern "C++" { ns::*; "f(int)"; }; local: *; };
//! V2 { global: open2; } V1;
//! ```
//!
//! A script without version names has one nameless node: it only says what is exported. A dynamic list has
//! the same grammar and is such a script.

mod glob;
mod syntax;

use std::collections::HashMap;
use std::collections::HashSet;

use glob::Globs;

/// A version node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The version; empty for the nameless node.
    pub name: String,
    /// Versions that it succeeds, as written.
    pub parents: Vec<String>,
}

/// What a script says of a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assigned {
    /// Nothing: it is exported as if there was no script, or for a dynamic list not at all.
    Unlisted,
    /// Not visible outside of the image.
    Local,
    /// Exported in this node: an index into [`VersionScript::nodes`].
    Version(usize),
}

/// Why a script is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ScriptError {
    /// Position of the script in what was [merged](VersionScript::merge), from 0.
    pub script: usize,
    /// Line in that script, from 1.
    pub line: u32,
    /// What was expected or is wrong.
    pub what: String,
}

/// A version script, ready to be asked.
///
/// # Examples
/// ```
/// use relink_formats::version_script::{Assigned, VersionScript};
/// let script = VersionScript::parse("V1 { global: open; local: *; };").unwrap();
/// assert_eq!(script.assign(b"open", || None), Assigned::Version(0));
/// assert_eq!(script.assign(b"helper", || None), Assigned::Local);
/// ```
#[derive(Clone, Debug)]
pub struct VersionScript {
    /// All nodes, in order of definition.
    pub nodes: Vec<Node>,
    /// The line of each node.
    lines: Vec<Line>,
    rules: Vec<Rule>,
    /// Patterns for names as they are, and for demangled ones.
    plain: Patterns,
    demangled: Patterns,
    /// The best rule that is a bare `*`.
    all: Option<Rank>,
}

/// A script by its position, and a line of it.
type Line = (usize, u32);

/// A pattern and what it assigns.
#[derive(Clone, Debug)]
struct Rule {
    pattern: String,
    /// It was quoted: no character of it is special.
    quoted: bool,
    /// It is meant for demangled names: `extern "C++"`.
    demangled: bool,
    local: bool,
    node: usize,
}

impl VersionScript {
    /// Reads a version script or a dynamic list.
    ///
    /// Accepted beyond what GNU ld does: a semicolon may be missing in front of `}` and at the end of the
    /// file, the names in front of a `local:` need no `global:`, and sections may alternate. Parents are not
    /// looked up, for another script may have them: see [`merge`](VersionScript::merge).
    ///
    /// # Errors
    /// The line, and what was expected there.
    ///
    /// # Source
    /// GNU ld manual, "VERSION Command", and "Options" for `--dynamic-list`.
    pub fn parse(text: &str) -> Result<VersionScript, ScriptError> {
        let (nodes, rules) = syntax::parse(text)?;
        let (nodes, lines) = nodes.into_iter().unzip();
        VersionScript::compile(nodes, lines, rules)
    }

    /// Joins scripts, in order, to one: several `--version-script` options, or dynamic lists.
    ///
    /// # Errors
    /// A version that is defined twice, a nameless node beside versions, or a parent that is no version.
    pub fn merge(scripts: impl IntoIterator<Item = VersionScript>) -> Result<VersionScript, ScriptError> {
        let (mut nodes, mut lines, mut rules) = (Vec::new(), Vec::new(), Vec::new());
        let is_nameless = |nodes: &[Node]| matches!(nodes, [node] if node.name.is_empty());
        for (position, script) in scripts.into_iter().enumerate() {
            // Nameless nodes are one, as in a single script.
            let shared = is_nameless(&nodes) && is_nameless(&script.nodes);
            let first = if shared { 0 } else { nodes.len() };
            rules.extend(script.rules.into_iter().map(|rule| Rule { node: rule.node + first, ..rule }));
            if !shared {
                nodes.extend(script.nodes);
                lines.extend(script.lines.into_iter().map(|(_, line)| (position, line)));
            }
        }
        let names: HashSet<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        for (node, line) in nodes.iter().zip(&lines) {
            if let Some(parent) = node.parents.iter().find(|parent| !names.contains(parent.as_str())) {
                let what = format!("version `{}` succeeds `{parent}`, which is no version", node.name);
                return Err(error(*line, what));
            }
        }
        VersionScript::compile(nodes, lines, rules)
    }

    /// Checks the nodes and prepares the rules.
    fn compile(nodes: Vec<Node>, lines: Vec<Line>, rules: Vec<Rule>) -> Result<VersionScript, ScriptError> {
        let mut seen = HashSet::new();
        for (node, line) in nodes.iter().zip(&lines) {
            if node.name.is_empty() && nodes.len() > 1 {
                let what = "a node without a name, which can't be combined with named versions";
                return Err(error(*line, what.to_owned()));
            }
            if !seen.insert(node.name.as_str()) {
                return Err(error(*line, format!("version `{}` is defined twice", node.name)));
            }
        }
        let (plain, demangled) = (Patterns::new(&rules, false), Patterns::new(&rules, true));
        let all = rules.iter().filter(|rule| rule.is_all()).map(Rule::rank).min();
        Ok(VersionScript { nodes, lines, rules, plain, demangled, all })
    }

    /// Whether the script has no versions: it says what is exported, and no more.
    pub fn is_nameless(&self) -> bool {
        self.nodes.iter().all(|node| node.name.is_empty())
    }

    /// What the script says of the symbol `name`, which has no `@VERSION` suffix.
    ///
    /// A symbol may fit many patterns. In this order, the first wins, as in GNU ld:
    /// 1. a pattern without wildcards: in the first node that has one, `global` before `local`;
    /// 2. a wildcard pattern of `global`, then one of `local`, in the last node that has one;
    /// 3. a bare `*`: likewise.
    ///
    /// * `demangled` what C++ calls it; a name that isn't mangled stands for itself. Only called if the
    ///   script has patterns for C++, and once.
    pub fn assign(&self, name: &[u8], demangled: impl Fn() -> Option<String>) -> Assigned {
        let mut best = self.plain.best(name);
        if !self.demangled.is_empty() {
            let text = demangled();
            let name = text.as_ref().map_or(name, |text| text.as_bytes());
            best = least(best, self.demangled.best(name));
        }
        least(best, self.all).map_or(Assigned::Unlisted, Rank::assigned)
    }

    /// The names that the script assigns without wildcards, but for demangled ones, ascending; so that the
    /// user can be told of those that nothing defines.
    pub fn exact_names(&self) -> Vec<(&[u8], Assigned)> {
        let exact = self.plain.exact.iter();
        let mut names: Vec<_> = exact.map(|(name, rank)| (name.as_slice(), rank.assigned())).collect();
        names.sort_by_key(|(name, _)| *name);
        names
    }
}

fn error((script, line): Line, what: String) -> ScriptError {
    ScriptError { script, line, what }
}

/// Which of two rules that fit wins: the lower one. A kind in front, then the place of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    kind: Kind,
    /// Ascending with the node for exact names, descending for globs.
    order: usize,
    local: bool,
    node: usize,
}

/// In order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Exact,
    GlobalGlob,
    LocalGlob,
    GlobalAll,
    LocalAll,
}

impl Rank {
    fn assigned(self) -> Assigned {
        if self.local { Assigned::Local } else { Assigned::Version(self.node) }
    }
}

impl Rule {
    /// A bare `*`, which fits every name, demangled or not.
    fn is_all(&self) -> bool {
        self.pattern == "*" && !self.quoted
    }

    fn is_exact(&self) -> bool {
        self.quoted || !glob::has_wildcard(self.pattern.as_bytes())
    }

    fn rank(&self) -> Rank {
        let Rule { local, node, .. } = *self;
        let kind = match (self.is_exact(), self.is_all(), local) {
            (true, ..) => Kind::Exact,
            (_, false, false) => Kind::GlobalGlob,
            (_, false, true) => Kind::LocalGlob,
            (_, true, false) => Kind::GlobalAll,
            (_, true, true) => Kind::LocalAll,
        };
        let order = if kind == Kind::Exact { node } else { usize::MAX - node };
        Rank { kind, order, local, node }
    }
}

/// Patterns for one form of names.
#[derive(Clone, Debug)]
struct Patterns {
    exact: HashMap<Vec<u8>, Rank>,
    globs: Globs,
}

impl Patterns {
    /// A bare `*` is left out: it needs no look at the name.
    fn new(rules: &[Rule], demangled: bool) -> Patterns {
        let rules = || rules.iter().filter(|rule| rule.demangled == demangled && !rule.is_all());
        let mut exact: HashMap<Vec<u8>, Rank> = HashMap::new();
        for rule in rules().filter(|rule| rule.is_exact()) {
            let pattern = rule.pattern.as_bytes();
            let name = if rule.quoted { pattern.to_vec() } else { glob::unescape(pattern) };
            let rank = rule.rank();
            exact.entry(name).and_modify(|known| *known = rank.min(*known)).or_insert(rank);
        }
        let globs = rules().filter(|rule| !rule.is_exact());
        let globs = Globs::new(globs.map(|rule| (rule.pattern.as_bytes(), rule.rank())));
        Patterns { exact, globs }
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.globs.is_empty()
    }

    fn best(&self, name: &[u8]) -> Option<Rank> {
        self.exact.get(name).copied().or_else(|| self.globs.best(name))
    }
}

/// The better of two, if there is one.
fn least(a: Option<Rank>, b: Option<Rank>) -> Option<Rank> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
#[cfg(test)]
mod tests;

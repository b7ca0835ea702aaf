//! Errors of a link as values: what the user did, where, and what to do about it.

use std::fmt;

/// A place in the inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Object, as `a.o` or `libx.a(m.o)`.
    pub object: String,
    /// Section of the object.
    pub section: String,
    /// Bytes from the start of the section.
    pub offset: u64,
    /// Function (raw name) that holds the place.
    pub function: Option<String>,
    /// Source file and line, from the debug information.
    pub line: Option<(String, u32)>,
}

/// One error of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are named after the sentence that `render` makes of them")]
pub enum Diagnostic {
    /// A name that nothing defines.
    UndefinedSymbol {
        symbol: String,
        /// At most three of them.
        references: Vec<Place>,
        /// How many there are.
        reference_count: usize,
        /// A defined name that looks like it, and where it is.
        suggestion: Option<(String, String)>,
    },
    /// Two strong definitions of one name.
    DuplicateSymbol { symbol: String, first: Place, second: Place },
    /// A value does not fit the field.
    RelocationOutOfRange { kind: String, symbol: String, place: Place, value: i128, min: i128, max: i128 },
    /// A relocation that can't be applied.
    BadRelocation { kind: String, symbol: String, place: Place, why: String },
    /// An input that can't be read as what it claims to be.
    BadInput { input: String, why: String },
    /// Anything else.
    Other { message: String },
}

impl Diagnostic {
    /// The text as the best peers print it, without `error: `; names go through `demangle`.
    pub fn render(&self, demangle: &dyn Fn(&str) -> String) -> String {
        match self {
            Diagnostic::UndefinedSymbol { symbol, references, reference_count, suggestion } => {
                let mut text = format!("undefined symbol: {}", demangle(symbol));
                for place in references {
                    text += &reference(place, demangle);
                }
                if *reference_count > references.len() {
                    text += &format!("\n>>> referenced {} more times", reference_count - references.len());
                }
                if let Some((name, object)) = suggestion {
                    text += &format!("\n>>> did you mean: {}\n>>> defined in: {object}", demangle(name));
                }
                text
            }
            Diagnostic::DuplicateSymbol { symbol, first, second } => {
                let mut text = format!("duplicate symbol: {}", demangle(symbol));
                for place in [first, second] {
                    if let Some((file, line)) = &place.line {
                        text += &format!("\n>>> defined at {file}:{line}\n>>>            {}", place.object);
                    } else {
                        text += &format!("\n>>> defined in {}", place.object);
                    }
                }
                text
            }
            Diagnostic::RelocationOutOfRange { kind, symbol, place, value, min, max } => format!(
                "{}:({}+{:#x}): relocation {kind} out of range: {value} is not in [{min}, {max}]; references '{}'{}",
                place.object,
                place.section,
                place.offset,
                demangle(symbol),
                reference(place, demangle),
            ),
            Diagnostic::BadRelocation { kind, symbol, place, why } => format!(
                "{}:({}+{:#x}): relocation {kind} against '{}': {why}",
                place.object,
                place.section,
                place.offset,
                demangle(symbol)
            ),
            Diagnostic::BadInput { input, why } => format!("{input}: {why}"),
            Diagnostic::Other { message } => message.clone(),
        }
    }
}

fn reference(place: &Place, demangle: &dyn Fn(&str) -> String) -> String {
    let inside = match &place.function {
        Some(function) => format!("({})", demangle(function)),
        None => format!("({}+{:#x})", place.section, place.offset),
    };
    match &place.line {
        Some((file, line)) => format!(
            "\n>>> referenced by {}:{line}\n>>>               {}:{inside}",
            file.rsplit('/').next().unwrap_or(file),
            place.object
        ),
        None => format!("\n>>> referenced by {}:{inside}", place.object),
    }
}

/// All errors of a link that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkError {
    /// The errors, in the order of the inputs.
    pub diagnostics: Vec<Diagnostic>,
    /// Errors beyond the limit, counted only.
    pub omitted: usize,
}

impl LinkError {
    /// One error in words.
    pub fn other(message: impl Into<String>) -> LinkError {
        LinkError { diagnostics: vec![Diagnostic::Other { message: message.into() }], omitted: 0 }
    }

    /// One unreadable input.
    pub fn bad_input(input: impl Into<String>, why: impl fmt::Display) -> LinkError {
        LinkError {
            diagnostics: vec![Diagnostic::BadInput { input: input.into(), why: why.to_string() }],
            omitted: 0,
        }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            f.write_str(&diagnostic.render(&str::to_owned))?;
        }
        if self.omitted > 0 {
            write!(f, "\n{} more errors", self.omitted)?;
        }
        Ok(())
    }
}

impl std::error::Error for LinkError {}

//! Expressions of the linker command language, as `--defsym` has them: parsed here, evaluated where addresses are known.
//!
//! A value is a plain number, or *relative*: an address that moves with its section when the image is loaded elsewhere.

mod parse;

use std::fmt;

/// One operand before an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unary {
    /// `-x`.
    Negate,
    /// `~x`.
    Complement,
    /// `!x`.
    Not,
}

/// An operator between two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is its sign, as in C; MAX and MIN are functions")]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    ShiftLeft,
    ShiftRight,
    And,
    Or,
    Xor,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Both,
    Either,
    Max,
    Min,
}

/// What is asked of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SectionFact {
    /// `ADDR`, `LOADADDR`.
    Address,
    /// `SIZEOF`: bytes.
    Size,
    /// `ALIGNOF`: bytes.
    Alignment,
}

/// A parsed expression.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expression {
    /// A number.
    Number(u64),
    /// The value of a symbol.
    Symbol(String),
    /// An operator in front of its operand.
    Unary(Unary, Box<Expression>),
    /// An operator between its operands, left and right.
    Binary(Binary, Box<(Expression, Expression)>),
    /// `condition ? first : second`.
    Select(Box<(Expression, Expression, Expression)>),
    /// `ALIGN(x, n)`: `x` rounded up to a multiple of `n`.
    Align(Box<(Expression, Expression)>),
    /// `ABSOLUTE(x)`: the address at link time, which does not move.
    Absolute(Box<Expression>),
    /// `DEFINED(name)`.
    Defined(String),
    /// `ADDR(section)` and its kin.
    Section(SectionFact, String),
    /// `CONSTANT(MAXPAGESIZE)`, `CONSTANT(COMMONPAGESIZE)`: bytes.
    PageSize,
    /// `SIZEOF_HEADERS`: bytes of ELF and program headers.
    HeaderSize,
}

/// What an expression comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// The number, or the address at link time.
    pub number: u64,
    /// The section that it moves with, by the scope's count; none for a plain number.
    pub section: Option<u32>,
}

impl Value {
    /// A plain number.
    pub fn plain(number: u64) -> Value {
        Value { number, section: None }
    }
}

/// Facts of a section of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionFacts {
    /// `sh_addr` as a value that moves with it.
    pub address: Value,
    /// `sh_size`, bytes.
    pub size: u64,
    /// `sh_addralign`, bytes.
    pub alignment: u64,
}

/// What names in an expression mean.
pub trait Scope {
    /// The value of a symbol; none if nothing defines it.
    fn symbol(&self, name: &str) -> Option<Value>;
    /// A section of the image; none if there is none of that name.
    fn section(&self, name: &str) -> Option<SectionFacts>;
    /// Bytes of a page.
    fn page_size(&self) -> u64;
    /// Bytes of ELF and program headers.
    fn header_size(&self) -> u64;
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// Not an expression.
    #[error("{what} at character {at} of '{text}'")]
    Syntax {
        /// What is wrong.
        what: String,
        /// Characters in front of it, plus one.
        at: usize,
        /// The expression.
        text: String,
    },
    /// Nothing defines a symbol.
    #[error("the symbol {0} is not defined by any input")]
    UndefinedSymbol(String),
    /// The image has no such section.
    #[error("the output has no section {0}")]
    NoSection(String),
    /// `x / 0`, `x % 0`.
    #[error("division by zero")]
    DivisionByZero,
    /// `ALIGN` to something that is no power of two.
    #[error("ALIGN to {0:#x}, which is no power of two")]
    Alignment(u64),
    /// Relocatable output has no addresses.
    #[error("its value needs addresses, which relocatable output (-r) does not have")]
    NoAddresses,
    /// The result would depend on where the image is loaded, in a way that no relocation can express.
    #[error(
        "'{0}' of an address has no value before the image is loaded; only ADDRESS+-NUMBER, differences and \
         comparisons of addresses, ALIGN to at most a page, or ABSOLUTE can be used in position-independent output"
    )]
    LoadDependent(String),
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// `Syntax`, with the place.
    ///
    /// # Source
    /// GNU ld manual, "Expressions in Linker Scripts"; precedence as in C.
    pub fn parse(text: &str) -> Result<Expression, ExpressionError> {
        parse::parse(text)
    }

    /// `SYMBOL`, `SYMBOL+NUMBER`, `NUMBER+SYMBOL`, `SYMBOL-NUMBER`: the symbol and the number.
    pub fn as_offset(&self) -> Option<(&str, i64)> {
        let sum = |terms: &Expression, number: &Expression| match (terms.as_offset(), number) {
            (Some((name, offset)), Expression::Number(number)) => {
                Some((name.len(), offset.wrapping_add_unsigned(*number)))
            }
            _ => None,
        };
        match self {
            Expression::Symbol(name) => Some((name, 0)),
            Expression::Binary(Binary::Add, both) => {
                let (left, right) = &**both;
                let (found, symbol) = match sum(left, right) {
                    Some(found) => (found, left),
                    None => (sum(right, left)?, right),
                };
                Some((symbol.as_offset()?.0, found.1))
            }
            Expression::Binary(Binary::Subtract, both) => match &**both {
                (left, Expression::Number(number)) => {
                    let (name, offset) = left.as_offset()?;
                    Some((name, offset.wrapping_sub_unsigned(*number)))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// Calls `each` for every expression in this one, itself included.
    fn visit<'a>(&'a self, each: &mut dyn FnMut(&'a Expression)) {
        each(self);
        match self {
            Expression::Unary(_, x) | Expression::Absolute(x) => x.visit(each),
            Expression::Binary(_, both) | Expression::Align(both) => {
                both.0.visit(each);
                both.1.visit(each);
            }
            Expression::Select(three) => {
                three.0.visit(each);
                three.1.visit(each);
                three.2.visit(each);
            }
            _ => {}
        }
    }

    /// Symbols whose values are used, each as often as it is.
    pub fn symbols(&self) -> Vec<&str> {
        let mut found = Vec::new();
        self.visit(&mut |x| {
            if let Expression::Symbol(name) = x {
                found.push(name.as_str());
            }
        });
        found
    }

    /// Whether `DEFINED` is part of it.
    pub fn asks_for_definitions(&self) -> bool {
        let mut found = false;
        self.visit(&mut |x| found |= matches!(x, Expression::Defined(_)));
        found
    }

    /// Sections whose sizes are used.
    pub fn sized_sections(&self) -> Vec<&str> {
        let mut found = Vec::new();
        self.visit(&mut |x| {
            if let Expression::Section(SectionFact::Size, name) = x {
                found.push(name.as_str());
            }
        });
        found
    }

    /// The same with everything computed that needs no address: numbers, `DEFINED`, and the branches that these choose.
    ///
    /// # Errors
    /// `DivisionByZero`, `Alignment`.
    pub fn folded(&self, defined: &dyn Fn(&str) -> bool) -> Result<Expression, ExpressionError> {
        let pair = |both: &(Expression, Expression)| -> Result<_, ExpressionError> {
            Ok((both.0.folded(defined)?, both.1.folded(defined)?))
        };
        let folded = match self {
            Expression::Defined(name) => return Ok(Expression::Number(u64::from(defined(name)))),
            Expression::Select(three) => {
                let (condition, first, second) = &**three;
                match condition.folded(defined)? {
                    Expression::Number(0) => return second.folded(defined),
                    Expression::Number(_) => return first.folded(defined),
                    condition => {
                        let (first, second) = (first.folded(defined)?, second.folded(defined)?);
                        return Ok(Expression::Select(Box::new((condition, first, second))));
                    }
                }
            }
            Expression::Unary(operator, x) => Expression::Unary(*operator, Box::new(x.folded(defined)?)),
            Expression::Absolute(x) => Expression::Absolute(Box::new(x.folded(defined)?)),
            Expression::Binary(operator, both) => Expression::Binary(*operator, Box::new(pair(both)?)),
            Expression::Align(both) => Expression::Align(Box::new(pair(both)?)),
            other => return Ok(other.clone()),
        };
        let number = |x: &Expression| matches!(x, Expression::Number(_));
        let known = match &folded {
            Expression::Unary(_, x) | Expression::Absolute(x) => number(x),
            Expression::Binary(_, both) | Expression::Align(both) => number(&both.0) && number(&both.1),
            _ => false,
        };
        match known {
            true => Ok(Expression::Number(folded.evaluate(&Nothing)?.number)),
            false => Ok(folded),
        }
    }

    /// Whether the result is relative, given which symbols are: known before any address is. `page` is the alignment,
    /// bytes, that every load address keeps.
    ///
    /// # Errors
    /// `LoadDependent`, in position-independent output only.
    pub fn is_relative(
        &self,
        symbols: &dyn Fn(&str) -> bool,
        position_independent: bool,
        page: u64,
    ) -> Result<bool, ExpressionError> {
        let ask = |x: &Expression| x.is_relative(symbols, position_independent, page);
        let refuse = |sign: &str| match position_independent {
            true => Err(ExpressionError::LoadDependent(sign.to_owned())),
            false => Ok(false),
        };
        match self {
            Expression::Number(_)
            | Expression::Defined(_)
            | Expression::PageSize
            | Expression::HeaderSize
            | Expression::Section(SectionFact::Size | SectionFact::Alignment, _) => Ok(false),
            Expression::Section(SectionFact::Address, _) => Ok(true),
            Expression::Symbol(name) => Ok(symbols(name)),
            Expression::Absolute(x) => Expression::is_relative(x, symbols, false, page).map(|_| false),
            Expression::Unary(operator, x) => match ask(x)? {
                true => refuse(operator.sign()),
                false => Ok(false),
            },
            Expression::Align(both) => match (ask(&both.0)?, &both.1) {
                (false, to) if !ask(to)? => Ok(false),
                (true, Expression::Number(to)) if *to <= page || !position_independent => Ok(true),
                (true, Expression::PageSize) => Ok(true),
                _ => refuse("ALIGN"),
            },
            Expression::Select(three) => match (ask(&three.0)?, ask(&three.1)?, ask(&three.2)?) {
                (false, first, second) if first == second => Ok(first),
                (_, first, second) if !position_independent => Ok(first && second),
                _ => refuse("?:"),
            },
            Expression::Binary(operator, both) => match (operator, ask(&both.0)?, ask(&both.1)?) {
                (_, false, false) => Ok(false),
                (Binary::Add, true, false) | (Binary::Add, false, true) => Ok(true),
                (Binary::Subtract, true, false) => Ok(true),
                (Binary::Subtract, true, true) => Ok(false),
                (Binary::Max | Binary::Min, true, true) => Ok(true),
                (operator, true, true) if operator.compares() => Ok(false),
                (operator, ..) => refuse(operator.sign()),
            },
        }
    }

    /// The value, in a scope that has the addresses.
    ///
    /// # Errors
    /// All but `Syntax` and `LoadDependent`.
    pub fn evaluate(&self, scope: &dyn Scope) -> Result<Value, ExpressionError> {
        Ok(match self {
            Expression::Number(number) => Value::plain(*number),
            Expression::Symbol(name) => {
                scope.symbol(name).ok_or_else(|| ExpressionError::UndefinedSymbol(name.clone()))?
            }
            Expression::Unary(operator, x) => {
                let number = x.evaluate(scope)?.number;
                Value::plain(match operator {
                    Unary::Negate => number.wrapping_neg(),
                    Unary::Complement => !number,
                    Unary::Not => u64::from(number == 0),
                })
            }
            Expression::Binary(operator, both) => {
                operator.apply(both.0.evaluate(scope)?, both.1.evaluate(scope)?)?
            }
            Expression::Select(three) => match three.0.evaluate(scope)?.number {
                0 => three.2.evaluate(scope)?,
                _ => three.1.evaluate(scope)?,
            },
            Expression::Align(both) => {
                let (value, to) = (both.0.evaluate(scope)?, both.1.evaluate(scope)?.number);
                if !to.is_power_of_two() {
                    return Err(ExpressionError::Alignment(to));
                }
                Value { number: value.number.wrapping_add(to - 1) & !(to - 1), ..value }
            }
            Expression::Absolute(x) => Value::plain(x.evaluate(scope)?.number),
            Expression::Defined(name) => Value::plain(u64::from(scope.symbol(name).is_some())),
            Expression::Section(fact, name) => {
                let section = scope.section(name).ok_or_else(|| ExpressionError::NoSection(name.clone()))?;
                match fact {
                    SectionFact::Address => section.address,
                    SectionFact::Size => Value::plain(section.size),
                    SectionFact::Alignment => Value::plain(section.alignment),
                }
            }
            Expression::PageSize => Value::plain(scope.page_size()),
            Expression::HeaderSize => Value::plain(scope.header_size()),
        })
    }
}

/// Where numbers alone mean something.
struct Nothing;

impl Scope for Nothing {
    fn symbol(&self, _: &str) -> Option<Value> {
        None
    }
    fn section(&self, _: &str) -> Option<SectionFacts> {
        None
    }
    fn page_size(&self) -> u64 {
        0
    }
    fn header_size(&self) -> u64 {
        0
    }
}

impl Unary {
    fn sign(self) -> &'static str {
        match self {
            Unary::Negate => "-",
            Unary::Complement => "~",
            Unary::Not => "!",
        }
    }
}

impl Binary {
    fn sign(self) -> &'static str {
        match self {
            Binary::Add => "+",
            Binary::Subtract => "-",
            Binary::Multiply => "*",
            Binary::Divide => "/",
            Binary::Remainder => "%",
            Binary::ShiftLeft => "<<",
            Binary::ShiftRight => ">>",
            Binary::And => "&",
            Binary::Or => "|",
            Binary::Xor => "^",
            Binary::Equal => "==",
            Binary::Unequal => "!=",
            Binary::Less => "<",
            Binary::LessOrEqual => "<=",
            Binary::Greater => ">",
            Binary::GreaterOrEqual => ">=",
            Binary::Both => "&&",
            Binary::Either => "||",
            Binary::Max => "MAX",
            Binary::Min => "MIN",
        }
    }

    fn compares(self) -> bool {
        use Binary::*;
        matches!(self, Equal | Unequal | Less | LessOrEqual | Greater | GreaterOrEqual)
    }

    /// As GNU ld: division and remainder are signed, comparisons and shifts are not.
    fn apply(self, left: Value, right: Value) -> Result<Value, ExpressionError> {
        let (a, b) = (left.number, right.number);
        let shift = |shifted: Option<u64>| if b < 64 { shifted.unwrap_or(0) } else { 0 };
        let by = u32::try_from(b).unwrap_or(u32::MAX);
        let number = match self {
            Binary::Add => a.wrapping_add(b),
            Binary::Subtract => a.wrapping_sub(b),
            Binary::Multiply => a.wrapping_mul(b),
            Binary::Divide | Binary::Remainder if b == 0 => return Err(ExpressionError::DivisionByZero),
            Binary::Divide => (a as i64).wrapping_div(b as i64) as u64,
            Binary::Remainder => (a as i64).wrapping_rem(b as i64) as u64,
            Binary::ShiftLeft => shift(a.checked_shl(by)),
            Binary::ShiftRight => shift(a.checked_shr(by)),
            Binary::And => a & b,
            Binary::Or => a | b,
            Binary::Xor => a ^ b,
            Binary::Equal => u64::from(a == b),
            Binary::Unequal => u64::from(a != b),
            Binary::Less => u64::from(a < b),
            Binary::LessOrEqual => u64::from(a <= b),
            Binary::Greater => u64::from(a > b),
            Binary::GreaterOrEqual => u64::from(a >= b),
            Binary::Both => u64::from(a != 0 && b != 0),
            Binary::Either => u64::from(a != 0 || b != 0),
            Binary::Max => a.max(b),
            Binary::Min => a.min(b),
        };
        let section = match (self, left.section, right.section) {
            (Binary::Add, section, None) | (Binary::Add, None, section) => section,
            (Binary::Subtract, section, None) => section,
            (Binary::Max | Binary::Min, Some(first), Some(second)) => {
                Some(if number == a { first } else { second })
            }
            _ => None,
        };
        Ok(Value { number, section })
    }
}

impl fmt::Display for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sign())
    }
}

#[cfg(test)]
mod tests;

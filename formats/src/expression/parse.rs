//! The grammar of expressions: a Pratt parser over a few tokens.

use super::{Binary, Expression, ExpressionError, SectionFact, Unary};

/// Deeper ones are refused: a parser that calls itself must not run out of stack.
const DEPTH_MAX: u32 = 128;
/// More tokens than any command line holds in earnest; the tree is walked by recursion, too.
const TOKENS_MAX: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Number(u64),
    Name(String),
    Sign(&'static str),
}

/// Longer signs first, so that `<<` is not two of `<`.
const SIGNS: [&str; 24] = [
    "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "+", "-", "*", "/", "%", "&", "|", "^", "~", "!", "<",
    ">", "?", ":", "(", ")",
];

/// Binding power of `?:`, looser than all operators.
const SELECT: u8 = 1;
/// Tighter than all operators.
const UNARY: u8 = 30;

fn binary(sign: &str) -> Option<(Binary, u8)> {
    Some(match sign {
        "||" => (Binary::Either, 3),
        "&&" => (Binary::Both, 5),
        "|" => (Binary::Or, 7),
        "^" => (Binary::Xor, 9),
        "&" => (Binary::And, 11),
        "==" => (Binary::Equal, 13),
        "!=" => (Binary::Unequal, 13),
        "<" => (Binary::Less, 15),
        "<=" => (Binary::LessOrEqual, 15),
        ">" => (Binary::Greater, 15),
        ">=" => (Binary::GreaterOrEqual, 15),
        "<<" => (Binary::ShiftLeft, 17),
        ">>" => (Binary::ShiftRight, 17),
        "+" => (Binary::Add, 19),
        "-" => (Binary::Subtract, 19),
        "*" => (Binary::Multiply, 21),
        "/" => (Binary::Divide, 21),
        "%" => (Binary::Remainder, 21),
        _ => return None,
    })
}

pub(super) fn parse(text: &str) -> Result<Expression, ExpressionError> {
    let mut parser = Parser { text, tokens: Vec::new(), next: 0, depth: 0 };
    parser.tokens = parser.lex()?;
    let expression = parser.expression(0)?;
    match parser.peek() {
        None => Ok(expression),
        Some(token) => Err(parser.wrong(format!("{} is not expected here", shown(token)))),
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Each with the place of its first byte.
    tokens: Vec<(Token, usize)>,
    next: usize,
    depth: u32,
}

fn shown(token: &Token) -> String {
    match token {
        Token::Number(number) => number.to_string(),
        Token::Name(name) => format!("'{name}'"),
        Token::Sign(sign) => format!("'{sign}'"),
    }
}

fn in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$' | b'@') || byte >= 0x80
}

impl Parser<'_> {
    fn wrong_at(&self, at: usize, what: impl Into<String>) -> ExpressionError {
        let at = self.text.get(..at).map_or(at, |head| head.chars().count()) + 1;
        ExpressionError::Syntax { what: what.into(), at, text: self.text.to_owned() }
    }

    fn wrong(&self, what: impl Into<String>) -> ExpressionError {
        self.wrong_at(self.tokens.get(self.next).map_or(self.text.len(), |(_, at)| *at), what)
    }

    fn lex(&self) -> Result<Vec<(Token, usize)>, ExpressionError> {
        let (bytes, mut at, mut tokens) = (self.text.as_bytes(), 0, Vec::new());
        while let Some(&byte) = bytes.get(at) {
            if byte.is_ascii_whitespace() {
                at += 1;
                continue;
            }
            let start = at;
            let rest = &self.text[at..];
            let token = if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
                at += sign.len();
                Token::Sign(sign)
            } else if byte == b',' {
                at += 1;
                Token::Sign(",")
            } else if byte == b'"' {
                let end = rest[1..]
                    .find('"')
                    .ok_or_else(|| self.wrong_at(start, "a name without its closing quote"))?;
                at += end + 2;
                Token::Name(rest[1..=end].to_owned())
            } else if in_name(byte) {
                let len = rest.bytes().position(|byte| !in_name(byte)).unwrap_or(rest.len());
                at += len;
                let word = &rest[..len];
                match byte.is_ascii_digit() {
                    true => Token::Number(
                        number(word).ok_or_else(|| self.wrong_at(start, format!("'{word}' is no number")))?,
                    ),
                    false => Token::Name(word.to_owned()),
                }
            } else {
                let sign = rest.chars().next().unwrap_or_default();
                return Err(self.wrong_at(start, format!("'{sign}' means nothing")));
            };
            tokens.push((token, start));
            if tokens.len() > TOKENS_MAX {
                return Err(self.wrong_at(start, format!("more than {TOKENS_MAX} words")));
            }
        }
        Ok(tokens)
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(token, _)| token)
    }

    fn take(&mut self, sign: &'static str) -> bool {
        let found = self.peek() == Some(&Token::Sign(sign));
        self.next += usize::from(found);
        found
    }

    fn need(&mut self, sign: &'static str) -> Result<(), ExpressionError> {
        match self.take(sign) {
            true => Ok(()),
            false => Err(self.wrong(format!("expected '{sign}'"))),
        }
    }

    /// What binds at least as tightly as `power`.
    fn expression(&mut self, power: u8) -> Result<Expression, ExpressionError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.wrong(format!("more than {DEPTH_MAX} levels")));
        }
        let mut left = self.operand()?;
        // A chain of operators makes the tree deeper as well.
        let mut chain = 0;
        while let Some(Token::Sign(sign)) = self.peek().cloned() {
            if sign == "?" && power <= SELECT {
                self.next += 1;
                let first = self.expression(SELECT)?;
                self.need(":")?;
                let second = self.expression(SELECT)?;
                left = Expression::Select(Box::new((left, first, second)));
                continue;
            }
            let Some((operator, tightness)) = binary(sign).filter(|(_, tightness)| *tightness >= power)
            else {
                break;
            };
            chain += 1;
            if chain > DEPTH_MAX {
                return Err(self.wrong(format!("more than {DEPTH_MAX} operators in a row")));
            }
            self.next += 1;
            let right = self.expression(tightness + 1)?;
            left = Expression::Binary(operator, Box::new((left, right)));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn operand(&mut self) -> Result<Expression, ExpressionError> {
        let Some(token) = self.peek().cloned() else { return Err(self.wrong("an operand is missing")) };
        self.next += 1;
        let unary = |operator, x| Expression::Unary(operator, Box::new(x));
        match token {
            Token::Number(number) => Ok(Expression::Number(number)),
            Token::Name(name) if self.peek() == Some(&Token::Sign("(")) => self.call(&name),
            Token::Name(name) if name == "SIZEOF_HEADERS" => Ok(Expression::HeaderSize),
            Token::Name(name) if name == "." => {
                self.next -= 1;
                Err(self.wrong("the location counter '.' has no meaning outside of a linker script"))
            }
            Token::Name(name) => Ok(Expression::Symbol(name)),
            Token::Sign("-") => Ok(unary(Unary::Negate, self.expression(UNARY)?)),
            Token::Sign("~") => Ok(unary(Unary::Complement, self.expression(UNARY)?)),
            Token::Sign("!") => Ok(unary(Unary::Not, self.expression(UNARY)?)),
            Token::Sign("+") => self.expression(UNARY),
            Token::Sign("(") => {
                let inner = self.expression(0)?;
                self.need(")")?;
                Ok(inner)
            }
            Token::Sign(sign) => {
                self.next -= 1;
                Err(self.wrong(format!("an operand is missing before '{sign}'")))
            }
        }
    }

    fn name(&mut self) -> Result<String, ExpressionError> {
        match self.peek().cloned() {
            Some(Token::Name(name)) => {
                self.next += 1;
                Ok(name)
            }
            _ => Err(self.wrong("expected a name")),
        }
    }

    fn call(&mut self, function: &str) -> Result<Expression, ExpressionError> {
        let at = self.next - 1;
        self.need("(")?;
        let called = match function {
            "ABSOLUTE" => Expression::Absolute(Box::new(self.expression(0)?)),
            "ALIGN" | "MAX" | "MIN" => {
                let first = self.expression(0)?;
                if function == "ALIGN" && self.peek() == Some(&Token::Sign(")")) {
                    return Err(self.wrong(
                        "ALIGN of the location counter has no meaning here; write ALIGN(VALUE, ALIGNMENT)",
                    ));
                }
                self.need(",")?;
                let both = Box::new((first, self.expression(0)?));
                match function {
                    "ALIGN" => Expression::Align(both),
                    "MAX" => Expression::Binary(Binary::Max, both),
                    _ => Expression::Binary(Binary::Min, both),
                }
            }
            "DEFINED" => Expression::Defined(self.name()?),
            "ADDR" | "LOADADDR" => Expression::Section(SectionFact::Address, self.name()?),
            "SIZEOF" => Expression::Section(SectionFact::Size, self.name()?),
            "ALIGNOF" => Expression::Section(SectionFact::Alignment, self.name()?),
            "CONSTANT" => match self.name()?.as_str() {
                "MAXPAGESIZE" | "COMMONPAGESIZE" => Expression::PageSize,
                _ => {
                    self.next -= 1;
                    return Err(self.wrong("the constants are MAXPAGESIZE and COMMONPAGESIZE"));
                }
            },
            _ => {
                self.next = at;
                return Err(self.wrong(format!("there is no function {function}")));
            }
        };
        self.need(")")?;
        Ok(called)
    }
}

/// As ld reads it: decimal, `0x` hexadecimal, `0` octal; `K` and `M` multiply.
fn number(word: &str) -> Option<u64> {
    let (digits, factor) = match word.as_bytes().last()? {
        b'k' | b'K' => (&word[..word.len() - 1], 1 << 10),
        b'm' | b'M' => (&word[..word.len() - 1], 1 << 20),
        _ => (word, 1),
    };
    let (digits, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None if digits.len() > 1 && digits.starts_with('0') => (&digits[1..], 8),
        None => (digits, 10),
    };
    u64::from_str_radix(digits, radix).ok()?.checked_mul(factor)
}

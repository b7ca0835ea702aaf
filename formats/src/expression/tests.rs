//! Values, precedence, shapes and mistakes.

use super::*;

struct Known;

impl Scope for Known {
    fn symbol(&self, name: &str) -> Option<Value> {
        let (number, section) = match name {
            "a" => (0x1008, Some(1)),
            "b" => (0x2000, Some(2)),
            "abs" => (0x30, None),
            ".text.f" => (0x1010, Some(1)),
            _ => return None,
        };
        Some(Value { number, section })
    }
    fn section(&self, name: &str) -> Option<SectionFacts> {
        let address = Value { number: 0x1000, section: Some(1) };
        (name == ".text").then_some(SectionFacts { address, size: 0x123, alignment: 16 })
    }
    fn page_size(&self) -> u64 {
        4096
    }
    fn header_size(&self) -> u64 {
        0x200
    }
}

fn value(text: &str) -> Result<Value, ExpressionError> {
    Expression::parse(text)?.evaluate(&Known)
}

#[test]
fn numbers_and_precedence_are_those_of_c() {
    for (text, wanted) in [
        ("1+2*3", 7),
        ("(1+2)*3", 9),
        ("10-4-3", 3),
        ("100/7/2", 7),
        ("17%5", 2),
        ("0x10|1<<3", 0x18),
        ("1<<2+1", 8),
        ("6&3==3", 0),
        ("(6&3)==2", 1),
        ("1|6^3&1", 7),
        ("1||0&&0", 1),
        ("2>1==1", 1),
        ("3<=2", 0),
        ("3>=3", 1),
        ("1!=1", 0),
        ("-1", u64::MAX),
        ("- -5", 5),
        ("~0", u64::MAX),
        ("!0+1", 2),
        ("!7", 0),
        ("0 ? 1 : 0 ? 2 : 3", 3),
        ("1 ? 2 ? 4 : 5 : 3", 4),
        ("4K", 4096),
        ("2M+010", (2 << 20) + 8),
        ("0x1k", 1024),
        ("-7/2", (-3_i64) as u64),
        ("-7%4", (-3_i64) as u64),
        ("1<<64", 0),
        ("-1>>63", 1),
        ("MAX(3,4)+MIN(3,4)", 7),
        ("ALIGN(5,8)", 8),
        ("DEFINED(a)*10+DEFINED(nobody)", 10),
        ("SIZEOF(.text)", 0x123),
        ("ALIGNOF(.text)", 16),
        ("CONSTANT(MAXPAGESIZE)", 4096),
        ("SIZEOF_HEADERS", 0x200),
        ("b-a", 0xff8),
        ("abs+1", 0x31),
        ("ABSOLUTE(a)", 0x1008),
        ("a<b", 1),
        ("a&0xf", 8),
    ] {
        assert_eq!(value(text), Ok(Value::plain(wanted)), "{text}");
    }
}

#[test]
fn addresses_keep_their_section() {
    for (text, number, section) in [
        ("a", 0x1008, 1),
        ("a+8", 0x1010, 1),
        ("8+a", 0x1010, 1),
        ("a-8", 0x1000, 1),
        ("a+(b-a)", 0x2000, 1),
        ("MAX(a,b)", 0x2000, 2),
        ("ALIGN(a,16)", 0x1010, 1),
        ("ADDR(.text)+SIZEOF(.text)", 0x1123, 1),
        ("1?a:b", 0x1008, 1),
        (".text.f", 0x1010, 1),
        ("\".text.f\"+abs", 0x1040, 1),
    ] {
        assert_eq!(value(text), Ok(Value { number, section: Some(section) }), "{text}");
        let relative = |name: &str| Known.symbol(name).is_some_and(|value| value.section.is_some());
        let expression = Expression::parse(text).unwrap().folded(&|_| false).unwrap();
        assert_eq!(expression.is_relative(&relative, true, 4096), Ok(true), "{text}");
    }
}

#[test]
fn what_depends_on_the_load_address_is_refused_where_it_varies() {
    let relative = |name: &str| name != "abs";
    let judge = |text: &str, pie| Expression::parse(text).unwrap().is_relative(&relative, pie, 4096);
    for text in [
        "a+b",
        "-a",
        "~a",
        "!a",
        "1-a",
        "a*2",
        "a&1",
        "a<5",
        "a&&b",
        "a?1:2",
        "abs?a:1",
        "ALIGN(a,8192)",
        "MAX(a,1)",
    ] {
        let error = judge(text, true).unwrap_err();
        assert!(matches!(error, ExpressionError::LoadDependent(_)), "{text}: {error}");
        assert!(judge(text, false).is_ok(), "{text}");
    }
    for text in ["b-a", "a<b", "ABSOLUTE(a+b)", "abs*2", "abs?b-a:1", "SIZEOF(.text)/2"] {
        assert_eq!(judge(text, true), Ok(false), "{text}");
    }
}

#[test]
fn what_needs_no_address_is_computed_early() {
    let folded = |text: &str| Expression::parse(text).unwrap().folded(&|name| name == "there");
    assert_eq!(folded("1+2*3"), Ok(Expression::Number(7)));
    assert_eq!(folded("DEFINED(there)?there+1+1:nobody").unwrap().as_offset(), Some(("there", 2)));
    assert_eq!(folded("DEFINED(nobody)?nobody:4K"), Ok(Expression::Number(4096)));
    assert_eq!(folded("f+(2-3)").unwrap().as_offset(), Some(("f", -1)));
    assert_eq!(folded("4+f-1").unwrap().as_offset(), Some(("f", 3)));
    assert_eq!(folded("f*1").unwrap().as_offset(), None);
    assert_eq!(folded("f+1/0"), Err(ExpressionError::DivisionByZero));
    let expression = Expression::parse("a+SIZEOF(.bss)+(DEFINED(x)?b:c)").unwrap();
    assert_eq!((expression.symbols(), expression.sized_sections()), (vec!["a", "b", "c"], vec![".bss"]));
}

#[test]
fn mistakes_are_placed() {
    for (text, why) in [
        ("", "an operand is missing at character 1"),
        ("1+", "an operand is missing at character 3"),
        ("1 2", "2 is not expected here at character 3"),
        ("(1", "expected ')' at character 3"),
        ("*1", "an operand is missing before '*' at character 1"),
        ("0x", "'0x' is no number at character 1"),
        ("9z", "'9z' is no number"),
        ("99999999999999999999", "is no number"),
        ("a;b", "';' means nothing at character 2"),
        ("1?2", "expected ':'"),
        ("\"a", "closing quote"),
        ("FOO(1)", "there is no function FOO at character 1"),
        ("ALIGN(8)", "location counter"),
        (".+1", "location counter '.'"),
        ("CONSTANT(X)", "MAXPAGESIZE"),
        ("SIZEOF(1)", "expected a name"),
    ] {
        let error = Expression::parse(text).unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
    for (text, error) in [
        ("nobody+1", ExpressionError::UndefinedSymbol("nobody".into())),
        ("SIZEOF(.none)", ExpressionError::NoSection(".none".into())),
        ("a/(1-1)", ExpressionError::DivisionByZero),
        ("a%0", ExpressionError::DivisionByZero),
        ("ALIGN(a,3)", ExpressionError::Alignment(3)),
        ("ALIGN(a,0)", ExpressionError::Alignment(0)),
    ] {
        assert_eq!(value(text), Err(error), "{text}");
    }
    assert_eq!(value("0x8000000000000000/-1"), Ok(Value::plain(1 << 63)));
}

#[test]
fn depth_is_bounded() {
    for text in ["(".repeat(100_000), "-".repeat(100_000), "1?".repeat(2000), "1+".repeat(2000) + "1"] {
        assert!(matches!(Expression::parse(&text), Err(ExpressionError::Syntax { .. })));
    }
}

//! Tests of version scripts: the grammar, what fits, and which of several patterns wins.

use std::cell::Cell;

use super::Assigned::{Local, Unlisted, Version};
use super::*;
use crate::hostile::every_damage;

fn script(text: &str) -> VersionScript {
    VersionScript::parse(text).unwrap()
}

/// What a script says of a name that isn't mangled.
fn assigned(text: &str, name: &str) -> Assigned {
    script(text).assign(name.as_bytes(), || None)
}

fn message(text: &str) -> String {
    VersionScript::parse(text).unwrap_err().to_string()
}

const ALL: &str = "# comment\nV1 {\n  global: open; read*; /* a; */ extern \"C++\" { ns::*; \"f(int, char)\"; };\n\
    local: *;\n};\nV2 { \"quoted*\"; [ab]c?; global; } V1;\nV3 { } V1 V2";

#[test]
fn nodes_have_names_and_parents() {
    let node = |name: &str, parents: &[&str]| Node {
        name: name.to_owned(),
        parents: parents.iter().map(|parent| parent.to_string()).collect(),
    };
    let all = script(ALL);
    assert_eq!(all.nodes, [node("V1", &[]), node("V2", &["V1"]), node("V3", &["V1", "V2"])]);
    assert!(!all.is_nameless());
    let nameless = script("{ a; }; { b; };");
    assert_eq!(nameless.nodes, [node("", &[])]);
    assert!(nameless.is_nameless() && script("").is_nameless());
    assert_eq!(nameless.assign(b"b", || None), Version(0));
    assert_eq!(script("").assign(b"b", || None), Unlisted);
}

#[test]
fn every_form_of_pattern_fits() {
    for (name, expected) in [
        ("open", Version(0)),
        ("opened", Local),
        ("reader", Version(0)),
        ("a", Local),
        ("quoted*", Version(1)),
        ("quoted", Local),
        ("ac1", Version(1)),
        ("cc1", Local),
        ("ac", Local),
        // Not a section, for there is no colon.
        ("global", Version(1)),
    ] {
        assert_eq!(assigned(ALL, name), expected, "{name}");
    }
    assert_eq!(assigned("{ extern; local };", "extern"), Version(0));
    assert_eq!(assigned("{ extern; local };", "local"), Version(0));
}

#[test]
fn cxx_patterns_see_demangled_names() {
    let all = script(ALL);
    let assign = |name: &str, demangled: &str| all.assign(name.as_bytes(), || Some(demangled.to_owned()));
    assert_eq!(assign("_ZN2ns1gEv", "ns::g()"), Version(0));
    assert_eq!(assign("_Z1fic", "f(int, char)"), Version(0));
    assert_eq!(assign("_Z1fi", "f(int)"), Local);
    // A name that isn't mangled is its own demangled form.
    assert_eq!(assigned("{ extern \"C++\" { plain; }; };", "plain"), Version(0));
    // The name as it is still counts.
    assert_eq!(assign("open", "something else"), Version(0));
    let text = "{ extern \"C++\" { extern \"C\" { f; }; g }; h; };";
    let nested = script(text);
    let assign = |name: &[u8]| nested.assign(name, || Some("g".to_owned()));
    assert_eq!((assign(b"f"), assign(b"h"), assign(b"_Z1g")), (Version(0), Version(0), Version(0)));
    let nothing = |name: &[u8]| nested.assign(name, || Some("f".to_owned()));
    assert_eq!((nothing(b"_Z1f"), nothing(b"g")), (Unlisted, Unlisted));
}

#[test]
fn names_are_demangled_at_most_once_and_only_if_needed() {
    let calls = Cell::new(0);
    let demangle = || {
        calls.set(calls.get() + 1);
        None
    };
    script("{ a*; b; local: *; };").assign(b"x", demangle);
    assert_eq!(calls.get(), 0);
    script(ALL).assign(b"x", demangle);
    assert_eq!(calls.get(), 1);
}

/// Each case is as GNU ld 2.40 decides it, but for the three that it refuses because a pattern is there
/// twice.
#[test]
fn precedence_is_that_of_gnu_ld() {
    for (text, expected) in [
        // Exact before glob, wherever they stand.
        ("V1 { global: foo; }; V2 { global: f*; };", Version(0)),
        ("V1 { global: f*; }; V2 { global: foo; };", Version(1)),
        ("V1 { global: foo; local: f*; };", Version(0)),
        ("V1 { global: f*; local: foo; };", Local),
        ("V1 { local: f*; }; V2 { global: foo; };", Version(1)),
        ("V1 { global: *; local: foo; };", Local),
        // Among exact names, the first node.
        ("V1 { global: foo; }; V2 { global: foo; };", Version(0)),
        ("V1 { local: foo; }; V2 { global: foo; };", Local),
        ("V1 { local: foo; global: foo; };", Version(0)),
        // Among globs, the last node; global before local in any node.
        ("V1 { global: f*; }; V2 { global: fo*; };", Version(1)),
        ("V1 { global: fo*; }; V2 { global: f*; };", Version(1)),
        ("V1 { global: f*; local: fo*; };", Version(0)),
        ("V1 { global: f*; }; V2 { local: fo*; };", Version(0)),
        ("V1 { local: fo*; }; V2 { global: f*; };", Version(1)),
        // A bare star comes last, global before local.
        ("V1 { global: f*; }; V2 { global: *; };", Version(0)),
        ("V1 { global: *; local: f*; };", Local),
        ("V1 { global: *; local: *; };", Version(0)),
        ("V1 { global: *; }; V2 { global: *; };", Version(1)),
        ("V1 { local: *; }; V2 { global: *; };", Version(1)),
        ("V1 { global: *; }; V2 { local: f*; };", Local),
        ("V1 { local: *; };", Local),
        ("V1 { local: b*; };", Unlisted),
    ] {
        assert_eq!(assigned(text, "foo"), expected, "{text}");
    }
}

#[test]
fn globs_are_those_of_the_shell() {
    let fits = |pattern: &str, name: &str| assigned(&format!("{{ {pattern}; }};"), name) == Version(0);
    for (pattern, yes, no) in [
        ("a*", "a", "ba"),
        ("*a", "ba", "ab"),
        ("*a*b*", "xaxbx", "xbxax"),
        ("a**b", "ab", "a"),
        ("a?c", "abc", "ac"),
        ("[a-c]1", "b1", "d1"),
        ("[!a-c]1", "d1", "b1"),
        ("[^a-c]1", "d1", "b1"),
        ("[]x]1", "]1", "y1"),
        ("[!]x]1", "y1", "]1"),
        ("[a-]1", "-1", "b1"),
        ("[a\\]]1", "]1", "\\1"),
        ("x[", "x[", "x"),
        ("x[a*", "x[abc", "xa"),
        ("a\\*", "a*", "ab"),
        ("a\\*?", "a*b", "abb"),
        ("a.c*", "a.cd", "abcd"),
        ("$+|^*", "$+|^x", "x"),
        ("_ZTI*", "_ZTI3Foo", "_ZTV3Foo"),
        ("ns::f*", "ns::f", "ns:f"),
    ] {
        assert!(fits(pattern, yes), "{pattern} {yes}");
        assert!(!fits(pattern, no), "{pattern} {no}");
    }
    // Names are bytes: a question mark is one of them, whatever they mean.
    let script = script("{ a?; [z-a]*; };");
    assert_eq!(script.assign(b"a\xff", || None), Version(0));
    assert_eq!(script.assign(b"a\n", || None), Version(0));
    assert_eq!(script.assign("a\u{e9}".as_bytes(), || None), Unlisted);
    assert_eq!(script.assign(b"z", || None), Unlisted);
}

#[test]
fn one_pattern_of_many_is_found() {
    let text: String = (0..2000).map(|n| format!("V{n} {{ global: p{n}_*; e{n}; }};\n")).collect();
    let many = script(&text);
    assert_eq!(many.assign(b"p1234_x", || None), Version(1234));
    assert_eq!(many.assign(b"e1999", || None), Version(1999));
    assert_eq!(many.assign(b"p2000_x", || None), Unlisted);
}

#[test]
fn exact_names_are_listed_in_order() {
    let script = script("V1 { c; b*; \"d*\"; extern \"C++\" { e; }; local: a; }; V2 { c; };");
    let expected: [(&[u8], _); 3] = [(b"a", Local), (b"c", Version(0)), (b"d*", Version(0))];
    assert_eq!(script.exact_names(), expected);
}

#[test]
fn patterns_are_found_as_if_each_was_tried() {
    // Beginnings of beginnings, with gaps, and patterns without any.
    let patterns = [
        "a*", "ab*", "abcd*", "abcd?", "abcde*f", "abd*", "ac[a-c]*", "b*", "ba", "bab*", "*c", "?b*",
        "*[!d]d*",
    ];
    let rule = |node: usize, pattern: &str| format!("V{node} {{ global: {pattern}; }};");
    let whole =
        script(&patterns.iter().enumerate().map(|(node, pattern)| rule(node, pattern)).collect::<String>());
    let single: Vec<_> = patterns.iter().map(|pattern| script(&rule(0, pattern))).collect();
    for number in 0..5_u32.pow(5) {
        // All names of up to five letters: a digit of 0 ends the name.
        let digits = (0..5).map(|place| (number / 5_u32.pow(place) % 5) as u8);
        let name: Vec<u8> = digits.take_while(|digit| *digit > 0).map(|digit| b'`' + digit).collect();
        let fits = |node: &usize| single[*node].assign(&name, || None) == Version(0);
        let exact = (0..patterns.len()).find(|node| patterns[*node].as_bytes() == name);
        let expected = exact.or((0..patterns.len()).rev().find(fits)).map_or(Unlisted, Version);
        assert_eq!(whole.assign(&name, || None), expected, "{}", String::from_utf8_lossy(&name));
    }
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    for (text, expected) in [
        ("V1 {\n a\n b;\n};", "line 3: expected `;`, found `b`"),
        ("V1 {\n f(int);\n};", "line 2: expected `;` (a name with signs needs quotes), found `(`"),
        ("V1 {\n a;", "line 2: expected a symbol or `}`, found the end"),
        ("V1", "line 1: expected `{`, found the end"),
        ("{ a; }\n{ b; };", "line 2: expected `;`, found `{`"),
        ("{ a; } V1;", "line 1: expected `;`, found `V1`"),
        ("V1 { a; } V2 {", "line 1: expected `;` or a version, found `{`"),
        ("};", "line 1: expected a version or `{`, found `}`"),
        ("\"\" { };", "line 1: expected a version or `{`, found `\"\"`"),
        ("{ extern \"Ada\" { a; }; };", "line 1: expected `\"C\"` or `\"C++\"`, found `\"Ada\"`"),
        ("{ extern \"C++\" a; };", "line 1: expected `{`, found `a`"),
        ("{ extern \"C\" { local: a; }; };", "line 1: expected `;`, found `:`"),
        ("{ \"\"; };", "line 1: expected a symbol or `}`, found `\"\"`"),
        ("\n/* a\nb", "line 2: comment without its end"),
        ("{ a;\n\"b };", "line 2: name without its closing quote"),
        ("V1 { };\nV1 { };", "line 2: version `V1` is defined twice"),
        ("V1 { };\n{ a; };", "line 2: a node without a name, which can't be combined with named versions"),
    ] {
        assert_eq!(message(text), expected, "{text}");
    }
}

#[test]
fn scripts_merge_in_order() {
    let merge = |texts: &[&str]| VersionScript::merge(texts.iter().map(|text| script(text)));
    let versions = merge(&["V1 { a; f*; local: *; };", "V2 { b; fo*; } V1;"]).unwrap();
    assert_eq!(versions.nodes.len(), 2);
    for (name, expected) in [("a", Version(0)), ("b", Version(1)), ("foo", Version(1)), ("c", Local)] {
        assert_eq!(versions.assign(name.as_bytes(), || None), expected, "{name}");
    }
    // Parents may stand in a later script.
    assert!(merge(&["V2 { b; } V1;", "V1 { a; };"]).is_ok());
    let lists = merge(&["{ a; };", "{ b; local: *; };", "", "{ c; };"]).unwrap();
    assert_eq!(lists.nodes.len(), 1);
    for (name, expected) in [("a", Version(0)), ("b", Version(0)), ("c", Version(0)), ("d", Local)] {
        assert_eq!(lists.assign(name.as_bytes(), || None), expected, "{name}");
    }
    assert_eq!(merge(&[]).unwrap().assign(b"a", || None), Unlisted);

    let failed = |texts: &[&str]| {
        let error = merge(texts).unwrap_err();
        (error.script, error.to_string())
    };
    assert_eq!(failed(&["V1 { };", "\nV1 { };"]), (1, "line 2: version `V1` is defined twice".into()));
    let missing = "line 2: version `V2` succeeds `V3`, which is no version".to_owned();
    assert_eq!(failed(&["V1 { };", "\nV2 { } V1 V3;"]), (1, missing));
    for order in [["{ a; };", "V1 { };"], ["V1 { };", "{ a; };"]] {
        assert!(failed(&order).1.contains("without a name"));
    }
}

#[test]
fn damage_never_panics() {
    every_damage(
        b"V1 { global: a[!b-d]*; \"q\"; extern \"C++\" { n::f; }; local: *; }; # c\nV2 { /**/ } V1;",
        |bytes| {
            if let Ok(script) = VersionScript::parse(&String::from_utf8_lossy(bytes)) {
                script.assign(b"axyz", || Some("n::f".to_owned()));
            }
        },
    );
    assert!(VersionScript::parse(&"{ extern \"C\" ".repeat(100_000)).is_err());
}

//! COMDAT groups that change hands under the wide gate: the first object that has one gives it up, or gets it.
//!
//! Two units have inline functions in common, or one of them; the program throws through them. Each step is linked over the
//! last one's state, does what another linker's program does, and the oracle finds nothing.

use relink_tests::folder::Folder;
use relink_tests::scene::Scene;
use relink_tests::tools;

/// A datum of its own, a table of exceptions, perhaps a local symbol.
const INLINE: &str = r#"
#include <cstdio>
#include <stdexcept>
__attribute__((noinline)) inline int shared(int x)
{
    static int calls;
#ifdef MARKED
    __asm__ volatile("mark: nop");
#endif
    if (x > 90)
        throw std::runtime_error("far");
    return x * 3 + ++calls;
}
template <class T> struct Held {
    T value;
    ~Held() { value = 0; }
    virtual T twice() { return value + value; }
};
"#;

const USES: &str =
    "    Held<int> held; held.value = shared(x);\n    Held<int> *at = &held;\n    x += at->twice();\n";

/// A unit that has the functions in common, or not.
fn unit(name: &str, has: bool) -> String {
    let uses = if has { USES } else { "" };
    format!("{INLINE}int {name}(int x)\n{{\n{uses}    return x + 1;\n}}\n")
}

fn scene(flags: &str, first: bool, second: bool) -> Scene {
    let main = "int first(int), second(int);\nint main()\n{\n    int x = first(3) + second(4) * 100;\n\
        try { x += first(91) + second(92); } catch (const std::exception &) { x += 5; }\n\
        std::printf(\"%d\\n\", x);\n    return 0;\n}\n";
    let link = if flags.contains("-fPIE") { "-pie" } else { "-no-pie" };
    Scene::new()
        .cxx("first", flags, &unit("first", first))
        .cxx("second", flags, &unit("second", second))
        .cxx("main", flags, &format!("{INLINE}{main}"))
        .linkxx(&format!("{link} -o main first.o second.o main.o"))
}

#[test]
fn the_next_object_takes_over_and_gives_back() {
    for flags in [
        "-O0 -g -fPIE -ffunction-sections -fdata-sections",
        "-O0 -g -fno-pie",
        "-O2 -fPIE -ffunction-sections -fdata-sections",
        "-O0 -DMARKED -fPIE -ffunction-sections -fdata-sections",
    ] {
        let (stage, _) = scene(flags, true, true).incremental_wide();
        let mut had = true;
        for (first, second) in [(false, true), (true, true), (true, false), (true, true)] {
            let second_only_differs = std::mem::replace(&mut had, first) == first;
            let edited = scene(flags, first, second);
            let linked = edited.again(&stage);
            linked[0].assert_outcome("patched");
            // The edited object, and the other one if the groups change hands.
            let parsed = if second_only_differs { 1 } else { 2 };
            assert_eq!(linked[0].counter("inputs_parsed"), parsed, "{flags} {first} {second}");
            assert_eq!(linked[0].counter("whole_program_resolutions"), 0);
            edited.compare_with_scratch(&stage);
        }
        // All give them up at once, a section of tables among them if there is none for each function.
        let none = scene(flags, false, false);
        let outcome = if flags.contains("sections") { "patched" } else { "fell_back_full" };
        none.again(&stage)[0].assert_outcome(outcome);
        none.compare_with_scratch(&stage);
    }
}

/// The first object gets the groups while the second one's copies become others: they count no more.
#[test]
fn both_objects_change_at_once() {
    let flags = "-O0 -g -fPIE -ffunction-sections -fdata-sections";
    let (stage, _) = scene(flags, false, true).incremental_wide();
    let longer =
        scene(flags, true, true).cxx("second", &format!("{flags} -mno-red-zone"), &unit("second", true));
    for edited in [longer, scene(flags, false, true)] {
        edited.again(&stage)[0].assert_outcome("patched");
        edited.compare_behaviour(&stage);
    }
}

/// Units refer to macros of others by their groups.
#[test]
fn groups_of_debug_information_are_left_to_a_full_link() {
    let flags = "-O0 -g3 -fPIE";
    let (stage, _) = scene(flags, true, true).incremental_wide();
    let bare = scene(flags, true, true).cxx("first", flags, "int first(int x) { return x + 1; }\n");
    let linked = bare.again(&stage);
    linked[0].assert_outcome("fell_back_full");
    assert!(linked[0].reasons().contains(&"atom-added"), "{:?}", linked[0].reasons());
    bare.compare_with_scratch(&stage);
}

/// A name that somebody defines in no group as well: who comes first is another question than who owns the group.
#[test]
fn names_outside_of_groups_are_left_to_a_full_link() {
    let weak = "extern \"C\" __attribute__((weak)) int name(int x) { return x * 7; }\n";
    let inline = |uses: bool, own: &str| {
        let uses = if uses {
            "extern \"C\" inline int name(int x) { return x * 5; }\n"
        } else {
            "extern \"C\" int name(int);\n"
        };
        format!("{uses}int {own}(int x) {{ return name(x) + 1; }}\n")
    };
    let main = "#include <cstdio>\nint first(int), second(int);\nint main() { std::printf(\"%d\\n\", first(3) + second(4) * 100); return 0; }\n";
    let scene = |first: bool| {
        Scene::new()
            .cxx("first", "-O0 -g", &inline(first, "first"))
            .cxx("weak", "-O0 -g", weak)
            .cxx("second", "-O0 -g", &inline(true, "second"))
            .cxx("main", "-O0 -g", main)
            .linkxx("-pie -o main first.o weak.o second.o main.o")
    };
    let (stage, _) = scene(true).incremental_wide();
    for first in [false, true] {
        scene(first).again(&stage)[0].assert_outcome("fell_back_full");
        scene(first).compare_with_scratch(&stage);
    }
}

/// More functions in one edit than a unit had spare rows.
#[test]
fn many_groups_come_at_once() {
    let unit = |count: usize| {
        let calls: String = (0..count).map(|n| format!(" + held<{n}>(x)")).collect();
        format!(
            "template <int N> int held(int x) {{ return x * N + 1; }}\nint work(int x) {{ return x{calls}; }}\n"
        )
    };
    let main =
        "#include <cstdio>\nint work(int);\nint main() { std::printf(\"%d\\n\", work(3)); return 0; }\n";
    let scene = |count: usize| {
        let flags = "-O0 -fPIE -ffunction-sections -fno-asynchronous-unwind-tables -fno-exceptions";
        Scene::new()
            .cxx("work", flags, &unit(count))
            .cxx("main", flags, main)
            .linkxx("-pie -o main work.o main.o")
    };
    let (stage, _) = scene(40).incremental_wide();
    for count in [41, 80, 2, 80] {
        let edited = scene(count);
        edited.again(&stage)[0].assert_outcome("patched");
        edited.compare_with_scratch(&stage);
    }
}

/// Where the functions of a class are: in the header, or in one of the units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    Header,
    First,
    Second,
    Third,
}

/// Functions move from a header to a unit and back, all who use them are compiled again.
#[test]
fn inline_functions_become_others_and_inline_again() {
    use Home::{First, Header, Second, Third};
    let bodies = "Tally::Tally(int start) : sum(start) { ++made; }\nint Tally::add(int x) { if (x > 90) throw sum; return sum += x; }\n\
                  Tally::~Tally() { --made; }\n";
    let unit = |name: &str, home: Home, own: Home| {
        let class =
            "struct Tally { int sum; static int made; Tally(int start); int add(int x); ~Tally(); };\n";
        let inline = bodies.replace("\nint", "\ninline int").replace("\nTally::~", "\ninline Tally::~");
        let bodies = match home {
            Header => format!("inline {inline}"),
            _ if home == own => bodies.to_owned(),
            _ => String::new(),
        };
        let made = if own == First { "int Tally::made;\n" } else { "" };
        format!(
            "{class}{made}{bodies}int {name}(int x)\n{{\n    Tally tally(x);\n    try {{ tally.add(x * 30); }} catch (int old) {{ return old; }}\n\
             \x20   return tally.add(Tally::made);\n}}\n"
        )
    };
    // A unit keeps an inline function: without any there would be no lists of ranges either.
    let main = "#include <cstdio>\nint first(int), second(int), third(int);\ninline int one() { return 1; }\n\
                int main() { std::printf(\"%d %d %d\\n\", first(one()), second(2), third(4)); return 0; }\n";
    for flags in ["-O0 -g -fPIE -ffunction-sections", "-O2 -fno-pie", "-O0 -g -fPIE"] {
        let link = if flags.contains("-fPIE") { "-pie" } else { "-no-pie" };
        let scene = |home: Home| {
            Scene::new()
                .cxx("first", flags, &unit("first", home, First))
                .cxx("second", flags, &unit("second", home, Second))
                .cxx("third", flags, &unit("third", home, Third))
                .cxx("main", flags, main)
                .linkxx(&format!("{link} -o main first.o second.o third.o main.o"))
        };
        let (stage, _) = scene(Header).incremental_wide();
        for home in [Second, Header, First, Header, Third, First, Third, Header] {
            let edited = scene(home);
            let linked = edited.again(&stage);
            assert_eq!(linked[0].outcome(), "patched", "{flags} {home:?}: {:#}", linked[0].report["reasons"]);
            // What was compiled again, and nothing beside it.
            assert!(linked[0].counter("inputs_parsed") <= 3, "{flags} {home:?}: {:#}", linked[0].report);
            assert_eq!(linked[0].counter("whole_program_resolutions"), 0, "{flags} {home:?}");
            edited.compare_with_scratch(&stage);
        }
    }
}

/// Units that don't agree: each has a function of its own in a group, in none, or not at all, and not all are compiled again.
/// Which one is used, another linker knows.
#[test]
fn function_of_several_units_is_the_one_that_others_choose() {
    const NAMES: [&str; 3] = ["first", "second", "third"];
    let unit = |at: usize, form: usize| {
        let inline = ["", "inline ", ""][form];
        let body = format!("{{ return x * 10 + {}; }}", 1 + at + 3 * form);
        let tag =
            if form == 0 { "int tag(int x);".to_owned() } else { format!("{inline}int tag(int x) {body}") };
        format!("{tag}\nint {}(int x) {{ return tag(x) - {at}; }}\n", NAMES[at])
    };
    let main = "#include <cstdio>\nint first(int), second(int), third(int);\ninline int one() { return 1; }\n\
                int main() { std::printf(\"%d %d %d\\n\", first(one()), second(2), third(4)); return 0; }\n";
    let flags = "-O0 -g -fPIE -ffunction-sections";
    let scene = |forms: [usize; 3]| {
        let units = forms.iter().enumerate();
        let scene =
            units.fold(Scene::new(), |scene, (at, &form)| scene.cxx(NAMES[at], flags, &unit(at, form)));
        scene.cxx("main", flags, main).linkxx("-pie -o main first.o second.o third.o main.o")
    };
    let mut forms = [1, 1, 1];
    let (stage, _) = scene(forms).incremental_wide();
    let (mut random, mut patched, mut steps) = (7_u32, 0, 0);
    while steps < 60 {
        let mut next = forms;
        for form in &mut next {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if random >> 30 != 0 {
                *form = (random >> 20) as usize % 3;
            }
        }
        let strong = next.iter().filter(|&&form| form == 2).count();
        if next == forms || next == [0; 3] || strong > 1 {
            continue;
        }
        let edited = scene(next);
        let linked = edited.again(&stage);
        patched += usize::from(linked[0].outcome() == "patched");
        edited.compare_behaviour(&stage);
        (forms, steps) = (next, steps + 1);
    }
    // One in a group beside one in none, and all that follows of it, is left to a full link.
    assert!(patched >= 12, "{patched}");
}

/// Groups of one signature that do not define the same names: what the owner does not define is nowhere.
#[test]
fn names_that_a_groups_owner_lacks_are_left_to_a_full_link() {
    let group = |names: &[&str]| {
        let bodies = names.iter().map(|name| format!(".weak {name}\n{name}: mov $5, %eax\nret\n"));
        let bodies: String = bodies.collect();
        format!(
            ".section .text.both,\"axG\",@progbits,both,comdat\n{bodies}.section .note.GNU-stack,\"\",@progbits\n"
        )
    };
    let plain = ".globl more\nmore: mov $7, %eax\nret\n.section .note.GNU-stack,\"\",@progbits\n";
    let main = "int both(void);\nint more(void) __attribute__((weak));\nint main(void) { return both() + (more ? more() : 0); }\n";
    let folder = Folder::new();
    let link = || folder.patch("main", &["-Wl,--gate=wide", "main.o", "first.o", "second.o", "-no-pie"]);
    let status = || tools::run_image(&folder.path("main"), &[]).status;
    folder.unit("main", &["-O0", "-fno-pie"], main);
    folder.assembled("first", &group(&["both"])).assembled("second", plain);
    assert_eq!((link().0, status()), ("full".to_owned(), 12));
    folder.assembled("second", &group(&["both", "more"]));
    assert_eq!((link().0, status()), ("fell_back_full".to_owned(), 5));
}

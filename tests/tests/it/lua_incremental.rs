//! Lua with `--incremental`: ten body edits in ten files, one at a time, each of them a patch with the right result.

use std::path::{Path, PathBuf};

use relink_tests::cc::Opt;
use relink_tests::real::{Link, Real, program_file};
use relink_tests::tools::{self, Said};
use relink_tests::{ld, readers, scratch, sources};
use serde_json::Value;

/// File, text that stands there once, and what takes its place. None adds a literal, a name or data.
const EDITS: [(&str, &str, &str); 10] = [
    (
        "lapi.c",
        "  return cast_int(L->top.p - (L->ci->func.p + 1));",
        "  if (L == 0) return 0;\n  return cast_int(L->top.p - (L->ci->func.p + 1));",
    ),
    (
        "lbaselib.c",
        "  luaL_tolstring(L, 1, NULL);\n  return 1;",
        "  luaL_tolstring(L, 1, NULL);\n  if (lua_gettop(L) == 0) return 0;\n  return 1;",
    ),
    // The script sees this one.
    (
        "lmathlib.c",
        "    if (n < 0) n = (lua_Integer)(0u - (lua_Unsigned)n);\n    lua_pushinteger(L, n);",
        "    if (n < 0) n = (lua_Integer)(0u - (lua_Unsigned)n);\n    lua_pushinteger(L, n + 1);",
    ),
    // And this one: every second letter stays.
    ("lstrlib.c", "    p[i] = toupper(uchar(s[i]));", "    p[i] = (i & 1) ? s[i] : toupper(uchar(s[i]));"),
    (
        "ltablib.c",
        "  if (n > 1) {  /* non-trivial interval? */",
        "  if (L == 0) return 0;\n  if (n > 1) {  /* non-trivial interval? */",
    ),
    (
        "lvm.c",
        "int luaV_tointegerns (const TValue *obj, lua_Integer *p, F2Imod mode) {\n",
        "int luaV_tointegerns (const TValue *obj, lua_Integer *p, F2Imod mode) {\n  if (obj == 0 || p == 0) return 0;\n",
    ),
    (
        "lgc.c",
        "void luaC_step (lua_State *L) {\n  global_State *g = G(L);\n",
        "void luaC_step (lua_State *L) {\n  global_State *g = G(L);\n  if (g == 0) return;\n",
    ),
    (
        "lstring.c",
        "TString *luaS_new (lua_State *L, const char *str) {\n",
        "TString *luaS_new (lua_State *L, const char *str) {\n  if (str == 0) return 0;\n",
    ),
    (
        "ltable.c",
        "const TValue *luaH_get (Table *t, const TValue *key) {\n",
        "const TValue *luaH_get (Table *t, const TValue *key) {\n  if (t == 0) return 0;\n",
    ),
    (
        "lutf8lib.c",
        "  lua_Integer n = 0;  /* counter for the number of characters */",
        "  lua_Integer n = L == 0;  /* counter for the number of characters */",
    ),
];

/// A folder with the sources and the objects made of them.
struct Tree {
    dir: tempfile::TempDir,
    objects: Vec<PathBuf>,
    real: Real,
}

impl Tree {
    fn new() -> Tree {
        let (dir, real) = (scratch(), Real::lua());
        for entry in std::fs::read_dir(sources::lua()).unwrap() {
            let path = entry.unwrap().path();
            relink_tests::write(dir.path().join(path.file_name().unwrap()), relink_tests::read(&path));
        }
        relink_tests::write(dir.path().join("lua_main.c"), relink_tests::read(program_file("lua_main.c")));
        let names: Vec<_> = real.sources().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        let tree = Tree {
            objects: names.iter().map(|n| dir.path().join(n).with_extension("o")).collect(),
            dir,
            real,
        };
        names.iter().for_each(|name| tree.compile(&name.to_string_lossy()));
        tree
    }

    /// As make does: the object is written anew.
    fn compile(&self, name: &str) {
        let mut command = tools::GCC.command();
        command.current_dir(self.dir.path()).args(["-O0", "-g", "-ffunction-sections", "-fdata-sections"]);
        command.args(["-DLUA_USE_POSIX", "-c", name]);
        tools::say(&mut command).ok();
    }

    #[track_caller]
    fn edit(&self, (file, from, to): (&str, &str, &str)) {
        let path = self.dir.path().join(file);
        let text = String::from_utf8(relink_tests::read(&path)).unwrap();
        assert_eq!(text.matches(from).count(), 1, "`{from}` in {file}");
        relink_tests::write(&path, text.replace(from, to));
        self.compile(file);
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("lua")
    }

    /// Links with `ld.relink --incremental`; outcome and report.
    #[track_caller]
    fn link(&self) -> (String, Value) {
        let report = self.dir.path().join("report.json");
        let report_flag = format!("-Wl,--incremental,--report={}", report.display());
        self.real.link(&self.objects, Link::Static, Some(ld::gcc_prefix()), &[&report_flag], &self.out());
        let report: Value = serde_json::from_slice(&relink_tests::read(report)).unwrap();
        (report["outcome"].as_str().unwrap().to_owned(), report)
    }

    /// The program does what the same objects do under the system's linker, and the oracle finds nothing.
    #[track_caller]
    fn assert_right(&self) -> Said {
        let reference = self.dir.path().join("reference");
        self.real.link(&self.objects, Link::Static, None, &[], &reference);
        let (found, wanted) = (self.real.run(&self.out()), self.real.run(&reference));
        assert_eq!((found.status, &found.stdout), (wanted.status, &wanted.stdout), "{found}");
        assert_eq!(found.status, 0, "{found}");
        tools::say(ld::relink().arg("verify").arg(self.out())).ok();
        found
    }
}

#[test]
fn ten_body_edits_are_ten_patches() {
    let tree = Tree::new();
    let (outcome, _) = tree.link();
    assert_eq!(outcome, "full");
    let mut answer = tree.assert_right().stdout;
    for edit in EDITS {
        tree.edit(edit);
        let (outcome, report) = tree.link();
        assert_eq!(outcome, "patched", "{}: {report:#}", edit.0);
        assert_eq!(report["counters"]["whole_program_resolutions"], 0);
        assert_eq!(report["counters"]["inputs_parsed"], 1, "{}", edit.0);
        let now = tree.assert_right().stdout;
        let shows = ["lmathlib.c", "lstrlib.c"].contains(&edit.0);
        assert_eq!(now != answer, shows, "whether the edit of {} shows", edit.0);
        answer = now;
    }
    assert_readable(&tree.out(), &tree);
}

/// After all edits the readers are as content as with a link from scratch by the system's linker.
#[track_caller]
fn assert_readable(image: &Path, tree: &Tree) {
    let reference = tree.dir.path().join("reference");
    readers::assert_no_worse(image, &readers::complaints(&reference));
    let bytes = relink_tests::read(image);
    let names =
        relink_tests::elf::some_functions(&relink_tests::elf::Elf::parse(&bytes), tree.real.sources());
    relink_tests::lines::assert_same_lines(image, &reference, &names);
}

#[test]
fn edits_are_body_edits_and_show_what_they_should() {
    assert_eq!(
        EDITS.map(|edit| edit.0).into_iter().collect::<std::collections::BTreeSet<_>>().len(),
        EDITS.len()
    );
    for (file, from, _) in EDITS {
        let text = String::from_utf8(relink_tests::read(sources::lua().join(file))).unwrap();
        assert_eq!(text.matches(from).count(), 1, "`{from}` in {file}");
    }
    let real = Real::lua();
    let objects = real.objects(&real.cc(Opt::O0));
    let dir = scratch();
    let reference = dir.path().join("reference");
    real.link(&objects, Link::Static, None, &[], &reference);
    let before = real.run(&reference).ok().stdout;
    assert!(before.contains("math 4 9 3"), "{before}");
    assert!(before.contains("words BROWN,FOX,QUICK,THE"), "{before}");
}

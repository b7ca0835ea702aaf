//! Projects of C as their users build them: a shared library and a position independent program, by gcc and by clang, with
//! and without optimisation, with the address sanitizer; linked, run, edited, patched, run again.

use std::path::{Path, PathBuf};

use relink_tests::cc::Cc;
use relink_tests::real::program_file;
use relink_tests::scene::Scene;
use relink_tests::tools::{CLANG, GCC, Said, Tool};
use relink_tests::{read, sources};

/// Sources, how they are compiled, and an edit that the program's output shows.
struct Project {
    name: &'static str,
    library: Vec<PathBuf>,
    main: PathBuf,
    flags: Vec<String>,
    /// What both links end with.
    libraries: &'static str,
    /// Files beside the program.
    files: Vec<(&'static str, String)>,
    run: &'static str,
    /// A file of the library, a text of it, and another.
    edit: (&'static str, &'static str, &'static str),
}

/// Compiler and its flags.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    pub(crate) compiler: Tool,
    pub(crate) flags: &'static [&'static str],
    /// For the links.
    pub(crate) link: &'static str,
    /// Whether readers are asked; of code with instrumentation they have nothing to say.
    pub(crate) readers: bool,
}

/// gcc twice, clang twice, both with the address sanitizer.
pub(crate) const WAYS: [Way; 6] = [
    Way { compiler: GCC, flags: &["-O0", "-g"], link: "", readers: true },
    Way { compiler: GCC, flags: &["-O2"], link: "", readers: true },
    Way { compiler: CLANG, flags: &["-O0", "-g"], link: "", readers: true },
    Way { compiler: CLANG, flags: &["-O2"], link: "", readers: true },
    Way {
        compiler: GCC,
        flags: &["-O1", "-g", "-fsanitize=address"],
        link: "-fsanitize=address",
        readers: false,
    },
    Way {
        compiler: CLANG,
        flags: &["-O1", "-g", "-fsanitize=address"],
        link: "-fsanitize=address",
        readers: false,
    },
];

impl Way {
    /// The compiler with more flags.
    pub(crate) fn cc<S: Into<String>>(self, more: impl IntoIterator<Item = S>) -> Cc {
        Cc::by(self.compiler, self.flags.iter().copied()).with(more)
    }
}

fn zlib() -> Project {
    let dir = sources::zlib();
    Project {
        name: "z",
        library: sources::units(&dir),
        main: program_file("zlib_main.c"),
        flags: vec![format!("-I{}", dir.display()), "-DHAVE_UNISTD_H".to_owned()],
        libraries: "",
        files: Vec::new(),
        run: "main file.gz",
        edit: ("zutil.c", "    return ZLIB_VERSION;", "    return &ZLIB_VERSION[2];"),
    }
}

fn zstd() -> Project {
    let dir = sources::zstd();
    let folders = ["common", "compress", "decompress", "dictBuilder"];
    Project {
        name: "zstd",
        library: folders.iter().flat_map(|folder| sources::units(&dir.join(folder))).collect(),
        main: program_file("zstd_main.c"),
        flags: [format!("-I{}", dir.display())]
            .into_iter()
            .chain(["-DZSTD_MULTITHREAD", "-DZSTD_DISABLE_ASM", "-pthread"].map(str::to_owned))
            .collect(),
        libraries: "-pthread",
        files: Vec::new(),
        run: "main",
        edit: ("zstd_common.c", "{ return ZSTD_VERSION_NUMBER; }", "{ return ZSTD_VERSION_NUMBER + 7; }"),
    }
}

fn lua() -> Project {
    let script = String::from_utf8(read(program_file("test.lua"))).unwrap();
    Project {
        name: "lua",
        library: sources::lua_units(),
        main: program_file("lua_main.c"),
        flags: vec![format!("-I{}", sources::lua().display()), "-DLUA_USE_POSIX".to_owned()],
        libraries: "-lm",
        files: vec![("test.lua", script)],
        run: "main test.lua",
        edit: (
            "lstrlib.c",
            "    p[i] = toupper(uchar(s[i]));",
            "    p[i] = (i & 1) ? s[i] : toupper(uchar(s[i]));",
        ),
    }
}

fn sqlite() -> Project {
    let dir = sources::sqlite();
    let sql = "create table t(a integer primary key, b text);
        with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000)
        insert into t select i, printf('row %d', i * 7) from n;
        select count(*), sum(a), max(b), json_extract('{\"a\":[1,5]}', '$.a[1]') from t where b like 'row %7';
        pragma integrity_check;
        select sqlite_version();";
    Project {
        name: "sqlite3",
        library: vec![dir.join("sqlite3.c")],
        main: dir.join("shell.c"),
        flags: vec![format!("-I{}", dir.display()), "-DSQLITE_ENABLE_FTS5".to_owned(), "-pthread".to_owned()],
        libraries: "-lm -pthread",
        files: vec![("test.sql", sql.to_owned())],
        run: "main -init test.sql :memory: .quit",
        edit: (
            "sqlite3.c",
            "sqlite3_libversion(void){ return sqlite3_version; }",
            "sqlite3_libversion(void){ return sqlite3_version + 2; }",
        ),
    }
}

impl Project {
    fn scene(&self, way: Way) -> Scene {
        let cc = way.cc(self.flags.iter().cloned());
        let mut scene = Scene::new().file("main.o", read(cc.with(["-fPIE"]).file(&self.main))).run(self.run);
        for (name, text) in &self.files {
            scene = scene.file(name, text);
        }
        let mut objects = String::new();
        for source in &self.library {
            let name = object_name(source);
            objects += &format!("{name} ");
            scene = scene.file(&name, read(cc.with(["-fPIC"]).file(source)));
        }
        let (name, libraries, more) = (self.name, self.libraries, way.link);
        scene
            .link_by(way.compiler, &format!("-shared {more} -o lib{name}.so {objects} {libraries}"))
            .link_by(way.compiler, &format!("-pie {more} -o main main.o lib{name}.so {libraries}"))
    }

    /// The same after the edit.
    fn edited(&self, way: Way) -> Scene {
        let (file, from, to) = self.edit;
        let source =
            self.library.iter().find(|source| source.ends_with(file)).expect("a file of the library");
        let object = way.cc(self.flags.iter().cloned()).with(["-fPIC"]).edited(source, from, to);
        self.scene(way).file(&object_name(source), read(object))
    }

    fn judge(&self, ways: &[Way]) {
        for &way in ways {
            let [before, after] = judge_edit(&self.scene(way), &self.edited(way), self.run, way);
            assert!(before.stdout != after.stdout, "the edit shows: {after}");
        }
    }
}

/// Links a scene with state and patches it to what it is after an edit, which is judged as a link from nothing, too. The
/// runs before and after.
#[track_caller]
pub(crate) fn judge_edit(scene: &Scene, edited: &Scene, run: &str, way: Way) -> [Said; 2] {
    if way.readers {
        edited.judge();
    }
    let (stage, _) = scene.incremental();
    let before = stage.run(run).ok();
    let linked = edited.again(&stage);
    linked.iter().for_each(|linked| linked.assert_outcome("patched"));
    if way.readers {
        edited.compare(&stage);
    } else {
        edited.compare_behaviour(&stage);
    }
    [before, stage.run(run).ok()]
}

pub(crate) fn object_name(source: &Path) -> String {
    format!("{}.o", source.file_stem().expect("a name").to_string_lossy())
}

#[test]
fn zlib_is_built_and_edited() {
    zlib().judge(&WAYS);
}

#[test]
fn zstandard_is_built_and_edited() {
    zstd().judge(&WAYS[..4]);
}

#[test]
fn lua_is_built_and_edited() {
    lua().judge(&WAYS);
}

#[test]
fn sqlite_is_built_and_edited() {
    sqlite().judge(&WAYS[..4]);
}

//! Real programs: what they are made of, how gcc links them, and how they are judged.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::cc::{Cc, Opt};
use crate::tools::{self, Said, Tool};
use crate::{elf, ld, lines, readers, sources};

/// How a program is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// `-static`
    Static,
    /// `-static-pie`
    StaticPie,
}

impl Link {
    /// Both.
    pub const BOTH: [Link; 2] = [Link::Static, Link::StaticPie];

    /// As gcc is told.
    pub fn flag(self) -> &'static str {
        match self {
            Link::Static => "-static",
            Link::StaticPie => "-static-pie",
        }
    }
}

/// A program: sources, compiler driver, and one run.
#[derive(Clone, Debug)]
pub struct Real {
    /// Its name.
    pub name: &'static str,
    sources: Vec<PathBuf>,
    flags: Vec<String>,
    driver: Tool,
    libraries: &'static [&'static str],
    /// Arguments of the run.
    pub args: Vec<String>,
}

/// A file of `tests/programs`.
pub fn program_file(name: &str) -> PathBuf {
    crate::root().join("tests/programs").join(name)
}

/// A folder with a link `ld` to lld, for gcc's `-B`.
#[track_caller]
pub fn lld_prefix() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| ld::prefix_of(&tools::LLD.path(), "lld"))
}

impl Real {
    fn of(name: &'static str, files: &[&str]) -> Real {
        Real {
            name,
            sources: files.iter().map(|file| program_file(file)).collect(),
            flags: Vec::new(),
            driver: tools::GCC,
            libraries: &[],
            args: Vec::new(),
        }
    }

    /// C: formatted output, memory, mathematics.
    pub fn hello() -> Real {
        Real { libraries: &["-lm"], args: vec!["x".to_owned()], ..Real::of("hello", &["hello.c"]) }
    }

    /// C++: exceptions, streams, thread_local, static construction.
    pub fn cxx() -> Real {
        let flags = vec!["-std=c++17".to_owned()];
        Real { driver: tools::GXX, flags, ..Real::of("cxx", &["cxx_main.cpp", "cxx_other.cpp"]) }
    }

    /// POSIX threads.
    pub fn threads() -> Real {
        Real {
            flags: vec!["-pthread".to_owned()],
            libraries: &["-pthread"],
            ..Real::of("threads", &["threads.c"])
        }
    }

    /// Lua 5.4 with a script that touches every library.
    #[track_caller]
    pub fn lua() -> Real {
        let mut real = Real::of("lua", &["lua_main.c"]);
        real.sources.extend(sources::lua_units());
        real.flags = vec!["-DLUA_USE_POSIX".to_owned(), format!("-I{}", sources::lua().display())];
        real.libraries = &["-lm"];
        real.args = vec![program_file("test.lua").to_string_lossy().into_owned()];
        real
    }

    /// The shell of SQLite.
    #[track_caller]
    pub fn sqlite() -> Real {
        let dir = sources::sqlite();
        let mut real = Real::of("sqlite", &[]);
        real.sources = vec![dir.join("shell.c"), dir.join("sqlite3.c")];
        real.flags =
            ["-DSQLITE_OMIT_LOAD_EXTENSION", "-DSQLITE_ENABLE_FTS5", "-pthread"].map(str::to_owned).into();
        real.libraries = &["-lm", "-pthread"];
        let sql = "create table t(a integer primary key, b text);
            with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000)
            insert into t select i, printf('row %d', i * 7) from n;
            create index ti on t(b);
            select count(*), sum(a), max(b) from t where b like 'row %7';
            create virtual table f using fts5(x); insert into f values('incremental linking'), ('full link');
            select x from f where f match 'incremental';
            select json_extract('{\"a\":[1,2,{\"b\":5}]}', '$.a[2].b'), round(sqrt(2), 5), upper(hex('ab'));
            select group_concat(a, ',') over (order by a desc) from t limit 3;
            pragma integrity_check;";
        real.args = vec![":memory:".to_owned(), sql.to_owned()];
        real
    }

    /// Names of the sources in the order of the link.
    pub fn sources(&self) -> &[PathBuf] {
        &self.sources
    }

    /// The compiler of its units.
    pub fn cc(&self, opt: Opt) -> Cc {
        let level = [opt.flag().to_owned()];
        let debug = (opt == Opt::O0).then(|| "-g".to_owned());
        let flags = level.into_iter().chain(debug).chain(self.flags.iter().cloned());
        if self.driver.package == tools::GXX.package { Cc::cxx(flags) } else { Cc::new(flags) }
    }

    /// Its objects.
    #[track_caller]
    pub fn objects(&self, cc: &Cc) -> Vec<PathBuf> {
        self.sources.iter().map(|source| cc.file(source)).collect()
    }

    /// Links objects with gcc and the linker that stands in a folder; the system's where none is given.
    #[track_caller]
    pub fn link(
        &self,
        objects: &[PathBuf],
        link: Link,
        prefix: Option<&Path>,
        more: &[&str],
        out: &Path,
    ) -> Said {
        let mut command = self.driver.command();
        if let Some(prefix) = prefix {
            command.arg(format!("-B{}/", prefix.display()));
        }
        command.arg(link.flag()).args(more).args(objects).args(self.libraries).arg("-o").arg(out);
        tools::say(&mut command).ok()
    }

    /// Runs an image of it.
    #[track_caller]
    pub fn run(&self, image: &Path) -> Said {
        tools::run_image(image, &self.args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Links with `ld.relink` and with the system's linker, and judges the one by the other: behaviour, readers, lines.
    #[track_caller]
    pub fn judge(&self, opt: Opt, link: Link) {
        let objects = self.objects(&self.cc(opt));
        let dir = crate::scratch();
        let [ours, theirs, lld] = ["ours", "theirs", "lld"].map(|name| dir.path().join(name));
        self.link(&objects, link, None, &[], &theirs);
        self.link(&objects, link, Some(lld_prefix()), &[], &lld);
        let said = self.link(&objects, link, Some(ld::gcc_prefix()), &[], &ours);
        assert!(!said.stderr.contains("error"), "{said}");
        let (found, wanted) = (self.run(&ours), self.run(&theirs));
        assert_eq!(
            (found.status, &found.stdout, &found.stderr),
            (wanted.status, &wanted.stdout, &wanted.stderr),
            "{} {opt:?} {link:?}",
            self.name
        );
        assert!(wanted.status < 124 && !wanted.stdout.is_empty(), "the run shows something: {wanted}");
        readers::assert_no_worse(&ours, &readers::complaints_of_others(&theirs, &lld));
        let bytes = crate::read(&ours);
        let names = elf::some_functions(&elf::Elf::parse(&bytes), &self.sources);
        lines::assert_same_lines(&ours, &theirs, &names);
    }
}

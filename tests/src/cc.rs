//! The C compiler, with a cache on disk: a variant is compiled once per machine, not once per test.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::tools::{self, Tool};

/// Level of optimisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opt {
    /// `-O0`
    O0,
    /// `-O1`
    O1,
    /// `-O2`
    O2,
}

impl Opt {
    /// The levels of the acceptance suite.
    pub const ACCEPTANCE: [Opt; 2] = [Opt::O0, Opt::O1];

    /// As the compiler is told.
    pub fn flag(self) -> &'static str {
        match self {
            Opt::O0 => "-O0",
            Opt::O1 => "-O1",
            Opt::O2 => "-O2",
        }
    }
}

/// A compiler with flags.
#[derive(Clone, Debug)]
pub struct Cc {
    compiler: Tool,
    flags: Vec<String>,
}

/// What a compiler's `--version` says first: objects of another compiler are other objects.
fn compiler_version(compiler: &Tool) -> String {
    static KNOWN: Mutex<BTreeMap<&str, String>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let ask = || compiler.run(["--version"]).ok().stdout.lines().next().unwrap_or_default().to_owned();
    known.entry(compiler.names[0]).or_insert_with(ask).clone()
}

impl Cc {
    /// gcc with flags.
    pub fn new<S: Into<String>>(flags: impl IntoIterator<Item = S>) -> Cc {
        Cc { compiler: tools::GCC, flags: flags.into_iter().map(Into::into).collect() }
    }

    /// g++ with flags.
    pub fn cxx<S: Into<String>>(flags: impl IntoIterator<Item = S>) -> Cc {
        Cc { compiler: tools::GXX, ..Cc::new(flags) }
    }

    /// Another compiler of C with flags.
    pub fn by<S: Into<String>>(compiler: Tool, flags: impl IntoIterator<Item = S>) -> Cc {
        Cc { compiler, ..Cc::new(flags) }
    }

    /// The flags of the acceptance fixture.
    pub fn freestanding(opt: Opt) -> Cc {
        Cc::new([
            opt.flag(),
            "-g",
            "-ffreestanding",
            "-fno-stack-protector",
            "-ffunction-sections",
            "-fdata-sections",
            "-fno-tree-loop-distribute-patterns", // No calls of memset where there is no libc.
            "-Wall",
        ])
    }

    /// The same with more flags.
    pub fn with<S: Into<String>>(&self, flags: impl IntoIterator<Item = S>) -> Cc {
        let mut cc = self.clone();
        cc.flags.extend(flags.into_iter().map(Into::into));
        cc
    }

    fn language(&self) -> &'static str {
        if self.compiler.package == tools::GXX.package { "c++" } else { "c" }
    }

    /// Compiles a file where it stands (its folder is the compilation's directory) to a cached object.
    #[track_caller]
    pub fn file(&self, source: &Path) -> PathBuf {
        let (dir, name) = (source.parent().expect("a folder"), source.file_name().expect("a name"));
        let mut text = crate::read(source);
        // Headers beside it are part of what is compiled.
        let mut headers: Vec<_> = std::fs::read_dir(dir)
            .expect("the source's folder")
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "h"))
            .collect();
        headers.sort();
        headers.iter().for_each(|header| text.extend(crate::read(header)));
        self.cached(&name.to_string_lossy(), dir, &text, |out| {
            let mut command = self.compiler.command();
            command.current_dir(dir).args(&self.flags).arg("-c").arg(name).arg("-o").arg(out);
            tools::say(&mut command).ok();
        })
    }

    /// Compiles a file with one text of it replaced by another, as if it stood where it stands.
    ///
    /// # Panics
    /// If the text is not there once.
    #[track_caller]
    pub fn edited(&self, source: &Path, from: &str, to: &str) -> PathBuf {
        let (dir, name) = (source.parent().expect("a folder"), source.file_name().expect("a name"));
        let text = String::from_utf8(crate::read(source)).expect("sources are text");
        assert_eq!(text.matches(from).count(), 1, "{}: {from}", source.display());
        let text = text.replace(from, to);
        self.cached(&name.to_string_lossy(), dir, text.as_bytes(), |out| {
            let scratch = crate::scratch();
            crate::write(scratch.path().join(name), &text);
            let map = format!("-ffile-prefix-map={}={}", scratch.path().display(), dir.display());
            let mut command = self.compiler.command();
            command.current_dir(scratch.path()).args(&self.flags).arg("-iquote").arg(dir);
            tools::say(command.args([&map, "-c"]).arg(name).arg("-o").arg(out)).ok();
        })
    }

    /// Compiles a text; `name` is the source's name in the debug information.
    #[track_caller]
    pub fn text(&self, name: &str, text: &str) -> Vec<u8> {
        let out = self.cached(name, Path::new("/relink-test"), text.as_bytes(), |out| {
            self.compile_text(name, text, out);
        });
        crate::read(out)
    }

    /// The same past the cache: for a text that is compiled once, or to see that two compiles agree.
    #[track_caller]
    pub fn text_anew(&self, name: &str, text: &str) -> Vec<u8> {
        let dir = crate::scratch();
        let out = dir.path().join("out.o");
        self.compile_text(name, text, &out);
        crate::read(out)
    }

    fn compile_text(&self, name: &str, text: &str, out: &Path) {
        let dir = crate::scratch();
        crate::write(dir.path().join(name), text);
        let mut command = self.compiler.command();
        let map = format!("-ffile-prefix-map={}=/relink-test", dir.path().display());
        command.current_dir(dir.path()).args(&self.flags).args([&map, "-x", self.language(), "-c", name]);
        tools::say(command.arg("-o").arg(out)).ok();
    }

    fn cached(&self, name: &str, dir: &Path, text: &[u8], compile: impl FnOnce(&Path)) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        (compiler_version(&self.compiler), self.language(), &self.flags, name, dir, text).hash(&mut hasher);
        let key = hasher.finish();
        // One folder for 1/256 of the objects: a simulator makes many thousands.
        let folder = crate::cache_dir("cc").join(format!("{:02x}", key >> 56));
        std::fs::create_dir_all(&folder).expect("the cache can be written");
        let path = folder.join(format!("{}-{key:016x}.o", name.replace('/', "_")));
        if !path.exists() {
            let beside = tempfile::Builder::new().tempfile_in(&folder).expect("the cache can be written");
            compile(beside.path());
            // Another test may have been faster and be linking its object by now: a file that changes meanwhile is an error.
            if let Err(error) = beside.persist_noclobber(&path) {
                assert!(path.exists(), "the cache can be written: {error}");
            }
        }
        path
    }
}

/// An archive with an index, as `ar rcsD` makes it.
#[track_caller]
pub fn archive<N: AsRef<str>, B: AsRef<[u8]>>(members: &[(N, B)]) -> Vec<u8> {
    archive_with("rcsD", members)
}

/// An archive made with other letters (`rcSD`: no index).
#[track_caller]
pub fn archive_with<N: AsRef<str>, B: AsRef<[u8]>>(letters: &str, members: &[(N, B)]) -> Vec<u8> {
    let dir = crate::scratch();
    for (name, bytes) in members {
        crate::write(dir.path().join(name.as_ref()), bytes);
    }
    let mut command = tools::AR.command();
    command
        .current_dir(dir.path())
        .args([letters, "a.a"])
        .args(members.iter().map(|(name, _)| name.as_ref()));
    tools::say(&mut command).ok();
    crate::read(dir.path().join("a.a"))
}

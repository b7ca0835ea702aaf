//! From the names of a command line to inputs: library search, small linker scripts, and what can't be linked.
//!
//! Every problem of a command line is collected, so that one run shows them all.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use relink_engine::input::Input;
use relink_formats::error::FormatError;
use relink_formats::script::{self, ScriptItem};

use super::claim::FileContent;
use super::error::reason;
use super::input::FileInput;
use super::io::{FileKind, Io, Stat};

/// Scripts may name scripts; one that names itself must end somewhere. Real ones are two deep.
const SCRIPT_DEPTH_MAX: usize = 16;
/// What is read of a file to see what it is: the guess whether it is a script looks at as much.
const HEAD_BYTES: usize = 4096;

/// What a word of the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputName {
    /// A path.
    File(PathBuf),
    /// `-lNAME`; a leading `:` asks for this very file name.
    Library(OsString),
}

/// One input word and the options in force where it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputArg {
    /// What to link.
    pub name: InputName,
    /// `--whole-archive`.
    pub whole_archive: bool,
    /// `-static`, `-Bstatic`: archives only.
    pub static_only: bool,
    /// `--as-needed`: see [`Input::as_needed`].
    pub as_needed: bool,
}

impl InputArg {
    /// A file or library without any options in force.
    pub fn new(name: InputName) -> InputArg {
        InputArg { name, whole_archive: false, static_only: false, as_needed: false }
    }
}

/// Where libraries are looked for.
#[derive(Clone, Debug, Default)]
pub struct SearchPath {
    /// `-L`, in order; `=` or `$SYSROOT` in front stands for the system root.
    pub directories: Vec<PathBuf>,
    /// `--sysroot`.
    pub sysroot: Option<PathBuf>,
    /// `-rpath-link`: where libraries that libraries need would be looked for. Kept with the rest of the search path,
    /// but nothing loads such libraries.
    pub rpath_links: Vec<PathBuf>,
}

/// Inputs that were found, and everything that was not.
#[derive(Debug, Default)]
pub struct ResolvedInputs {
    /// In the order of the link.
    pub inputs: Vec<Input>,
    /// The files behind them, to ask whether they changed.
    pub files: Vec<Arc<FileInput>>,
    /// Every file that had a say, linker scripts too (`--dependency-file`).
    pub dependencies: Vec<PathBuf>,
    /// `ENTRY` of a script.
    pub entry: Option<String>,
    /// Some input is a shared library, so the output needs a loader.
    pub has_shared_libraries: bool,
    /// What is wrong, in order.
    pub errors: Vec<ResolveError>,
    /// Some of the inputs were not looked at: see [`resolve_claimed`](super::resolve_claimed).
    pub partial: bool,
    /// What each of `inputs` is.
    pub(super) contents: Vec<FileContent>,
    /// Hash of the words that led here.
    pub(super) key: u64,
}

impl ResolvedInputs {
    /// Takes a file of the same device, inode, size and modification time for what it was, whatever else was done to it: what
    /// make and its kin trust. Who writes to a file and sets its old time again is believed; by default its contents are
    /// compared.
    pub fn trust_modification_times(&mut self) {
        for (input, file) in self.inputs.iter_mut().zip(&self.files) {
            input.identity = file.identity_by_mtime();
        }
    }
}

/// Why a word of the command line is no input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolveError {
    /// A file that can't be opened.
    CannotOpen {
        /// The file.
        path: PathBuf,
        /// As the system says it.
        why: String,
    },
    /// A library that no directory has.
    LibraryNotFound {
        /// Without the `-l`.
        name: String,
        /// Libraries that there are, to suggest one.
        known: Vec<String>,
        /// Only archives were looked for.
        static_only: bool,
        /// A shared library of this name, where only archives were looked for.
        shared: Option<PathBuf>,
        /// How many directories were searched.
        directories: usize,
    },
    /// A shared library where only archives are wanted.
    SharedLibrary {
        /// The file.
        path: PathBuf,
    },
    /// A file that is said to have changed, and is none of the link.
    NotChanged {
        /// The file.
        path: PathBuf,
        /// Those that are, to suggest one.
        known: Vec<String>,
    },
    /// Something that another linker knows what to do with.
    OutOfReach {
        /// The file.
        path: PathBuf,
        /// What it is.
        why: String,
    },
    /// Something else that can't be linked.
    NotAnInput {
        /// The file.
        path: PathBuf,
        /// What it is, or what is wrong with it.
        why: String,
    },
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResolveError::CannotOpen { path, why } => write!(f, "cannot open {}: {why}", path.display()),
            ResolveError::LibraryNotFound { name, shared: Some(path), .. } => write!(
                f,
                "unable to find library -l{name}: {} is a shared library, a static link needs an archive",
                path.display()
            ),
            ResolveError::LibraryNotFound { name, .. } => write!(f, "unable to find library -l{name}"),
            ResolveError::SharedLibrary { path } => {
                write!(f, "{}: a shared library can't be part of a static link", path.display())
            }
            ResolveError::NotChanged { path, .. } => {
                write!(f, "--changed={}: this link has no such input", path.display())
            }
            ResolveError::OutOfReach { path, why } | ResolveError::NotAnInput { path, why } => {
                write!(f, "{}: {why}", path.display())
            }
        }
    }
}

/// Finds the inputs of a command line.
pub fn resolve_inputs(io: &Arc<dyn Io>, search: &SearchPath, args: &[InputArg]) -> ResolvedInputs {
    let mut resolver = Resolver {
        io: io.clone(),
        sysroot: search.sysroot.clone().unwrap_or_default(),
        directories: Vec::new(),
        archives: HashSet::new(),
        libraries: HashMap::new(),
        kinds: HashMap::new(),
        depth: 0,
        found: ResolvedInputs::default(),
    };
    resolver.directories =
        search.directories.iter().map(|dir| resolver.in_sysroot(dir.as_os_str())).collect();
    resolver.found.key = super::claim::key(&**io, search, args);
    for arg in args {
        let wish = Wish::of(arg);
        match &arg.name {
            InputName::File(path) => resolver.file(path, wish),
            InputName::Library(name) => resolver.library(name, wish),
        }
    }
    resolver.found
}

/// What is wanted of a file, wherever it was named.
#[derive(Clone, Copy)]
struct Wish {
    whole_archive: bool,
    static_only: bool,
    as_needed: bool,
    /// In `AS_NEEDED` of a script: where shared libraries can't be linked, it is none the worse without this one.
    optional: bool,
    /// `-l` found it, so a library without a name of its own is known by its file name.
    searched: bool,
}

impl Wish {
    fn of(arg: &InputArg) -> Wish {
        let InputArg { whole_archive, static_only, as_needed, .. } = *arg;
        Wish { whole_archive, static_only, as_needed, optional: false, searched: false }
    }
}

struct Resolver {
    io: Arc<dyn Io>,
    sysroot: PathBuf,
    directories: Vec<PathBuf>,
    /// Archives that are inputs already, by device and inode: a second look at one can't find a member that the
    /// first did not, since members are found whatever the order (`--start-group` everywhere).
    archives: HashSet<(u64, u64)>,
    /// Shared libraries that are inputs already, in the same way, and their rows in `found.inputs`.
    libraries: HashMap<(u64, u64), usize>,
    /// What the files are that were looked into: drivers name `libgcc.a` four times.
    kinds: HashMap<(u64, u64), Content>,
    depth: usize,
    found: ResolvedInputs,
}

/// What the first bytes of a file tell.
#[derive(Clone, Copy)]
enum Content {
    Object,
    Archive {
        thin: bool,
    },
    Script,
    Shared,
    /// For another machine.
    Foreign,
    Bitcode,
    Other(&'static str),
}

impl Content {
    fn of(head: &[u8]) -> Content {
        let half = |at| head.get(at..at + 2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
        match head {
            // Class, data encoding, machine. A shorter file is an object, and an error once it is read.
            [0x7f, b'E', b'L', b'F', class, data, ..]
                if half(18).is_some_and(|machine| (*class, *data, machine) != (2, 1, 62)) =>
            {
                Content::Foreign
            }
            [0x7f, b'E', b'L', b'F', ..] => match half(16) {
                Some(2) => Content::Other("is an executable, which can't be linked again"),
                Some(3) => Content::Shared,
                _ => Content::Object,
            },
            _ if head.starts_with(b"!<arch>\n") => Content::Archive { thin: false },
            _ if head.starts_with(b"!<thin>\n") => Content::Archive { thin: true },
            [b'B', b'C', 0xc0, 0xde, ..] | [0xde, 0xc0, 0x17, 0x0b, ..] => Content::Bitcode,
            [] => Content::Other("is empty"),
            _ if script::looks_like_script(head) => Content::Script,
            _ => Content::Other("is no ELF object, archive or linker script"),
        }
    }
}

fn head(io: &dyn Io, path: &Path) -> io::Result<Vec<u8>> {
    io.read_at(&io.open_read(path)?, 0, HEAD_BYTES)
}

fn content(io: &dyn Io, path: &Path, stat: &Stat) -> io::Result<Content> {
    match stat.kind {
        FileKind::Directory => return Err(io::ErrorKind::IsADirectory.into()),
        FileKind::Regular => {}
        // A pipe can be read only once, so it is what a pipe mostly is.
        _ => return Ok(Content::Object),
    }
    match told_by_name(path) {
        Some(content) => Ok(content),
        None => Ok(Content::of(&head(io, path)?)),
    }
}

/// The two that come by the thousand are not opened before their bytes are wanted.
fn told_by_name(path: &Path) -> Option<Content> {
    match path.as_os_str().as_encoded_bytes() {
        [.., b'.', b'o'] => Some(Content::Object),
        [.., b'.', b'r', b'l', b'i', b'b'] => Some(Content::Archive { thin: false }),
        _ => None,
    }
}

/// What a file that was an input may be as one.
pub(super) fn content_of(io: &dyn Io, path: &Path, stat: &Stat) -> io::Result<FileContent> {
    match content(io, path, stat)? {
        Content::Object | Content::Foreign => Ok(FileContent::Object),
        Content::Archive { thin: false } => Ok(FileContent::Archive),
        Content::Archive { thin: true } => Ok(FileContent::ThinArchive),
        Content::Shared => Ok(FileContent::Shared),
        Content::Script | Content::Bitcode | Content::Other(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

impl Resolver {
    /// `=dir` and `$SYSROOT/dir` lie below the system root.
    fn in_sysroot(&self, path: &OsStr) -> PathBuf {
        let bytes = path.as_encoded_bytes();
        let Some(rest) = bytes.strip_prefix(b"=").or_else(|| bytes.strip_prefix(b"$SYSROOT")) else {
            return PathBuf::from(path);
        };
        let mut joined = self.sysroot.clone().into_os_string();
        joined.push(std::os::unix::ffi::OsStrExt::from_bytes(rest) as &OsStr);
        PathBuf::from(joined)
    }

    fn error(&mut self, error: ResolveError) {
        // `-lfoo` twice is one mistake.
        if !self.found.errors.contains(&error) {
            self.found.errors.push(error);
        }
    }

    fn cannot_open(&mut self, path: &Path, error: &io::Error) {
        self.error(ResolveError::CannotOpen { path: path.to_owned(), why: reason(error) });
    }

    /// Adds a file, or the inputs that it names as a script.
    fn file(&mut self, path: &Path, wish: Wish) {
        let stat = match self.io.stat(path) {
            Ok(stat) => stat,
            Err(error) => return self.cannot_open(path, &error),
        };
        let file = (stat.identity.device, stat.identity.inode);
        match self.content(path, &stat) {
            Ok(Content::Object | Content::Foreign) => self.add(path, &stat, wish, FileContent::Object),
            Ok(Content::Archive { thin }) => {
                let known = !self.archives.insert(file);
                if !known || wish.whole_archive {
                    let content = if thin { FileContent::ThinArchive } else { FileContent::Archive };
                    self.add(path, &stat, wish, content);
                }
            }
            Ok(Content::Script) => self.script(path, wish),
            Ok(Content::Shared) if wish.static_only && wish.optional => {}
            Ok(Content::Shared) if wish.static_only => {
                self.error(ResolveError::SharedLibrary { path: path.to_owned() });
            }
            Ok(Content::Shared) => {
                if let Some(&row) = self.libraries.get(&file) {
                    // Needed once is needed.
                    self.found.inputs[row].as_needed &= wish.as_needed;
                    return;
                }
                self.libraries.insert(file, self.found.inputs.len());
                self.found.has_shared_libraries = true;
                self.add(path, &stat, wish, FileContent::Shared);
                let name = if wish.searched { path.file_name() } else { None };
                let name = name.unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
                if let Some(input) = self.found.inputs.last_mut() {
                    input.as_needed = wish.as_needed;
                    input.needed_name = Some(name);
                }
            }
            Ok(Content::Bitcode) => {
                let why =
                    "is LLVM bitcode; link-time optimization is not supported yet, compile without -flto";
                self.error(ResolveError::OutOfReach { path: path.to_owned(), why: why.to_owned() });
            }
            Ok(Content::Other(why)) => {
                self.error(ResolveError::NotAnInput { path: path.to_owned(), why: why.to_owned() });
            }
            Err(error) => self.cannot_open(path, &error),
        }
    }

    /// What a file is; each is looked into once.
    fn content(&mut self, path: &Path, stat: &Stat) -> io::Result<Content> {
        if told_by_name(path).is_some() {
            return content(&*self.io, path, stat);
        }
        let file = (stat.identity.device, stat.identity.inode);
        if let Some(&known) = self.kinds.get(&file) {
            return Ok(known);
        }
        let content = content(&*self.io, path, stat)?;
        self.kinds.insert(file, content);
        Ok(content)
    }

    fn head(&self, path: &Path) -> io::Result<Vec<u8>> {
        head(&*self.io, path)
    }

    fn add(&mut self, path: &Path, stat: &Stat, wish: Wish, content: FileContent) {
        let thin = content == FileContent::ThinArchive;
        let file = Arc::new(FileInput::new(self.io.clone(), path.to_owned(), stat, thin));
        let name = path.to_str().map_or_else(|| path.to_string_lossy().into_owned(), str::to_owned);
        let mut input = Input::lazy(name, file.identity(), file.clone());
        input.whole_archive = wish.whole_archive;
        self.found.inputs.push(input);
        self.found.files.push(file);
        self.found.contents.push(content);
        self.found.dependencies.push(path.to_owned());
    }

    /// Finds `-lNAME`.
    fn library(&mut self, name: &OsStr, wish: Wish) {
        let wish = Wish { searched: true, ..wish };
        if let Some(exact) = name.as_encoded_bytes().strip_prefix(b":") {
            let exact: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(exact);
            return match self.in_directories(exact) {
                Some(path) => self.file(&path, wish),
                None => self.not_found(name, wish, None),
            };
        }
        let file_name = |suffix| {
            let mut file = OsString::from("lib");
            file.push(name);
            file.push(suffix);
            file
        };
        let (archive, shared) = (file_name(".a"), file_name(".so"));
        if !wish.static_only {
            // As every ld does: directory by directory, the shared one first.
            for dir in &self.directories {
                let path = dir.join(&shared);
                // One for another machine does not hide those behind it (/usr/lib32).
                let fits = |path: &Path| {
                    self.head(path).is_ok_and(|head| !matches!(Content::of(&head), Content::Foreign))
                };
                if self.is_file(&path) && fits(&path) {
                    return self.file(&path, wish);
                }
                let path = dir.join(&archive);
                if self.is_file(&path) {
                    return self.file(&path, wish);
                }
            }
            return self.not_found(name, wish, None);
        }
        if let Some(path) = self.in_directories(&archive) {
            return self.file(&path, wish);
        }
        // A `.so` may be a text that names archives.
        let mut found = None;
        for path in self.directories.iter().map(|dir| dir.join(&shared)) {
            match self.head(&path) {
                Ok(head) if matches!(Content::of(&head), Content::Script) => return self.script(&path, wish),
                Ok(_) => found = found.or(Some(path)),
                Err(_) => {}
            }
        }
        self.not_found(name, wish, found);
    }

    fn is_file(&self, path: &Path) -> bool {
        self.io.stat(path).is_ok_and(|stat| stat.kind != FileKind::Directory)
    }

    fn in_directories(&self, name: &OsStr) -> Option<PathBuf> {
        self.directories.iter().map(|dir| dir.join(name)).find(|path| self.is_file(path))
    }

    fn not_found(&mut self, name: &OsStr, wish: Wish, shared: Option<PathBuf>) {
        let mut known = Vec::new();
        for dir in &self.directories {
            let names = self.io.list(dir).unwrap_or_default();
            known.extend(names.iter().filter_map(|file| {
                let name = file.to_str()?.strip_prefix("lib")?;
                let shared = name.strip_suffix(".so").filter(|_| !wish.static_only);
                Some(name.strip_suffix(".a").or(shared)?.to_owned())
            }));
        }
        known.sort();
        known.dedup();
        let name = name.to_string_lossy().into_owned();
        self.error(ResolveError::LibraryNotFound {
            name,
            known,
            static_only: wish.static_only,
            shared,
            directories: self.directories.len(),
        });
    }

    /// Adds what a linker script names.
    fn script(&mut self, path: &Path, wish: Wish) {
        let fail = |why| ResolveError::NotAnInput { path: path.to_owned(), why };
        if self.depth == SCRIPT_DEPTH_MAX {
            return self.error(fail("linker scripts that name each other without end".to_owned()));
        }
        let text = match self.io.open_read(path).and_then(|file| self.io.read_to_end(&file)) {
            Ok(text) => text,
            Err(error) => return self.cannot_open(path, &error),
        };
        let items = match script::parse(&text) {
            Ok(items) => items,
            Err(error) => {
                let why = format!("as a linker script: {error}");
                return self.error(match error {
                    FormatError::Unsupported { .. } => {
                        ResolveError::OutOfReach { path: path.to_owned(), why }
                    }
                    _ => fail(why),
                });
            }
        };
        self.found.dependencies.push(path.to_owned());
        self.depth += 1;
        let named = |optional| Wish {
            as_needed: wish.as_needed || optional,
            optional: wish.optional || optional,
            searched: false,
            ..wish
        };
        for item in items {
            match item {
                ScriptItem::File { name, as_needed } => {
                    match self.script_file(path, &name) {
                        Some(found) => self.file(&found, named(as_needed)),
                        None if as_needed => {}
                        None => self.cannot_open(Path::new(&name), &io::Error::from_raw_os_error(2)),
                    };
                }
                ScriptItem::Library { name, as_needed } => self.library(OsStr::new(&name), named(as_needed)),
                ScriptItem::SearchDir(dir) => self.directories.push(self.in_sysroot(OsStr::new(&dir))),
                ScriptItem::Entry(name) => self.found.entry = Some(name),
                ScriptItem::OutputFormat(format) if format != "elf64-x86-64" => {
                    self.error(fail(format!("is for {format}; this linker makes elf64-x86-64")));
                }
                // All archives are searched as one group.
                _ => {}
            }
        }
        self.depth -= 1;
    }

    /// The file that a script means: as GNU ld, absolute names lie in the system root if the script does, others are
    /// looked for in the working directory and in `-L`; as lld, beside the script too.
    fn script_file(&self, script: &Path, name: &str) -> Option<PathBuf> {
        let path = self.in_sysroot(OsStr::new(name));
        if path.is_absolute() {
            if !self.sysroot.as_os_str().is_empty()
                && script.starts_with(&self.sysroot)
                && !path.starts_with(&self.sysroot)
            {
                let inside = self.sysroot.join(path.strip_prefix("/").unwrap_or(&path));
                return Some(inside);
            }
            return Some(path);
        }
        let beside = script.parent().unwrap_or(Path::new("")).join(&path);
        [path.clone(), beside]
            .into_iter()
            .find(|path| self.is_file(path))
            .or_else(|| self.in_directories(path.as_os_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::io::SystemIo;
    use super::*;

    const OBJECT: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x3e\0";
    const SHARED: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0";
    const ARCHIVE: &[u8] = b"!<arch>\n";

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(files: &[(&str, &[u8])]) -> Tree {
            let tree = Tree(tempfile::tempdir().unwrap());
            for (name, bytes) in files {
                let path = tree.0.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
            tree
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// Links `words`: `-lx`, `-Lx` (in the tree) or a file of the tree, all static.
        fn link(&self, words: &[&str]) -> ResolvedInputs {
            self.link_as(words, true, None)
        }

        fn link_as(&self, words: &[&str], static_only: bool, sysroot: Option<&str>) -> ResolvedInputs {
            let mut search =
                SearchPath { sysroot: sysroot.map(|dir| self.path(dir)), ..SearchPath::default() };
            let mut args = Vec::new();
            let mut as_needed = false;
            for word in words {
                if let Some(no) = word.strip_prefix("--").and_then(|word| word.strip_suffix("as-needed")) {
                    as_needed = no.is_empty();
                    continue;
                }
                let name = if let Some(dir) = word.strip_prefix("-L") {
                    search.directories.push(if dir.starts_with(['=', '$']) {
                        dir.into()
                    } else {
                        self.path(dir)
                    });
                    continue;
                } else if let Some(library) = word.strip_prefix("-l") {
                    InputName::Library(library.into())
                } else {
                    InputName::File(self.path(word))
                };
                args.push(InputArg { static_only, as_needed, ..InputArg::new(name) });
            }
            let io: Arc<dyn Io> = Arc::new(SystemIo);
            resolve_inputs(&io, &search, &args)
        }

        fn names(&self, resolved: &ResolvedInputs) -> Vec<String> {
            assert_eq!(resolved.errors, []);
            let root = format!("{}/", self.0.path().display());
            resolved.inputs.iter().map(|input| input.name.replace(&root, "")).collect()
        }
    }

    #[test]
    fn libraries_come_from_the_first_directory_that_has_an_archive() {
        let tree = Tree::new(&[
            ("one/libm.so", SHARED),
            ("two/libm.a", ARCHIVE),
            ("three/libm.a", ARCHIVE),
            ("three/exact.a", ARCHIVE),
        ]);
        let found = tree.link(&["-lm", "-l:exact.a", "-Lone", "-Ltwo", "-Lthree"]);
        assert_eq!(tree.names(&found), ["two/libm.a", "three/exact.a"]);
    }

    #[test]
    fn dynamic_link_takes_the_shared_one_of_a_directory_first() {
        let foreign: &[u8] = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x03\0";
        let tree = Tree::new(&[
            ("zero/libm.so", foreign),
            ("one/libm.so", SHARED),
            ("one/libm.a", ARCHIVE),
            ("one/libz.a", ARCHIVE),
            ("two/libz.so", SHARED),
            ("two/libx.so.1", SHARED),
        ]);
        let dynamic =
            |words: &[&str]| tree.link_as(&[&["-Lzero", "-Lone", "-Ltwo"], words].concat(), false, None);
        let found = dynamic(&["-lm", "-lz", "-l:libx.so.1", "two/libz.so"]);
        assert_eq!(tree.names(&found), ["one/libm.so", "one/libz.a", "two/libx.so.1", "two/libz.so"]);
        assert!(found.has_shared_libraries);
        let needed: Vec<_> = found.inputs.iter().map(|input| input.needed_name.clone()).collect();
        let path = tree.path("two/libz.so").display().to_string();
        assert_eq!(needed, [Some("libm.so".to_owned()), None, Some("libx.so.1".to_owned()), Some(path)]);
        let found = dynamic(&["-lz"]);
        assert!(!found.has_shared_libraries);
        let [ResolveError::LibraryNotFound { known, static_only: false, shared: None, .. }] =
            &dynamic(&["-lmm"]).errors[..]
        else {
            panic!()
        };
        assert_eq!(known, &["m", "z"]);
    }

    #[test]
    fn shared_library_is_one_input_and_needed_once_is_needed() {
        let tree = Tree::new(&[("liba.so", SHARED), ("libb.so", SHARED)]);
        let words = ["-L", "--as-needed", "-la", "-lb", "--no-as-needed", "liba.so", "--as-needed", "-la"];
        let found = tree.link_as(&words, false, None);
        assert_eq!(tree.names(&found), ["liba.so", "libb.so"]);
        let as_needed: Vec<_> = found.inputs.iter().map(|input| input.as_needed).collect();
        assert_eq!(as_needed, [false, true]);
    }

    #[test]
    fn one_archive_is_one_input_and_one_object_twice_is_two() {
        let tree = Tree::new(&[("liba.a", ARCHIVE), ("a.o", OBJECT)]);
        let found = tree.link(&["-L", "-la", "a.o", "-la", "liba.a", "a.o"]);
        assert_eq!(tree.names(&found), ["liba.a", "a.o", "a.o"]);
    }

    #[test]
    fn scripts_name_inputs() {
        let tree = Tree::new(&[
            ("lib/libc.so", b"/* GNU ld script */\nOUTPUT_FORMAT(elf64-x86-64)\nGROUP ( part.a -ldep AS_NEEDED ( x.so ) )"),
            ("lib/part.a", ARCHIVE),
            ("lib/x.so", SHARED),
            ("lib/libdep.a", ARCHIVE),
            ("lib/libself.a", b"INPUT(libself.a)"),
            ("lib/liblayout.a", b"SECTIONS { }"),
            ("lib/lib32.a", b"OUTPUT_FORMAT(elf32-i386)"),
        ]);
        let found = tree.link(&["-Llib", "-lc"]);
        assert_eq!(tree.names(&found), ["lib/part.a", "lib/libdep.a"]);
        assert!(found.dependencies.contains(&tree.path("lib/libc.so")));
        let found = tree.link_as(&["-Llib", "-lc"], false, None);
        assert_eq!(tree.names(&found), ["lib/part.a", "lib/libdep.a", "lib/x.so"]);
        let as_needed: Vec<_> = found.inputs.iter().map(|input| input.as_needed).collect();
        assert_eq!(as_needed, [false, false, true]);
        for (library, text) in [("-lself", "without end"), ("-llayout", "SECTIONS"), ("-l32", "elf32-i386")] {
            let found = tree.link(&["-Llib", library]);
            assert!(found.errors[0].to_string().contains(text), "{}", found.errors[0]);
            let out_of_reach = matches!(found.errors[0], ResolveError::OutOfReach { .. });
            assert_eq!(out_of_reach, library == "-llayout");
        }
    }

    #[test]
    fn sysroot_is_in_front_of_marked_directories_and_of_a_scripts_absolute_names() {
        let tree = Tree::new(&[
            ("root/lib/libm.a", b"GROUP ( /lib/libm-2.a )"),
            ("root/lib/libm-2.a", ARCHIVE),
            ("root/lib/libz.a", ARCHIVE),
        ]);
        for dir in ["-L=/lib", "-L$SYSROOT/lib"] {
            let found = tree.link_as(&[dir, "-lm", "-lz"], true, Some("root"));
            assert_eq!(tree.names(&found), ["root/lib/libm-2.a", "root/lib/libz.a"]);
        }
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let tree = Tree::new(&[
            ("libalpha.a", ARCHIVE),
            ("libshared.so", SHARED),
            ("lto.bc", b"BC\xc0\xde"),
            ("empty.a", b""),
            ("noise.bin", b"\x00\x01\x02"),
        ]);
        let words = [
            "-L",
            "none.o",
            "-lalpah",
            "-lalpah",
            "-lshared",
            "libshared.so",
            "lto.bc",
            "empty.a",
            "noise.bin",
        ];
        let found = tree.link(&words);
        let texts: Vec<String> = found.errors.iter().map(ResolveError::to_string).collect();
        let expected = [
            "cannot open ROOT/none.o: No such file or directory",
            "unable to find library -lalpah",
            "unable to find library -lshared: ROOT/libshared.so is a shared library, a static link needs an archive",
            "ROOT/libshared.so: a shared library can't be part of a static link",
            "ROOT/lto.bc: is LLVM bitcode; link-time optimization is not supported yet, compile without -flto",
            "ROOT/empty.a: is empty",
            "ROOT/noise.bin: is no ELF object, archive or linker script",
        ];
        let root = tree.0.path().to_str().unwrap();
        assert_eq!(texts, expected.map(|text| text.replace("ROOT", root)));
        let ResolveError::LibraryNotFound { known, .. } = &found.errors[1] else { panic!() };
        assert_eq!(known, &["alpha"]);
    }
}

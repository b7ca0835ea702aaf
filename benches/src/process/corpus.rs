//! A captured link with the same link after some edits, laid out so that only what an edit changes is another file.
//!
//! A corpus is a folder with `args.rsp` (the linker's arguments without `-o`, one a line, paths relative to the folder)
//! and the inputs below `in/`; `edit/`, `grow/` and `edit-add/` hold the same link again after an edit.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

/// Names of the folders of edits.
const EDITS: [&str; 3] = ["edit", "grow", "edit-add"];

/// One state of the sources: a folder to link in.
#[derive(Debug)]
pub struct Variant {
    /// `base`, or the name of the edit.
    pub name: &'static str,
    /// Where the linker is started.
    pub dir: PathBuf,
    /// Files that no other variant has, and their bytes: what a compiler writes anew.
    own: Vec<(PathBuf, Vec<u8>)>,
    /// Files that another variant has under another name, and that name: rustc names its objects anew each time, and
    /// links them to the files it keeps.
    renamed: Vec<(PathBuf, PathBuf)>,
    /// What the link line names, in the folder.
    pub inputs: Vec<PathBuf>,
}

impl Variant {
    /// Writes the variant's own files as compilers do, new files under the old names, and links those that got another
    /// name.
    ///
    /// # Errors
    /// Those of writing.
    pub fn compile(&self) -> io::Result<()> {
        for (path, bytes) in &self.own {
            let new = path.with_extension("new");
            fs::write(&new, bytes)?;
            fs::rename(new, path)?;
        }
        for (path, kept) in &self.renamed {
            fs::remove_file(path)?;
            fs::hard_link(kept, path)?;
        }
        Ok(())
    }

    /// The files that [`Variant::compile`] writes.
    pub fn own_files(&self) -> impl Iterator<Item = &Path> {
        self.own.iter().map(|(path, _)| path.as_path())
    }

    /// The files that [`Variant::compile`] gives another name, and with it another time of their last change.
    pub fn renamed_files(&self) -> impl Iterator<Item = &Path> {
        self.renamed.iter().map(|(path, _)| path.as_path())
    }
}

/// A corpus in a folder of its own, which is removed in the end.
#[derive(Debug)]
pub struct Corpus {
    /// The name of the corpus' folder.
    pub name: String,
    /// The original link, first, and its edits.
    pub variants: Vec<Variant>,
    work: tempfile::TempDir,
}

/// Files by their contents.
type Contents = HashMap<(usize, u64), Vec<PathBuf>>;

fn content_key(bytes: &[u8]) -> (usize, u64) {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    (bytes.len(), hasher.finish())
}

impl Corpus {
    /// Lays out a corpus beside its folder, on the same file system: unchanged inputs are hard links.
    ///
    /// # Errors
    /// Those of the file system; also if the folder is no corpus.
    pub fn open(folder: &Path) -> io::Result<Corpus> {
        let folder = fs::canonicalize(folder)?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let beside = folder.parent().unwrap_or(&folder);
        let work = tempfile::Builder::new().prefix(&format!("process-{name}-")).tempdir_in(beside)?;
        let mut known = Contents::new();
        let mut variants = vec![lay_out("base", &folder, &work.path().join("base"), &mut known)?];
        for edit in EDITS.into_iter().filter(|edit| folder.join(edit).join("args.rsp").exists()) {
            let dir = work.path().join(edit);
            variants.push(lay_out(edit, &folder.join(edit), &dir, &mut known.clone())?);
        }
        let mut corpus = Corpus { name, variants, work };
        corpus.find_own_files()?;
        Ok(corpus)
    }

    /// A path in the folder of the copy.
    pub fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// The variant of an edit.
    pub fn edit(&self, name: &str) -> Option<&Variant> {
        self.variants.iter().find(|variant| variant.name == name)
    }

    /// A file is its variant's own if it is no hard link of one that the base, or for the base the first edit, has.
    fn find_own_files(&mut self) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt;
        let inode = |path: &PathBuf| fs::metadata(path).map(|metadata| metadata.ino());
        let inodes = |variant: &Variant| variant.inputs.iter().map(inode).collect::<io::Result<Vec<_>>>();
        let all = self.variants.iter().map(inodes).collect::<io::Result<Vec<_>>>()?;
        for index in 0..self.variants.len() {
            let other = usize::from(index == 0);
            let Some(inodes) = all.get(other) else { continue };
            let paths = self.variants[other].inputs.clone();
            let variant = &mut self.variants[index];
            for (path, inode) in variant.inputs.iter().zip(&all[index]) {
                match inodes.iter().position(|known| known == inode) {
                    Some(at) if paths[at].file_name() == path.file_name() => {}
                    Some(at) => variant.renamed.push((path.clone(), paths[at].clone())),
                    None if variant.own.iter().any(|(known, _)| known == path) => {}
                    None => variant.own.push((path.clone(), fs::read(path)?)),
                }
            }
        }
        Ok(())
    }
}

fn lay_out(name: &'static str, from: &Path, to: &Path, known: &mut Contents) -> io::Result<Variant> {
    fs::create_dir_all(to.join("in"))?;
    let args = fs::read_to_string(from.join("args.rsp"))?;
    fs::write(to.join("args.rsp"), &args)?;
    for entry in fs::read_dir(from.join("in"))? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join("in").join(entry.file_name()));
        let bytes = fs::read(&source)?;
        // What an edit has in common with the base is the same file, as it is for compilers that left it alone.
        let key = content_key(&bytes);
        let same = known.entry(key).or_default();
        let named_so = same.iter().find(|path| path.file_name() == source.file_name());
        match named_so.or(same.first()).filter(|_| name != "base") {
            Some(same) => fs::hard_link(same, target)?,
            None => {
                fs::hard_link(&source, target)?;
                same.push(source);
            }
        }
    }
    let inputs = args.lines().map(|arg| to.join(arg)).filter(|path| path.is_file()).collect();
    Ok(Variant { name, dir: to.to_owned(), own: Vec::new(), renamed: Vec::new(), inputs })
}

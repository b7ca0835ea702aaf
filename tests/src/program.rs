//! One program being linked through the library, and what it does when it runs.

use std::path::{Path, PathBuf};

use relink::{BuildId, Counters, IncrementalOptions, Input, InputId, LinkOptions, LinkSession, Outcome};

use crate::tools::{self, Said, Tool};

/// Names and bytes, in the order of the command line.
pub type Inputs = Vec<(String, Vec<u8>)>;

/// The options of the acceptance suite: static, with unwind table and build-id, incremental.
pub fn incremental() -> LinkOptions {
    LinkOptions { incremental: Some(IncrementalOptions::default()), ..canonical() }
}

/// The same without `--incremental`.
pub fn canonical() -> LinkOptions {
    LinkOptions { build_id: BuildId::Tree { len: 20 }, eh_frame_hdr: true, ..LinkOptions::default() }
}

/// An input of a name: a shared library has to say by its name that it is one of `--as-needed`.
fn input(name: &str, bytes: Vec<u8>) -> Input {
    Input { as_needed: name.starts_with(AS_NEEDED), ..Input::bytes(name, bytes) }
}

/// How names of such libraries begin.
const AS_NEEDED: &str = "as-needed-";

/// A session and the inputs it was given.
#[derive(Debug)]
pub struct Program {
    /// The session.
    pub session: LinkSession,
    options: LinkOptions,
    inputs: Vec<(InputId, String, Vec<u8>)>,
}

impl Program {
    /// A session with inputs, not linked yet.
    #[track_caller]
    pub fn new(options: LinkOptions, inputs: &Inputs) -> Program {
        let mut session =
            LinkSession::new(options.clone()).unwrap_or_else(|error| panic!("a session: {error}"));
        let inputs = inputs
            .iter()
            .map(|(name, bytes)| (session.add_input(input(name, bytes.clone())), name.clone(), bytes.clone()))
            .collect();
        Program { session, options, inputs }
    }

    /// Linked for the first time.
    #[track_caller]
    pub fn linked(options: LinkOptions, inputs: &Inputs) -> Program {
        let mut program = Program::new(options, inputs);
        assert_eq!(program.resolve(), Outcome::Full, "the first link of a session");
        program
    }

    /// Another process: a new session that starts from the state that an older one left.
    #[track_caller]
    pub fn resumed(options: LinkOptions, inputs: &Inputs, state: &[u8]) -> Program {
        let mut program = Program::new(options, inputs);
        program.session.set_prior_state(state.to_vec().into());
        program
    }

    /// Links; panics with the errors.
    #[track_caller]
    pub fn resolve(&mut self) -> Outcome {
        self.session.resolve().unwrap_or_else(|error| panic!("the link failed: {error}"))
    }

    /// Gives one input new bytes.
    #[track_caller]
    pub fn replace(&mut self, name: &str, bytes: Vec<u8>) {
        let known = self.inputs.iter_mut().find(|(_, n, _)| n == name);
        let (id, _, held) = known.unwrap_or_else(|| panic!("no input {name}"));
        held.clone_from(&bytes);
        let id = *id;
        self.session
            .replace_input(id, input(name, bytes))
            .unwrap_or_else(|error| panic!("replacing {name}: {error}"));
    }

    /// Gives every input that differs its new bytes, and links.
    #[track_caller]
    pub fn edit(&mut self, inputs: &Inputs) -> Outcome {
        self.offer(inputs);
        self.resolve()
    }

    /// Gives every input that differs its new bytes; adds those that are new, removes those that are gone.
    #[track_caller]
    pub fn offer(&mut self, inputs: &Inputs) {
        for (name, bytes) in inputs {
            match self.inputs.iter().find(|(_, n, _)| n == name) {
                Some((_, _, held)) if held == bytes => {}
                Some(_) => self.replace(name, bytes.clone()),
                None => {
                    let id = self.session.add_input(input(name, bytes.clone()));
                    self.inputs.push((id, name.clone(), bytes.clone()));
                }
            }
        }
        let gone = |name: &str| !inputs.iter().any(|(n, _)| n == name);
        for (id, name, _) in self.inputs.extract_if(.., |(_, name, _)| gone(name)) {
            self.session.remove_input(id).unwrap_or_else(|error| panic!("removing {name}: {error}"));
        }
    }

    /// Names and bytes as they are now.
    pub fn inputs(&self) -> Inputs {
        self.inputs.iter().map(|(_, name, bytes)| (name.clone(), bytes.clone())).collect()
    }

    /// The session's name for an input.
    #[track_caller]
    pub fn id_of(&self, name: &str) -> InputId {
        self.inputs.iter().find(|(_, n, _)| n == name).unwrap_or_else(|| panic!("no input {name}")).0
    }

    /// A copy of the image.
    pub fn image(&self) -> Vec<u8> {
        self.session.image().into_owned()
    }

    /// State and image as bytes.
    #[track_caller]
    pub fn state(&self) -> Vec<u8> {
        let mut state = Vec::new();
        self.session.serialize_state(&mut state).expect("memory can be written to");
        state
    }

    /// Counters of the last frame.
    #[track_caller]
    pub fn counters(&self) -> Counters {
        self.session.report().expect("a frame has a report").counters
    }

    /// Kinds of the reasons of the last frame.
    #[track_caller]
    pub fn reasons(&self) -> Vec<String> {
        let report = self.session.report().expect("a frame has a report");
        report.reasons.iter().map(relink::GateReason::kind).collect()
    }

    /// The reasons of the last frame, for a message.
    #[track_caller]
    pub fn reasons_text(&self) -> String {
        let report = self.session.report().expect("a frame has a report");
        report.reasons.iter().map(|reason| format!("{reason}\n")).collect()
    }

    /// What a session from nothing makes of the same inputs and options.
    #[track_caller]
    pub fn from_scratch(&self) -> Vec<u8> {
        Program::linked(self.options.clone(), &self.inputs()).image()
    }

    /// Runs the image.
    #[track_caller]
    pub fn run(&self) -> Said {
        run(&self.session.image())
    }

    /// Panics unless the oracle finds nothing.
    #[track_caller]
    pub fn verify(&mut self) {
        let violations = self.session.verify().unwrap_or_else(|error| panic!("verify: {error}"));
        assert!(violations.is_empty(), "{violations:#?}");
    }

    /// Panics unless the last frame was a patch that no whole-program work was done for.
    #[track_caller]
    pub fn assert_patched(&self, outcome: Outcome) {
        assert_eq!(outcome, Outcome::Patched, "{:#?}", self.session.report());
        assert_eq!(self.session.outcome(), Some(Outcome::Patched));
        assert_eq!(self.counters().whole_program_resolutions, 0, "a patch resolves no whole program");
        assert!(self.reasons().is_empty(), "a patch has no reasons against itself");
        assert!(self.session.patch().is_some(), "a patch can be had");
    }

    /// Panics unless the last frame fell back for (at least) this reason, and its image is the one of a link from scratch.
    #[track_caller]
    pub fn assert_fell_back(&self, outcome: Outcome, reason: &str) {
        assert_eq!(outcome, Outcome::FellBackFull, "{:#?}", self.session.report());
        let reasons = self.reasons();
        assert!(reasons.iter().any(|kind| kind == reason), "expected {reason}, not {reasons:?}");
        assert!(self.counters().whole_program_resolutions > 0, "a fallback is a full link");
        assert!(self.session.patch().is_none(), "a full link is no patch");
        assert_same_bytes(&self.session.image(), &self.from_scratch(), "fallback and link from scratch");
    }
}

/// Panics with the first place where two images differ.
#[track_caller]
pub fn assert_same_bytes(left: &[u8], right: &[u8], what: &str) {
    if left != right {
        let at = left.iter().zip(right).position(|(l, r)| l != r).unwrap_or(left.len().min(right.len()));
        panic!("{what}: {} and {} bytes, different from {at:#x} on", left.len(), right.len());
    }
}

/// Puts an image where it can be run.
#[track_caller]
pub fn save(image: &[u8], path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    crate::write(path, image);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("a file of ours");
}

/// Runs an image from memory.
#[track_caller]
pub fn run(image: &[u8]) -> Said {
    let dir = crate::scratch();
    let path = dir.path().join("image");
    save(image, &path);
    tools::run_image(&path, &[])
}

/// What the same inputs do when another linker linked them: exit status and output of the program.
#[track_caller]
pub fn reference(inputs: &Inputs) -> (i32, String) {
    reference_of(&tools::LD_BFD, inputs)
}

/// The same by a linker of one's choice.
#[track_caller]
pub fn reference_of(linker: &Tool, inputs: &Inputs) -> (i32, String) {
    let dir = crate::scratch();
    let said = tools::run_image(&image_of(linker, inputs, dir.path()), &[]);
    (said.status, said.stdout)
}

/// The same inputs linked by another linker.
#[track_caller]
pub fn reference_image(inputs: &Inputs, dir: &Path) -> PathBuf {
    image_of(&tools::LD_BFD, inputs, dir)
}

#[track_caller]
fn image_of(linker: &Tool, inputs: &Inputs, dir: &Path) -> PathBuf {
    let image = dir.join("reference");
    for (name, bytes) in inputs {
        crate::write(dir.join(name), bytes);
    }
    let mut command = linker.command();
    command.current_dir(dir).args(["--build-id", "--eh-frame-hdr", "-z", "noexecstack", "-o"]).arg(&image);
    if inputs.iter().any(|(name, _)| is_library(name)) {
        command.args(["-no-pie", "-dynamic-linker", "/lib64/ld-linux-x86-64.so.2"]);
    } else {
        command.arg("-static");
    }
    for (name, _) in inputs {
        let needed = if name.starts_with(AS_NEEDED) { "--as-needed" } else { "--no-as-needed" };
        command.args(is_library(name).then_some(needed)).arg(name);
    }
    tools::say(&mut command).ok();
    image
}

fn is_library(name: &str) -> bool {
    name.ends_with(".so")
}

/// Panics unless an image does what the same inputs do under another linker.
#[track_caller]
pub fn assert_behaves(image: &[u8], inputs: &Inputs) {
    let dir = crate::scratch();
    let path = dir.path().join("image");
    save(image, &path);
    for (name, bytes) in inputs.iter().filter(|(name, _)| is_library(name)) {
        crate::write(dir.path().join(name), bytes);
    }
    let said = tools::run_image(&path, &[]);
    assert_eq!((said.status, said.stdout.clone()), reference(inputs), "{said}");
}

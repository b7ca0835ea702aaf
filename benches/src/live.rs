//! A program in a link session, edited unit by unit.

use std::sync::Arc;

use bytes::Bytes;
use relink::{
    BuildId, FileIdentity, InMemory, IncrementalOptions, Input, InputId, InputSource, LinkOptions,
    LinkSession, Outcome, OutputKind,
};

use crate::workload::{Edit, Program};

/// What `gcc -static` (or `-static-pie`) asks for, and state.
pub fn options(output_kind: OutputKind) -> LinkOptions {
    LinkOptions {
        output_kind,
        eh_frame_hdr: true,
        build_id: BuildId::Tree { len: 20 },
        incremental: Some(IncrementalOptions::default()),
        ..LinkOptions::default()
    }
}

/// A unit's object as an input with the identity of a file; another `version` is another file.
pub fn input(unit: usize, version: i64, bytes: &Arc<dyn InputSource>) -> Input {
    let identity =
        FileIdentity { device: 1, inode: unit as u64 + 1, size: 0, mtime_ns: version, changed_ns: 0 };
    Input::lazy(format!("unit{unit}.o"), Some(identity), bytes.clone())
}

/// An object's bytes as a source of inputs.
pub fn source(bytes: Vec<u8>) -> Arc<dyn InputSource> {
    Arc::new(InMemory(Bytes::from(bytes)))
}

/// All units of a program as they first were.
pub fn inputs(program: &Program) -> Vec<Input> {
    let unit = |unit| input(unit, 0, &source(program.unit(unit, |_| Edit::default())));
    (0..program.units()).map(unit).collect()
}

/// A session with a program linked in it.
#[derive(Debug)]
pub struct Live {
    /// The session.
    pub session: LinkSession,
    ids: Vec<InputId>,
}

impl Live {
    /// Links a program from nothing.
    pub fn cold(inputs: &[Input], kind: OutputKind) -> Live {
        let mut live = Live::unlinked(inputs.to_vec(), kind);
        assert_eq!(live.session.resolve().expect("the program links"), Outcome::Full);
        live
    }

    /// A session that knows what another process left.
    pub fn opened(inputs: Vec<Input>, kind: OutputKind, state: Bytes, image: Bytes) -> Live {
        let mut live = Live::unlinked(inputs, kind);
        live.session.set_prior_parts(state, image);
        live
    }

    fn unlinked(inputs: Vec<Input>, kind: OutputKind) -> Live {
        let mut session = LinkSession::new(options(kind)).expect("the options are sound");
        let ids = inputs.into_iter().map(|input| session.add_input(input)).collect();
        Live { session, ids }
    }

    /// One frame: a unit has new bytes.
    pub fn patch(&mut self, unit: usize, input: Input) {
        self.session.replace_input(self.ids[unit], input).expect("the session has the unit");
        self.patch_pending();
    }

    /// One frame over what has changed since the state was written.
    pub fn patch_pending(&mut self) {
        let outcome = self.session.resolve().expect("the program links");
        assert_eq!(outcome, Outcome::Patched, "{:?}", self.session.report().map(|report| &report.reasons));
    }

    /// State columns and image, as another process would find them.
    pub fn parts(&self) -> (Bytes, Bytes) {
        let mut state = Vec::new();
        self.session.serialize_columns(&mut state).expect("the session is incremental");
        (state.into(), self.session.image().into_owned().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_programs_link_and_patch_right() {
        let program = Program::new(300);
        let mut live = Live::cold(&inputs(&program), OutputKind::StaticExecutable);
        assert_eq!(live.session.verify().unwrap(), []);
        for (constant, padding) in [(3, 0), (4, 16), (5, 200), (6, 0)] {
            let edit = |function| match function {
                0 => Edit { constant, padding },
                _ => Edit::default(),
            };
            live.patch(0, input(0, i64::from(constant), &source(program.unit(0, edit))));
            assert_eq!(live.session.verify().unwrap(), []);
            assert_eq!(exit_status(&live.session.image()), Some(constant as i32));
        }
    }

    fn exit_status(image: &[u8]) -> Option<i32> {
        let path = std::env::temp_dir().join(format!("relink-bench-{}", std::process::id()));
        std::fs::write(&path, image).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let status = std::process::Command::new(&path).status().unwrap();
        std::fs::remove_file(&path).unwrap();
        status.code()
    }
}

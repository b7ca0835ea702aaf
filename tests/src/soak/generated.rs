//! A program of the simulator's model, mostly with edits of bodies, some of them large.

use std::path::PathBuf;

use relink::{GateKind, OutputKind};
use serde_json::Value;

use super::Subject;
use crate::ld::Workplace;
use crate::program::{self, Inputs};
use crate::rng::Rng;
use crate::simulate::{Compiler, Edit, EditKind, Model};

/// Much room for what grows or moves; whatever moves leaves an island.
const FLAGS: [&str; 4] = ["--incremental", "--text-reserve=1000", "--debug-slack=400", "--move=island"];

/// Edits that leave names, sections and unwind entries as they are.
const BODIES: [EditKind; 10] = [
    EditKind::ChangeConstant,
    EditKind::GrowALittle,
    EditKind::GrowMuch,
    EditKind::Shrink,
    EditKind::ChangeLiteral,
    EditKind::ChangeValue,
    EditKind::AddCall,
    EditKind::RemoveCall,
    EditKind::ShiftLines,
    EditKind::Several,
];

pub(super) struct Generated {
    model: Model,
    compiler: Compiler,
    place: Workplace,
    inputs: Inputs,
    gate: GateKind,
}

impl Generated {
    pub(super) fn new(seed: u64, gate: GateKind) -> Generated {
        let mut model = Model::new(seed);
        (model.kind, model.shared) = (OutputKind::StaticExecutable, false);
        let mut compiler = Compiler::default();
        let (inputs, _) = compiler.inputs(&model);
        let flags: Vec<&str> = FLAGS.into_iter().chain([super::gate_flag(gate)]).collect();
        Generated { place: Workplace::new(&inputs, &flags), model, compiler, inputs, gate }
    }

    /// A function becomes some KiB longer, or short again.
    fn burst(&mut self, rng: &mut Rng) -> String {
        let at = rng.below(self.model.functions.len());
        let function = &mut self.model.functions[at];
        if function.steps.len() > 1500 {
            function.steps.truncate(5);
        } else {
            function.steps.extend((0..200 + rng.below(700)).map(|step| step as i32));
        }
        format!("f{} has {} steps", function.id, function.steps.len())
    }
}

impl Subject for Generated {
    fn edit(&mut self, rng: &mut Rng) -> String {
        // What comes and goes is a full link behind the strict gate, and what the wide one is for.
        let any = if self.gate == GateKind::Wide { 8..=15 } else { 8..=8 };
        let told = match rng.below(24) {
            0..=7 => self.burst(rng),
            choice if any.contains(&choice) => {
                let mut edit = Edit::random(rng);
                use EditKind::{AddObject, RemoveObject, Reopen, Revert};
                // Each frame is a process of its own, nothing is kept to go back to; the command line stays.
                if matches!(edit.kind, Reopen | Revert | AddObject | RemoveObject) {
                    edit.kind = EditKind::Nothing;
                }
                edit.apply(&mut self.model)
            }
            _ => Edit { kind: *rng.pick(&BODIES), choice: rng.draw() }.apply(&mut self.model),
        };
        self.inputs = self.compiler.inputs(&self.model).0;
        self.place.write(&self.inputs);
        told
    }

    fn link(&mut self) -> Value {
        self.place.link().report
    }

    fn judge(&self) {
        let said = self.place.run();
        assert_eq!((said.status, said.stdout.clone()), program::reference(&self.inputs), "{said}");
    }

    fn out(&self) -> PathBuf {
        self.place.out()
    }
}

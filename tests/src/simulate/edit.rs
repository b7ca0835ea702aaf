//! Edits: every kind that the gate knows, each as three numbers.

use crate::rng::Rng;

use super::model::{Linkage, Model, Storage, word};

/// What an edit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum EditKind {
    ChangeConstant,
    GrowALittle,
    GrowMuch,
    Shrink,
    ChangeLiteral,
    LengthenLiteral,
    DropLiteral,
    ChangeValue,
    GrowData,
    ShrinkData,
    AlignData,
    AddData,
    RemoveData,
    UseData,
    AddFunction,
    RemoveFunction,
    Rebind,
    AddCall,
    RemoveCall,
    AddRoot,
    RemoveRoot,
    ChangeCases,
    AddConstructor,
    RemoveConstructor,
    EditComdat,
    MoveComdat,
    ShiftLines,
    AddLabel,
    Optimise,
    EditTable,
    AddImport,
    RemoveImport,
    RemoveImports,
    AddObject,
    RemoveObject,
    Nothing,
    Touch,
    Reopen,
    Revert,
    Several,
}

/// How often each kind is drawn: body edits are what people do.
const WEIGHTS: &[(EditKind, usize)] = &[
    (EditKind::ChangeConstant, 12),
    (EditKind::GrowALittle, 10),
    (EditKind::GrowMuch, 8),
    (EditKind::Shrink, 6),
    (EditKind::ChangeLiteral, 3),
    (EditKind::LengthenLiteral, 2),
    (EditKind::DropLiteral, 1),
    (EditKind::ChangeValue, 5),
    (EditKind::GrowData, 3),
    (EditKind::ShrinkData, 2),
    (EditKind::AlignData, 1),
    (EditKind::AddData, 2),
    (EditKind::RemoveData, 1),
    (EditKind::UseData, 3),
    (EditKind::AddFunction, 3),
    (EditKind::RemoveFunction, 2),
    (EditKind::Rebind, 3),
    (EditKind::AddCall, 5),
    (EditKind::RemoveCall, 3),
    (EditKind::AddRoot, 2),
    (EditKind::RemoveRoot, 1),
    (EditKind::ChangeCases, 3),
    (EditKind::AddConstructor, 1),
    (EditKind::RemoveConstructor, 1),
    (EditKind::EditComdat, 2),
    (EditKind::MoveComdat, 1),
    (EditKind::ShiftLines, 3),
    (EditKind::AddLabel, 1),
    (EditKind::Optimise, 1),
    (EditKind::EditTable, 2),
    (EditKind::AddImport, 14),
    (EditKind::RemoveImport, 7),
    (EditKind::RemoveImports, 2),
    (EditKind::AddObject, 4),
    (EditKind::RemoveObject, 3),
    (EditKind::Nothing, 1),
    (EditKind::Touch, 2),
    (EditKind::Reopen, 5),
    (EditKind::Revert, 3),
    (EditKind::Several, 5),
];

/// One frame's edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    /// What it does.
    pub kind: EditKind,
    /// Where and how: the seed of its choices.
    pub choice: u64,
}

impl Edit {
    /// Draws one.
    pub fn random(rng: &mut Rng) -> Edit {
        let total = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut at = rng.below(total);
        for &(kind, weight) in WEIGHTS {
            if at < weight {
                return Edit { kind, choice: rng.draw() };
            }
            at -= weight;
        }
        unreachable!("the weights add up")
    }

    /// Changes the model; tells what it did, in words. [`EditKind::Revert`] and [`EditKind::Reopen`] change nothing here.
    pub fn apply(&self, model: &mut Model) -> String {
        let mut rng = Rng::new(self.choice);
        let told = apply(self.kind, model, &mut rng);
        model.tidy();
        format!("{:?}: {told}", self.kind)
    }
}

const NOTHING: &str = "nothing to do it to";

fn apply(kind: EditKind, model: &mut Model, rng: &mut Rng) -> String {
    match kind {
        EditKind::Nothing | EditKind::Touch | EditKind::Reopen | EditKind::Revert => String::new(),
        EditKind::Several => several(model, rng),
        EditKind::AddFunction => {
            let at = model.add_function(rng);
            let added = (model.functions[at].id, model.functions[at].unit, model.functions[at].linkage);
            // Somebody of its unit calls it, in half of the cases.
            if rng.one_in(2) {
                let caller = model.functions.iter().position(|f| f.unit == added.1 && f.id < added.0);
                if let Some(caller) = caller {
                    model.functions[caller].calls.push(added.0);
                }
            }
            format!("f{} in u{} ({:?})", added.0, added.1, added.2)
        }
        EditKind::AddData => {
            model.add_data(rng);
            let data = model.data.last().expect("just added");
            format!("d{} in u{} ({:?})", data.id, data.unit, data.storage)
        }
        EditKind::RemoveData => remove_data(model, rng),
        EditKind::AddRoot => {
            model.add_root(rng);
            format!("{:?}", model.roots.last())
        }
        EditKind::RemoveRoot if model.roots.len() > 1 => {
            let id = model.roots.remove(rng.below(model.roots.len()));
            format!("f{id}")
        }
        EditKind::RemoveRoot => NOTHING.to_owned(),
        EditKind::ChangeValue
        | EditKind::GrowData
        | EditKind::ShrinkData
        | EditKind::AlignData
        | EditKind::EditTable => edit_data(kind, model, rng),
        EditKind::AddConstructor
        | EditKind::RemoveConstructor
        | EditKind::ShiftLines
        | EditKind::AddLabel
        | EditKind::Optimise => edit_unit(kind, model, rng),
        EditKind::EditComdat | EditKind::MoveComdat => edit_comdat(kind, model, rng),
        EditKind::AddObject => {
            let absent: Vec<_> = (0..model.units.len()).filter(|&unit| model.units[unit].absent).collect();
            if absent.is_empty() {
                return NOTHING.to_owned();
            }
            let unit = *rng.pick(&absent);
            model.add_object(unit, rng);
            model.add_root(rng);
            format!("u{unit}")
        }
        EditKind::RemoveObject => {
            let units = model.removable();
            if units.is_empty() {
                return NOTHING.to_owned();
            }
            let unit = *rng.pick(&units);
            model.units[unit].absent = true;
            model.units[unit].constructors.clear();
            format!("u{unit}")
        }
        EditKind::RemoveImports => {
            let unit = rng.below(model.units.len());
            let own = model.functions.iter_mut().filter(|function| function.unit == unit);
            own.for_each(|function| function.imports.clear());
            format!("all of u{unit}")
        }
        _ => edit_function(kind, model, rng),
    }
}

fn several(model: &mut Model, rng: &mut Rng) -> String {
    let kinds = [
        EditKind::ChangeConstant,
        EditKind::GrowALittle,
        EditKind::GrowMuch,
        EditKind::ChangeValue,
        EditKind::AddCall,
    ];
    let told: Vec<_> = (0..2 + rng.below(3))
        .map(|_| {
            let kind = *rng.pick(&kinds);
            format!("{kind:?} {}", apply(kind, model, rng))
        })
        .collect();
    told.join(", ")
}

fn edit_function(kind: EditKind, model: &mut Model, rng: &mut Rng) -> String {
    if model.functions.is_empty() {
        return NOTHING.to_owned();
    }
    let at = rng.below(model.functions.len());
    let unit = model.functions[at].unit;
    let data = model.some_data(unit, rng);
    if kind == EditKind::AddCall {
        model.add_call(at, rng);
    }
    if kind == EditKind::AddImport {
        model.add_import(at, rng);
        return format!("{:?} of f{}", model.functions[at].imports.last(), model.functions[at].id);
    }
    let only = model.functions.len() < 4;
    let function = &mut model.functions[at];
    let name = format!("f{} of u{unit}", function.id);
    match kind {
        EditKind::ChangeConstant => {
            let step = rng.below(function.steps.len().max(1));
            match function.steps.get_mut(step) {
                Some(step) => *step = (*step + 1) % 1000,
                None => function.steps.push(1),
            }
        }
        EditKind::GrowALittle => function.steps.push(rng.below(1000) as i32),
        EditKind::GrowMuch => {
            let more = 10 + rng.below(80);
            function.steps.extend((0..more).map(|n| n as i32));
        }
        EditKind::Shrink => {
            let left = rng.below(function.steps.len() + 1);
            function.steps.truncate(left);
        }
        EditKind::ChangeLiteral => {
            let length = function.literal.as_ref().map_or(5, String::len);
            function.literal = Some((0..length).map(|_| char::from(b'A' + rng.below(26) as u8)).collect());
        }
        EditKind::LengthenLiteral => {
            let more = word(rng).repeat(1 + rng.below(4));
            function.literal = Some(format!("{}{more}", function.literal.as_deref().unwrap_or_default()));
        }
        EditKind::DropLiteral => function.literal = None,
        EditKind::UseData => function.data.extend(data),
        EditKind::Rebind => {
            let linkages = [Linkage::Global, Linkage::Weak, Linkage::Hidden, Linkage::Static];
            function.linkage = *rng.pick(&linkages);
        }
        EditKind::RemoveCall => {
            function.calls.pop();
            function.pointers.pop();
        }
        EditKind::RemoveImport => {
            function.imports.pop();
        }
        EditKind::ChangeCases => function.cases = *rng.pick(&[0, 5, 6, 9, 14]),
        EditKind::RemoveFunction if !only => {
            model.functions.remove(at);
        }
        _ => {}
    }
    name
}

fn edit_data(kind: EditKind, model: &mut Model, rng: &mut Rng) -> String {
    let tables = kind == EditKind::EditTable;
    let fitting: Vec<_> =
        (0..model.data.len()).filter(|&at| (model.data[at].storage == Storage::Table) == tables).collect();
    if fitting.is_empty() {
        return NOTHING.to_owned();
    }
    let at = *rng.pick(&fitting);
    let unit = model.data[at].unit;
    let seen: Vec<_> = model
        .functions
        .iter()
        .filter(|f| f.unit == unit || f.linkage != Linkage::Static)
        .map(|f| f.id)
        .collect();
    let data = &mut model.data[at];
    match kind {
        EditKind::ChangeValue => data.value = (data.value + 1) % 500,
        EditKind::GrowData => data.length += 1 + (rng.below(4) * rng.below(10)) as u32,
        EditKind::ShrinkData => data.length = 1 + data.length / 2,
        EditKind::AlignData => data.align = *rng.pick(&[0, 16, 64, 256]),
        _ if seen.is_empty() => {}
        _ => match rng.below(3) {
            0 => data.functions.push(*rng.pick(&seen)),
            1 => {
                data.functions.pop();
            }
            _ => {
                data.functions.pop();
                data.functions.push(*rng.pick(&seen));
            }
        },
    }
    format!("d{} of u{unit} ({:?}, {} elements)", data.id, data.storage, data.length)
}

fn remove_data(model: &mut Model, rng: &mut Rng) -> String {
    if model.data.is_empty() {
        return NOTHING.to_owned();
    }
    let data = model.data.remove(rng.below(model.data.len()));
    format!("d{} of u{} ({:?})", data.id, data.unit, data.storage)
}

fn edit_unit(kind: EditKind, model: &mut Model, rng: &mut Rng) -> String {
    let number = rng.below(model.units.len());
    let unit = &mut model.units[number];
    match kind {
        EditKind::AddConstructor if unit.archived || unit.absent => {}
        EditKind::AddConstructor => unit.constructors.push(*rng.pick(&[0, 0, 200, 101])),
        EditKind::RemoveConstructor => {
            unit.constructors.pop();
        }
        EditKind::ShiftLines => unit.blank = (unit.blank + 1 + rng.below(300) as u32) % 1000,
        EditKind::AddLabel => unit.labels = (unit.labels + 1) % 4,
        _ => unit.optimised = !unit.optimised,
    }
    format!("u{number}")
}

fn edit_comdat(kind: EditKind, model: &mut Model, rng: &mut Rng) -> String {
    if model.comdats.is_empty() || rng.one_in(6) {
        model.add_comdat(rng);
        return "a new one".to_owned();
    }
    let unit = model.some_ordered_unit(rng);
    let at = rng.below(model.comdats.len());
    let comdat = &mut model.comdats[at];
    if kind == EditKind::EditComdat {
        let copy = rng.below(comdat.copies.len());
        comdat.copies[copy].1 += 1;
    } else if rng.one_in(2) {
        comdat.copies.remove(rng.below(comdat.copies.len()));
    } else if !comdat.copies.iter().any(|(other, _)| *other == unit) {
        comdat.copies.push((unit, rng.below(100) as i32));
        comdat.copies.sort_unstable();
    }
    format!("c{} with copies {:?}", comdat.id, comdat.copies)
}

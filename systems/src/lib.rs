//! The work of the linker: one verb a file, in frame order. This file is the only one that orders them.

mod build_id;
mod commit;
mod debug;
mod diff;
mod gate;
mod ingest;
mod kernel;
pub mod map;
mod moves;
mod place;
mod policies;
mod pool;
mod relocatable;
mod relocate;
mod resolve;
pub mod verify;
mod view;

use std::time::{Duration, Instant};

use bevy_ecs::prelude::{In, IntoScheduleConfigs, IntoSystem, ResMut, Resource, Schedule, SystemSet, World};
use bevy_ecs::schedule::ScheduleLabel;
use bevy_ecs::system::{BoxedSystem, ScheduleSystem};
use relink_engine::frame::{Frame, FrameKind, LinkSet, Request};
use relink_engine::image::ImageMemory;
use relink_engine::options::{OutputKind, ScheduleKind};
use relink_engine::plan::Plan;
use relink_engine::program::Program;
use relink_engine::report::SetTime;

/// The part of a cold frame that decides where everything is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, ScheduleLabel)]
pub struct LayOut;

/// Lends memory for an image of so many bytes; `None` leaves it to the session.
pub type Lend<'a> = &'a mut dyn FnMut(u64) -> Option<Box<dyn ImageMemory>>;

/// The part of a frame that derives everything and changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, ScheduleLabel)]
pub struct Derive;

/// The part that publishes what was derived, or throws it away.
#[derive(Clone, Debug, PartialEq, Eq, Hash, ScheduleLabel)]
pub struct Publish;

/// The schedules of a frame: all sets but the last, and Commit. Sessions of a group derive first, all of them, and
/// then publish together.
///
/// Each kind of frame has its own, made when first needed: a process that patches once has no use for the drivers of a
/// cold frame.
#[expect(missing_debug_implementations, reason = "bevy's Schedule has none")]
pub struct Frames {
    schedules: ScheduleKind,
    cold: Option<ColdParts>,
    /// A cold frame that makes an object: a session has one kind of output.
    partial: Option<ColdParts>,
    warm: Option<WarmParts>,
}

struct ColdParts {
    /// Up to the moment when the length of the image is known.
    lay_out: Schedule,
    write: Schedule,
    publish: Schedule,
}

impl ColdParts {
    fn new(schedules: ScheduleKind, relocatable: bool) -> ColdParts {
        let mut parts = ColdParts {
            lay_out: Schedule::new(LayOut),
            write: Schedule::new(Derive),
            publish: Schedule::new(Publish),
        };
        let policy = policies::schedule(schedules);
        for schedule in [&mut parts.lay_out, &mut parts.write, &mut parts.publish] {
            policy.prepare(schedule);
        }
        if relocatable {
            add_joining_drivers(&mut parts)
        } else {
            add_bulk_drivers(&mut parts)
        }
        parts
    }
}

struct WarmParts {
    derive: Line,
    publish: Line,
}

impl WarmParts {
    fn new(schedules: ScheduleKind) -> WarmParts {
        let (derive, publish) = changed_drivers();
        WarmParts {
            derive: Line::new(schedules, Schedule::new(Derive), derive),
            publish: Line::new(schedules, Schedule::new(Publish), publish),
        }
    }
}

/// Sets that run one after the other.
enum Line {
    /// On the caller's thread. To find out that there is nothing to find out, bevy's graph took a third of the
    /// instructions of a process that patches.
    Plain(Vec<Step>),
    /// By an executor, for those who compare them.
    Scheduled(Box<Schedule>),
}

impl Line {
    fn new(schedules: ScheduleKind, mut schedule: Schedule, steps: Vec<Step>) -> Line {
        if schedules == ScheduleKind::SingleThreaded {
            return Line::Plain(steps);
        }
        policies::schedule(schedules).prepare(&mut schedule);
        for (place, mut step) in (1..).zip(steps) {
            let system = move |world: &mut World| step.run(world);
            schedule.add_systems(system.in_set(Place(place)).after(Place(place - 1)));
        }
        Line::Scheduled(Box::new(schedule))
    }

    fn run(&mut self, world: &mut World) {
        match self {
            Line::Plain(steps) => steps.iter_mut().for_each(|step| step.run(world)),
            Line::Scheduled(schedule) => schedule.run(world),
        }
    }
}

/// A place in a line, from 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash, SystemSet)]
struct Place(usize);

/// A set of a warm frame.
struct Step {
    set: LinkSet,
    /// None for what Diff proves to need none.
    driver: Option<BoxedSystem>,
    /// Whether the driver knows the world; one that never runs need not.
    initialized: bool,
    /// Whether it works on changed inputs alone, so that a frame without one passes it over.
    follows_changes: bool,
}

impl Step {
    fn new<M>(set: LinkSet, driver: impl IntoSystem<(), (), M>) -> Step {
        let driver: BoxedSystem = Box::new(IntoSystem::into_system(driver));
        Step { set, driver: Some(driver), initialized: false, follows_changes: false }
    }

    fn of_changes<M>(set: LinkSet, driver: impl IntoSystem<(), (), M>) -> Step {
        Step { follows_changes: true, ..Step::new(set, driver) }
    }

    fn without_driver(set: LinkSet) -> Step {
        Step { set, driver: None, initialized: false, follows_changes: false }
    }

    /// Runs the set and notes its time.
    fn run(&mut self, world: &mut World) {
        let start = Instant::now();
        if let Some(driver) = &mut self.driver
            && !(self.follows_changes && nothing_changed(world))
        {
            if !self.initialized {
                driver.initialize(world);
                self.initialized = true;
            }
            if let Err(error) = driver.run((), world) {
                unreachable!("the world lacks what {} needs: {error}", self.set.name());
            }
        }
        note_time(self.set, start.elapsed(), &mut world.resource_mut::<Frame>());
    }
}

/// Whether Ingest found no input that differs.
fn nothing_changed(world: &World) -> bool {
    let (plan, frame) = (world.resource::<Plan>(), world.resource::<Frame>());
    plan.inputs.is_empty() && frame.reasons.is_empty()
}

impl Frames {
    /// Frames for an executor.
    pub fn new(kind: ScheduleKind) -> Frames {
        Frames { schedules: kind, cold: None, partial: None, warm: None }
    }

    fn cold(&mut self, world: &World) -> &mut ColdParts {
        let relocatable = world.resource::<Request>().options.output_kind == OutputKind::Relocatable;
        let parts = if relocatable { &mut self.partial } else { &mut self.cold };
        parts.get_or_insert_with(|| ColdParts::new(self.schedules, relocatable))
    }

    fn warm(&mut self) -> &mut WarmParts {
        self.warm.get_or_insert_with(|| WarmParts::new(self.schedules))
    }

    /// Derives a frame of the kind that [`Frame`] says; a cold one on so many threads (0: one for each processor), and
    /// into lent memory if there is any.
    pub fn derive(&mut self, world: &mut World, threads: usize, lend: Lend<'_>) {
        if world.resource::<Frame>().kind == FrameKind::Warm {
            return self.warm().derive.run(world);
        }
        // Without threads to be had the caller's own does it all.
        let pool = (threads > 0).then(|| rayon::ThreadPoolBuilder::new().num_threads(threads).build().ok());
        let pool = pool.flatten();
        let parts = self.cold(world);
        let run = |schedule: &mut Schedule, world: &mut World| match &pool {
            Some(pool) => pool.install(|| schedule.run(world)),
            None => schedule.run(world),
        };
        run(&mut parts.lay_out, world);
        let len = world.resource::<Program>().image_len;
        if len > 0 && world.resource::<Frame>().errors.is_empty() {
            world.resource_mut::<Program>().memory = lend(len);
        }
        run(&mut parts.write, world);
    }

    /// Publishes the frame that was derived last.
    pub fn publish(&mut self, world: &mut World) {
        match world.resource::<Frame>().kind {
            FrameKind::Cold => {
                self.cold(world).publish.run(world);
            }
            FrameKind::Warm => self.warm().publish.run(world),
        }
        world.clear_trackers();
    }
}

/// Forgets what was derived last.
pub fn abandon(world: &mut World) {
    commit::changed::clear_frame(world);
    world.clear_trackers();
}

/// The order of a cold frame: bulk drivers, over columns.
fn add_bulk_drivers(parts: &mut ColdParts) {
    let sets = (
        start,
        ended(ingest::bulk::load_program, LinkSet::Ingest),
        ended(no_driver, LinkSet::Diff),
        ended(no_driver, LinkSet::Gate),
        (
            resolve::comdat::choose_group_owners,
            resolve::definitions::resolve_names,
            place::symbols::define_linker_names,
            resolve::bind::bind_names,
            resolve::liveness::mark_live_atoms,
            resolve::merge::merge_pieces,
            resolve::unwind::collect_unwind_tables,
            resolve::scan::scan_relocations,
            ended(resolve::dynamic::build_dynamic_tables, LinkSet::Resolve),
        )
            .chain(),
        (
            place::arrange::arrange_sections,
            place::addresses::assign_addresses,
            place::symtab::lay_out_symbol_table,
            ended(place::symbols::assign_symbol_addresses, LinkSet::Place),
        )
            .chain(),
        ended(no_driver, LinkSet::Move),
    );
    parts.lay_out.add_systems(sets.chain());
    let sets = (
        (
            relocate::bulk::write_atoms,
            relocate::tables::write_tables,
            ended(relocate::headers::write_headers, LinkSet::Relocate),
        )
            .chain(),
        (
            debug::unwind::write_unwind_tables,
            debug::symtab::write_symbol_table,
            ended(debug::compress::compress_debug_sections, LinkSet::Debug),
        )
            .chain(),
        ended(build_id::hash_image, LinkSet::BuildId),
    );
    parts.write.add_systems(sets.chain());
    let clear = ended(commit::changed::clear_frame, LinkSet::Commit);
    parts.publish.add_systems((commit::bulk::commit_program, clear).chain());
}

/// The order of a cold frame that makes an object of objects: nothing is placed, so nothing is relocated.
fn add_joining_drivers(parts: &mut ColdParts) {
    let sets = (
        start,
        ended(ingest::bulk::load_program, LinkSet::Ingest),
        (
            resolve::comdat::choose_group_owners,
            resolve::definitions::resolve_names,
            ended(resolve::liveness::mark_live_atoms, LinkSet::Resolve),
        )
            .chain(),
        ended(relocatable::combine_objects, LinkSet::Relocate),
    );
    parts.write.add_systems(sets.chain());
    let clear = ended(commit::changed::clear_frame, LinkSet::Commit);
    parts.publish.add_systems((commit::bulk::commit_program, clear).chain());
}

/// The order of a warm frame: drivers over the entities of what changed. Resolve has none: Diff proves that names
/// resolve as before.
fn changed_drivers() -> (Vec<Step>, Vec<Step>) {
    let derive = vec![
        Step::new(LinkSet::Ingest, ingest::changed::load_changed_inputs),
        Step::of_changes(LinkSet::Diff, diff::diff_inputs),
        // Also a frame without a change may have something to say again.
        Step::new(LinkSet::Gate, gate::judge_differences),
        Step::without_driver(LinkSet::Resolve),
        Step::of_changes(LinkSet::Place, place::changed::place_changed_atoms),
        Step::of_changes(LinkSet::Move, moves::move_references),
        Step::of_changes(LinkSet::Relocate, relocate::changed::relocate_changed_atoms),
        Step::of_changes(LinkSet::Debug, debug::changed::write_changed_satellites),
        Step::of_changes(LinkSet::BuildId, build_id::rehash_dirty_pages),
    ];
    let publish = vec![
        Step::new(LinkSet::Commit, commit::changed::commit_patch),
        // Also of Commit, whose time is that of both.
        Step::new(LinkSet::Commit, commit::changed::clear_frame),
    ];
    (derive, publish)
}

/// The last driver of a set, and the set's time behind it.
fn ended<M>(
    driver: impl IntoSystem<(), (), M>,
    set: LinkSet,
) -> impl IntoScheduleConfigs<ScheduleSystem, ()> {
    let stamp = move |_: In<()>, clock: ResMut<'_, Clock>, frame: ResMut<'_, Frame>| stamp(set, clock, frame);
    IntoScheduleConfigs::into_configs(driver.pipe(stamp))
}

/// What a set does that this kind of frame has no work for.
fn no_driver() {}

/// When the set before ended.
#[derive(Debug, Resource)]
struct Clock(Instant);

fn start(mut clock: ResMut<'_, Clock>) {
    clock.0 = Instant::now();
}

fn stamp(set: LinkSet, mut clock: ResMut<'_, Clock>, mut frame: ResMut<'_, Frame>) {
    let now = Instant::now();
    note_time(set, now.duration_since(clock.0), &mut frame);
    clock.0 = now;
}

/// Adds to the time of a set.
fn note_time(set: LinkSet, time: Duration, frame: &mut Frame) {
    let ns = time.as_nanos() as u64;
    match frame.timings.last_mut() {
        Some(last) if last.set == set.name() => last.ns += ns,
        _ => frame.timings.push(SetTime { set: set.name(), ns }),
    }
}

/// The digest of each loadable segment's pages.
pub fn segment_digests(
    store: &relink_engine::store::Store,
    image: &relink_engine::image::Image,
) -> Vec<[u8; 32]> {
    build_id::segment_digests(store, image)
}

/// A world with the resources that frames use.
pub fn world() -> World {
    let mut world = World::new();
    world.init_resource::<relink_engine::frame::Request>();
    world.init_resource::<relink_engine::frame::Frame>();
    world.init_resource::<relink_engine::frame::Patch>();
    world.init_resource::<Program>();
    world.init_resource::<Plan>();
    world.init_resource::<relink_engine::image::Draft>();
    world.init_resource::<relink_engine::components::RelocationPool>();
    world.insert_resource(Clock(Instant::now()));
    world
}

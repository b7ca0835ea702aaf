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

use std::time::Instant;

use bevy_ecs::prelude::{In, IntoScheduleConfigs, IntoSystem, ResMut, Resource, Schedule, World};
use bevy_ecs::schedule::ScheduleLabel;
use bevy_ecs::system::ScheduleSystem;
use relink_engine::frame::{Frame, FrameKind, LinkSet, Request};
use relink_engine::options::{OutputKind, ScheduleKind};
use relink_engine::report::SetTime;

/// The part of a frame that derives everything and changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, ScheduleLabel)]
pub struct Derive;

/// The part that publishes what was derived, or throws it away.
#[derive(Clone, Debug, PartialEq, Eq, Hash, ScheduleLabel)]
pub struct Publish;

/// The schedules of a frame: all sets but the last, and Commit. Sessions of a group derive first, all of them, and
/// then publish together.
///
/// Each kind of frame has its own two, made when first needed: bevy takes 4 µs for each system that it is given, and a
/// process that patches once has no use for the drivers of a cold frame.
#[expect(missing_debug_implementations, reason = "bevy's Schedule has none")]
pub struct Frames {
    schedules: ScheduleKind,
    cold: Option<Parts>,
    /// A cold frame that makes an object: a session has one kind of output.
    partial: Option<Parts>,
    warm: Option<Parts>,
}

struct Parts {
    derive: Schedule,
    publish: Schedule,
}

impl Parts {
    fn new(schedules: ScheduleKind, frame: FrameKind, relocatable: bool) -> Parts {
        let mut parts = Parts { derive: Schedule::new(Derive), publish: Schedule::new(Publish) };
        let policy = policies::schedule(schedules);
        policy.prepare(&mut parts.derive);
        policy.prepare(&mut parts.publish);
        match frame {
            FrameKind::Cold if relocatable => add_joining_drivers(&mut parts),
            FrameKind::Cold => add_bulk_drivers(&mut parts),
            FrameKind::Warm => add_changed_drivers(&mut parts),
        }
        parts
    }
}

impl Frames {
    /// Frames for an executor.
    pub fn new(kind: ScheduleKind) -> Frames {
        Frames { schedules: kind, cold: None, partial: None, warm: None }
    }

    fn parts(&mut self, world: &World) -> &mut Parts {
        let (kind, schedules) = (world.resource::<Frame>().kind, self.schedules);
        let relocatable = world.resource::<Request>().options.output_kind == OutputKind::Relocatable;
        let parts = match kind {
            FrameKind::Cold if relocatable => &mut self.partial,
            FrameKind::Cold => &mut self.cold,
            FrameKind::Warm => &mut self.warm,
        };
        parts.get_or_insert_with(|| Parts::new(schedules, kind, relocatable))
    }

    /// Derives a frame of the kind that [`Frame`] says.
    pub fn derive(&mut self, world: &mut World) {
        self.parts(world).derive.run(world);
    }

    /// Publishes the frame that was derived last.
    pub fn publish(&mut self, world: &mut World) {
        self.parts(world).publish.run(world);
        world.clear_trackers();
    }
}

/// Forgets what was derived last.
pub fn abandon(world: &mut World) {
    commit::changed::clear_frame(world);
    world.clear_trackers();
}

/// The order of a cold frame: bulk drivers, over columns.
fn add_bulk_drivers(parts: &mut Parts) {
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
    parts.derive.add_systems(sets.chain());
    let clear = ended(commit::changed::clear_frame, LinkSet::Commit);
    parts.publish.add_systems((commit::bulk::commit_program, clear).chain());
}

/// The order of a cold frame that makes an object of objects: nothing is placed, so nothing is relocated.
fn add_joining_drivers(parts: &mut Parts) {
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
    parts.derive.add_systems(sets.chain());
    let clear = ended(commit::changed::clear_frame, LinkSet::Commit);
    parts.publish.add_systems((commit::bulk::commit_program, clear).chain());
}

/// The order of a warm frame: drivers over the entities of what changed. Resolve has none: Diff proves that names
/// resolve as before.
fn add_changed_drivers(parts: &mut Parts) {
    let sets = (
        start,
        ended(ingest::changed::load_changed_inputs, LinkSet::Ingest),
        ended(diff::diff_inputs, LinkSet::Diff),
        ended(gate::judge_differences, LinkSet::Gate),
        ended(no_driver, LinkSet::Resolve),
        ended(place::changed::place_changed_atoms, LinkSet::Place),
        ended(moves::move_references, LinkSet::Move),
        ended(relocate::changed::relocate_changed_atoms, LinkSet::Relocate),
        ended(debug::changed::write_changed_satellites, LinkSet::Debug),
        ended(build_id::rehash_dirty_pages, LinkSet::BuildId),
    );
    parts.derive.add_systems(sets.chain());
    let clear = ended(commit::changed::clear_frame, LinkSet::Commit);
    parts.publish.add_systems((commit::changed::commit_patch, clear).chain());
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
    let ns = now.duration_since(clock.0).as_nanos() as u64;
    frame.timings.push(SetTime { set: set.name(), ns });
    clock.0 = now;
}

/// Runs bulk work on so many threads.
pub fn with_threads(threads: usize, work: impl FnOnce() + Send) {
    match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
        Ok(pool) => pool.install(work),
        Err(_) => work(), // No threads to be had: the caller's own does it all.
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
    world.init_resource::<relink_engine::program::Program>();
    world.init_resource::<relink_engine::plan::Plan>();
    world.init_resource::<relink_engine::image::Draft>();
    world.init_resource::<relink_engine::components::RelocationPool>();
    world.insert_resource(Clock(Instant::now()));
    world
}

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
mod relocate;
mod resolve;
pub mod verify;
mod view;

use std::time::Instant;

use bevy_ecs::prelude::{IntoScheduleConfigs, ResMut, Resource, Schedule, World};
use bevy_ecs::schedule::ScheduleLabel;
use relink_engine::frame::{Frame, LinkSet};
use relink_engine::options::ScheduleKind;
use relink_engine::report::SetTime;

/// The part of a frame that derives everything and changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, ScheduleLabel)]
pub struct Derive;

/// The part that publishes what was derived, or throws it away.
#[derive(Clone, Debug, PartialEq, Eq, Hash, ScheduleLabel)]
pub struct Publish;

/// The schedules of a frame: all sets but the last, and Commit. Sessions of a group derive first, all of them, and
/// then publish together.
#[expect(missing_debug_implementations, reason = "bevy's Schedule has none")]
pub struct Frames {
    derive: Schedule,
    publish: Schedule,
}

impl Frames {
    /// Builds the schedules for an executor.
    pub fn new(kind: ScheduleKind) -> Frames {
        let mut derive = Schedule::new(Derive);
        let mut publish = Schedule::new(Publish);
        let policy = policies::schedule(kind);
        policy.prepare(&mut derive);
        policy.prepare(&mut publish);
        add_derivation(&mut derive);
        publish.add_systems(
            (
                commit::bulk::commit_program,
                commit::changed::commit_patch,
                commit::changed::clear_frame,
                |clock: ResMut<'_, Clock>, frame: ResMut<'_, Frame>| stamp(LinkSet::Commit, clock, frame),
            )
                .chain()
                .in_set(LinkSet::Commit),
        );
        Frames { derive, publish }
    }

    /// Derives a frame.
    pub fn derive(&mut self, world: &mut World) {
        self.derive.run(world);
    }

    /// Publishes the frame that was derived last.
    pub fn publish(&mut self, world: &mut World) {
        self.publish.run(world);
        world.clear_trackers();
    }
}

/// Forgets what was derived last.
pub fn abandon(world: &mut World) {
    commit::changed::clear_frame(world);
    world.clear_trackers();
}

/// The order of the sets, each with the drivers that it has work for: bulk over columns, then over entities.
fn add_derivation(schedule: &mut Schedule) {
    schedule.configure_sets(
        (
            LinkSet::Ingest,
            LinkSet::Diff,
            LinkSet::Gate,
            LinkSet::Resolve,
            LinkSet::Place,
            LinkSet::Move,
            LinkSet::Relocate,
            LinkSet::Debug,
            LinkSet::BuildId,
        )
            .chain(),
    );
    schedule.add_systems(
        (ingest::bulk::load_program, ingest::changed::load_changed_inputs).chain().in_set(LinkSet::Ingest),
    );
    schedule.add_systems(diff::diff_inputs.in_set(LinkSet::Diff));
    schedule.add_systems(gate::judge_differences.in_set(LinkSet::Gate));
    schedule.add_systems(
        (
            resolve::comdat::choose_group_owners,
            resolve::definitions::resolve_names,
            place::symbols::define_linker_names,
            resolve::bind::bind_names,
            resolve::liveness::mark_live_atoms,
            resolve::merge::merge_pieces,
            resolve::unwind::collect_unwind_tables,
            resolve::scan::scan_relocations,
            resolve::dynamic::build_dynamic_tables,
        )
            .chain()
            .in_set(LinkSet::Resolve),
    );
    schedule.add_systems(
        (
            place::arrange::arrange_sections,
            place::addresses::assign_addresses,
            place::symtab::lay_out_symbol_table,
            place::symbols::assign_symbol_addresses,
            place::changed::place_changed_atoms,
        )
            .chain()
            .in_set(LinkSet::Place),
    );
    schedule.add_systems(moves::move_references.in_set(LinkSet::Move));
    schedule.add_systems(
        (
            relocate::bulk::write_atoms,
            relocate::tables::write_tables,
            relocate::headers::write_headers,
            relocate::changed::relocate_changed_atoms,
        )
            .chain()
            .in_set(LinkSet::Relocate),
    );
    schedule.add_systems(
        (
            debug::unwind::write_unwind_tables,
            debug::symtab::write_symbol_table,
            debug::changed::write_changed_satellites,
        )
            .chain()
            .in_set(LinkSet::Debug),
    );
    schedule
        .add_systems((build_id::hash_image, build_id::rehash_dirty_pages).chain().in_set(LinkSet::BuildId));
    for (index, set) in LinkSet::ALL.into_iter().enumerate() {
        let stamp = move |clock: ResMut<'_, Clock>, frame: ResMut<'_, Frame>| stamp(set, clock, frame);
        match LinkSet::ALL.get(index + 1) {
            Some(&LinkSet::Commit) => {
                schedule.add_systems(stamp.after(set));
                break;
            }
            Some(&next) => schedule.add_systems(stamp.after(set).before(next)),
            None => break,
        };
    }
    schedule.add_systems((|mut clock: ResMut<'_, Clock>| clock.0 = Instant::now()).before(LinkSet::Ingest));
}

/// When the set before ended.
#[derive(Debug, Resource)]
struct Clock(Instant);

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

//! Single-threaded: the executor for frames of microseconds; ten idle systems cost it 0.5 µs.

use bevy_ecs::prelude::Schedule;
use bevy_ecs::schedule::SingleThreadedExecutor;
use relink_engine::policy::SchedulePolicy;

/// One thread for the sets; bulk drivers still share their columns among all cores.
pub(crate) struct SingleThreaded;

impl SchedulePolicy for SingleThreaded {
    fn prepare(&self, schedule: &mut Schedule) {
        schedule.set_executor(SingleThreadedExecutor::new());
    }
}

//! Multi-threaded: bevy's executor; handing ten idle systems to threads costs 20-30 µs, so that it pays for frames of
//! more than a millisecond.

use bevy_ecs::prelude::Schedule;
use bevy_ecs::schedule::MultiThreadedExecutor;
use relink_engine::policy::SchedulePolicy;

/// Systems without conflicts may run at once.
pub(crate) struct MultiThreaded;

impl SchedulePolicy for MultiThreaded {
    fn prepare(&self, schedule: &mut Schedule) {
        schedule.set_executor(MultiThreadedExecutor::new());
    }
}

//! Building blocks that every module of a node may use and that depend on none of them: the
//! network's clock, sets of tasks, the ticks that periodic tasks share, and counters.

pub(crate) mod clock;
pub(crate) mod unix_time;
pub(crate) mod ticks;
pub(crate) mod task_set;
pub(crate) mod suspend;
pub(crate) mod counters;

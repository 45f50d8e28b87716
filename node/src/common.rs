//! Building blocks that every module of a node may use and that depend on none of them: the
//! network's clock, sets of tasks, the ticks that periodic tasks share, counters, files with a
//! checksum, and where the time of requests goes.

pub(crate) mod checked;
pub(crate) mod clock;
pub(crate) mod unix_time;
pub(crate) mod ticks;
pub(crate) mod task_set;
pub(crate) mod suspend;
pub(crate) mod counters;
pub(crate) mod timeline;
pub(crate) mod slow_requests;
pub(crate) mod turnovers;
pub(crate) mod recent;

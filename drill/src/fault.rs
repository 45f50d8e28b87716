//! The faults that a drill can inject.

use clap::ValueEnum;

/// A fault, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// The coordinator's process is killed, and started again later
    CoordinatorKill,
    /// The coordinator is frozen for longer than an election takes, and resumes
    Pause,
    /// The coordinator and the other nodes cannot reach each other; clients reach all
    Partition,
    /// The coordinator's disk hangs in a sync for a while
    DiskStall,
    /// The coordinator's disk is full for a while
    DiskFull,
    /// The clocks of the nodes jump apart by an hour and a half, and the coordinator is killed
    ClockJump,
    /// All processes are killed at once, the server's too, and started again
    RestartAll,
    /// Nodes are added, and the first ones removed for good
    Churn,
    /// Somebody with a stolen node token attacks every node and the server, as a leader, as a
    /// candidate and as the coordinator, and waits for clients that are misled
    Intruder,
    /// A copy of the coordinator's data directory is started beside it, until an administrator says
    /// which goes on
    Clone,
    /// The coordinator's data directory is put back as it was a while ago
    OldCopy,
    /// You inject the fault yourself, into your own network
    ByHand,
    /// All but by-hand, one after the other
    All,
}

impl Fault {
    /// Its name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What happens, in a sentence.
    pub fn description(self) -> String {
        let value = self.to_possible_value();
        let help = value.and_then(|value| value.get_help().map(ToString::to_string));
        help.unwrap_or_default()
    }
}

//! The faults that a drill can inject.

use clap::ValueEnum;

/// A fault, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// Kill the coordinator's process, and start it again later
    CoordinatorKill,
    /// Freeze the coordinator for longer than an election takes, then resume it
    Pause,
    /// Cut the coordinator off from the other nodes, while clients reach all of them
    Partition,
    /// Let the coordinator's disk hang in a sync for a while
    DiskStall,
    /// Fill the coordinator's disk for a while
    DiskFull,
    /// Set the clocks of the nodes apart by an hour and a half, and kill the coordinator
    ClockJump,
    /// Kill all processes at once, the server included, and start them again
    RestartAll,
    /// Add nodes, and remove the first ones permanently
    Churn,
    /// Attack every node and the server with a stolen node token, as a leader, as a candidate and
    /// as the coordinator, and wait for misled clients
    Intruder,
    /// Start a copy of the coordinator's data directory beside it, until an administrator chooses
    /// between them
    Clone,
    /// Replace the coordinator's data directory with an older copy
    OldCopy,
    /// Inject the fault yourself, into your own network
    ByHand,
    /// Hold all drills except by-hand, one after the other
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

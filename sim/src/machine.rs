//! A simulated machine: a runtime of its own, whose clock is driven by hand, on a platform of its
//! own.
//!
//! A machine runs one process at a time. Killing the process drops the runtime with all its tasks,
//! which is as sudden as SIGKILL: no task cleans up. The clocks may run fast or slow, or stand
//! still.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dkv_base::platform::{Platform, PowerCut};
use dkv_wire::net_platform::{self, NetPlatform};
use quinn::AsyncUdpSocket;
use rustls::crypto::CryptoProvider;
use tokio::runtime::{Builder, Runtime};

use crate::cryptography;
use crate::network::{self, Network};
use crate::random::Random;

/// How often all ready tasks are polled before a tick ends.
const SETTLE: usize = 16;

/// How a machine's monotonic clock runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockRate {
    /// Exactly.
    Exact,
    /// It gains a millisecond in every so many.
    Fast(u64),
    /// It loses a millisecond in every so many.
    Slow(u64),
}

/// One machine.
pub struct Machine {
    platform: Rc<Simulated>,
    process: Option<Runtime>,
    rate: ClockRate,
    ticks: u64,
    /// While it stands still: until which tick, and whether its clock goes on meanwhile.
    still: Option<(u64, bool)>,
    /// Ticks that the clock has to catch up with.
    owed: u64,
}

struct Simulated {
    address: IpAddr,
    network: Network,
    random: RefCell<Random>,
    /// What the wall clocks of all machines show at the first tick.
    epoch: SystemTime,
    now: Cell<u64>,
    wall_offset_ms: Cell<i64>,
    power: Cell<Power>,
}

/// Whether a machine has power when it writes a small file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    /// The power fails in a write, after so many further writes.
    FailsAfter(u64),
    Off,
}

impl Machine {
    /// Creates a machine without a process.
    pub fn new(number: u8, network: Network, random: Random, epoch: SystemTime) -> Self {
        let platform = Rc::new(Simulated {
            address: network::address(number),
            network,
            random: RefCell::new(random),
            epoch,
            now: Cell::new(0),
            wall_offset_ms: Cell::new(0),
            power: Cell::new(Power::On),
        });
        Self { platform, process: None, rate: ClockRate::Exact, ticks: 0, still: None, owed: 0 }
    }

    /// Returns its address.
    pub fn address(&self) -> IpAddr {
        self.platform.address
    }

    /// Returns whether a process runs.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Starts a process that runs this future.
    pub fn start(&mut self, process: impl Future<Output = ()> + Send + 'static) {
        let mut builder = Builder::new_current_thread();
        // Input from outside always comes first, however many tasks were polled before.
        builder.enable_time().start_paused(true).global_queue_interval(1);
        let runtime = builder.build();
        // Building a runtime fails only in a process that may start no thread at all.
        let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
        runtime.spawn(process);
        self.process = Some(runtime);
        if self.has_no_power() {
            self.fail_power_after(None);
        }
        self.still = None;
        self.owed = 0;
    }

    /// Ends the process, wherever it is.
    pub fn kill(&mut self) {
        let _simulated = net_platform::simulate(Rc::clone(&self.platform) as Rc<dyn NetPlatform>);
        self.process = None;
        self.platform.network.close_all(self.platform.address);
    }

    /// Makes the power fail while a small file is replaced, after so many further files; `None`
    /// means never.
    pub fn fail_power_after(&self, files: Option<u64>) {
        self.platform.power.set(files.map_or(Power::On, Power::FailsAfter));
    }

    /// Returns whether the power has failed in this way.
    pub fn has_no_power(&self) -> bool {
        self.platform.power.get() == Power::Off
    }

    /// Stops the machine until a tick. If `clock_goes_on`, the clock has jumped when the machine
    /// resumes, as after SIGSTOP; if not, the clock has stood still too, as in a virtual machine
    /// that was halted.
    pub fn stand_still(&mut self, until: u64, clock_goes_on: bool) {
        self.still = Some((until, clock_goes_on));
    }

    /// Returns whether the machine stands still.
    pub fn stands_still(&self) -> bool {
        self.still.is_some()
    }

    /// Changes the rate of the monotonic clock.
    pub fn set_rate(&mut self, rate: ClockRate) {
        self.rate = rate;
    }

    /// Sets the wall clock ahead or back, in milliseconds.
    pub fn set_wall_offset(&self, offset_ms: i64) {
        self.platform.wall_offset_ms.set(offset_ms);
    }

    /// Advances the machine by one tick.
    pub fn tick(&mut self, now: u64) {
        self.platform.now.set(now);
        self.ticks += 1;
        let Some(runtime) = &self.process else { return };
        if let Some((until, clock_goes_on)) = self.still {
            self.owed += u64::from(clock_goes_on);
            if now < until {
                return;
            }
            self.still = None;
        }
        let passes = match self.rate {
            ClockRate::Fast(every) if self.ticks.is_multiple_of(every) => 2,
            ClockRate::Slow(every) if self.ticks.is_multiple_of(every) => 0,
            _ => 1,
        };
        let _simulated = net_platform::simulate(Rc::clone(&self.platform) as Rc<dyn NetPlatform>);
        let jump = std::mem::take(&mut self.owed);
        runtime.block_on(async {
            if jump > 0 {
                tokio::time::advance(Duration::from_millis(jump)).await;
            }
            if passes > 0 {
                tokio::time::sleep(Duration::from_millis(passes)).await;
            }
            // Everything that is due now is done in this tick.
            for _ in 0..SETTLE {
                tokio::task::yield_now().await;
            }
        });
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

impl NetPlatform for Simulated {
    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(self.network.bind(self.address, address)?)
    }

    fn refuses(&self, address: SocketAddr) -> bool {
        self.network.refuses(self.address, address)
    }

    fn cryptography(&self) -> Arc<CryptoProvider> {
        cryptography::provider()
    }
}

impl Platform for Simulated {
    fn wall_clock(&self) -> SystemTime {
        let offset_ms = self.wall_offset_ms.get();
        let now = self.epoch + Duration::from_millis(self.now.get());
        let offset = Duration::from_millis(offset_ms.unsigned_abs());
        if offset_ms < 0 { now - offset } else { now + offset }
    }

    fn power_cut(&self) -> Option<PowerCut> {
        match self.power.get() {
            Power::On => return None,
            Power::Off => return Some(PowerCut::Before),
            Power::FailsAfter(0) => self.power.set(Power::Off),
            Power::FailsAfter(files) => {
                self.power.set(Power::FailsAfter(files - 1));
                return None;
            }
        }
        let cuts = [PowerCut::Before, PowerCut::Begun, PowerCut::Written, PowerCut::Replaced];
        Some(cuts[(self.random() % 4) as usize])
    }

    fn random(&self) -> u64 {
        self.random.borrow_mut().draw()
    }
}

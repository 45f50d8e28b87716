//! A simulated machine: a runtime of its own, whose clock is driven by hand, on a platform of its
//! own.
//!
//! A machine runs one process at a time. To kill it is to drop the runtime with all tasks in it,
//! which is as sudden as SIGKILL: nobody gets a last word. Its clocks may run fast or slow, or
//! stand still.

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

/// Times that all tasks which are ready are polled before a tick ends.
const SETTLE: usize = 16;

/// How a machine's monotonic clock runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As it should.
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
    pace: Pace,
    ticks: u64,
    /// While it stands still: until when, and whether its clock goes on meanwhile.
    still: Option<(u64, bool)>,
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

/// Whether a machine has power, as the writes of small files see it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    /// It fails in a write, so many writes from now.
    FailsAfter(u64),
    Off,
}

impl Machine {
    /// A machine without a process.
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
        Self { platform, process: None, pace: Pace::Exact, ticks: 0, still: None, owed: 0 }
    }

    /// Its address.
    pub fn address(&self) -> IpAddr {
        self.platform.address
    }

    /// Whether a process runs.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Starts a process that does this.
    pub fn start(&mut self, process: impl Future<Output = ()> + Send + 'static) {
        let mut builder = Builder::new_current_thread();
        // What comes from outside is always first, however many tasks were polled before.
        builder.enable_time().start_paused(true).global_queue_interval(1);
        let runtime = builder.build();
        // Only a process that may start no thread at all cannot have a runtime.
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

    /// Has the power fail in the middle of the replacement of a small file, so many of them from
    /// now; or at no time any more.
    pub fn fail_power_after(&self, files: Option<u64>) {
        self.platform.power.set(files.map_or(Power::On, Power::FailsAfter));
    }

    /// Whether the power has failed so.
    pub fn has_no_power(&self) -> bool {
        self.platform.power.get() == Power::Off
    }

    /// Has it stand still until a tick. If `clock_goes_on`, its clock has jumped when it wakes, as
    /// after SIGSTOP; if not, it has not noticed, as after a halt of a virtual machine.
    pub fn stand_still(&mut self, until: u64, clock_goes_on: bool) {
        self.still = Some((until, clock_goes_on));
    }

    /// Whether it stands still.
    pub fn stands_still(&self) -> bool {
        self.still.is_some()
    }

    /// Has its monotonic clock run at another pace.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// Sets its clock on the wall ahead, or back.
    pub fn set_wall_offset(&self, offset_ms: i64) {
        self.platform.wall_offset_ms.set(offset_ms);
    }

    /// Lets one tick pass.
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
        let passes = match self.pace {
            Pace::Fast(every) if self.ticks.is_multiple_of(every) => 2,
            Pace::Slow(every) if self.ticks.is_multiple_of(every) => 0,
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
            // Whatever is due at this very moment is done in this tick.
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

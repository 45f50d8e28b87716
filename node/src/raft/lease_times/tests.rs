use bytes::Bytes;
use dkv_base::id::{Serial, SessionId, Stamp};
use dkv_state::BatchBuilder;
use dkv_wire::codec::encode;
use dkv_wire::message::{Command, Expire, LeaseAction, LeaseCommand};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const S: Duration = Duration::from_secs(1);

fn session() -> SessionId {
    SessionId(Uuid::from_u128(7))
}

struct Shard {
    state: ShardState,
    serial: u64,
}

impl Shard {
    fn new() -> Self {
        let mut shard = Self { state: ShardState::new(), serial: 0 };
        shard.apply(&Command::OpenSession(session()));
        shard
    }

    fn apply(&mut self, command: &Command<'_>) {
        let mut batch = BatchBuilder::new(1, Stamp(1));
        batch.push(&encode(command));
        let batch: Bytes = batch.finish();
        self.state.apply(&batch).unwrap();
    }

    fn change(&mut self, lease: u64, action: LeaseAction) {
        self.serial += 1;
        let (session, serial, lease) = (session(), Serial(self.serial), LeaseId(lease));
        let change = LeaseCommand { session, serial, settled: serial, lease, action };
        self.apply(&Command::Lease(change));
    }

    fn grant(&mut self, lease: u64, ttl: Duration) {
        self.change(lease, LeaseAction::Grant { ttl_ms: ttl.as_millis() as u64 });
    }

    fn end(&mut self, leases: &[FoundLease]) {
        for FoundLease { id, grant, .. } in leases {
            self.apply(&Command::Expire(Expire::Lease { lease: *id, grant: *grant }));
        }
    }

    fn lease(&self, lease: u64) -> FoundLease {
        self.state.lease(LeaseId(lease)).unwrap()
    }
}

fn ids(leases: &[FoundLease]) -> Vec<u64> {
    leases.iter().map(|lease| lease.id.0).collect()
}

#[test]
fn a_lease_ends_once_nobody_has_kept_it_alive_for_its_time() {
    let (mut shard, mut times, start) = (Shard::new(), LeaseTimes::default(), Instant::now());
    shard.grant(1, 10 * S);
    shard.grant(2, 5 * S);
    assert!(times.follow(Term(3), &shard.state, start));
    assert_eq!(times.next_end(), Some(start + 5 * S));
    assert_eq!(times.keep_alive(&shard.lease(2), start + 4 * S), Ok(()));
    assert_eq!(times.next_end(), Some(start + 9 * S));
    assert_eq!(times.remaining(&shard.lease(1), start + 4 * S), 6 * S);
    let propose =
        |times: &mut LeaseTimes, shard: &Shard, at| times.propose_ends(&shard.state, at, 100, 100);
    assert_eq!(propose(&mut times, &shard, start + 9 * S - S / 1000), []);
    let due = propose(&mut times, &shard, start + 9 * S);
    assert_eq!(ids(&due), [2]);
    // Its end is under way, and may yet happen whatever becomes of the proposal.
    assert_eq!(times.keep_alive(&shard.lease(2), start + 9 * S), Err(NotKept::Ending));
    assert_eq!(times.remaining(&shard.lease(2), start + 9 * S), Duration::ZERO);
    times.proposed(&due, &shard.state);
    times.keep_all_alive(start + 9 * S);
    assert_eq!(times.keep_alive(&shard.lease(2), start + 9 * S), Err(NotKept::Ending));
    // The failed proposal is repeated first.
    assert_eq!(times.next_end(), Some(start + 9 * S));
    assert_eq!(times.remaining(&shard.lease(1), start + 9 * S), 10 * S);
}

#[test]
fn a_proposal_that_failed_is_repeated() {
    let (mut shard, mut times, start) = (Shard::new(), LeaseTimes::default(), Instant::now());
    shard.grant(1, S);
    times.follow(Term(1), &shard.state, start);
    for _ in 0..2 {
        let due = times.propose_ends(&shard.state, start + S, 100, 100);
        assert_eq!(ids(&due), [1]);
        assert_eq!(times.next_end(), None);
        times.proposed(&due, &shard.state);
    }
    let due = times.propose_ends(&shard.state, start + S, 100, 100);
    shard.end(&due);
    times.proposed(&due, &shard.state);
    assert_eq!((times.next_end(), times.leases.len()), (None, 0));
}

#[test]
fn a_new_primary_gives_every_lease_its_full_time() {
    let (mut shard, mut times, start) = (Shard::new(), LeaseTimes::default(), Instant::now());
    shard.grant(1, 10 * S);
    shard.grant(2, 2 * S);
    times.follow(Term(3), &shard.state, start);
    let due = times.propose_ends(&shard.state, start + 2 * S, 100, 100);
    assert_eq!(ids(&due), [2]);
    // What this node had proposed in its last term was in vain, since it leads in a later one.
    assert!(times.follow(Term(5), &shard.state, start + 9 * S));
    assert_eq!(times.remaining(&shard.lease(1), start + 9 * S), 10 * S);
    assert_eq!(times.remaining(&shard.lease(2), start + 9 * S), 2 * S);
    assert!(!times.follow(Term(3), &shard.state, start + 9 * S), "it does not lead there");
}

#[test]
fn another_grant_under_the_same_id_has_a_time_of_its_own() {
    let (mut shard, mut times, start) = (Shard::new(), LeaseTimes::default(), Instant::now());
    shard.grant(1, 2 * S);
    times.follow(Term(1), &shard.state, start);
    let before = shard.lease(1);
    let due = times.propose_ends(&shard.state, start + 2 * S, 100, 100);
    // Before the end is applied, another client has the lease.
    shard.change(1, LeaseAction::Revoke);
    shard.grant(1, 2 * S);
    shard.end(&due);
    times.follow(Term(1), &shard.state, start + 3 * S);
    times.proposed(&due, &shard.state);
    assert_eq!(times.keep_alive(&before, start + 3 * S), Err(NotKept::Ended));
    assert_eq!(times.remaining(&shard.lease(1), start + 3 * S), 2 * S);
    assert_eq!(times.next_end(), Some(start + 5 * S));
}

#[test]
fn many_leases_end_bit_by_bit() {
    let (mut shard, mut times, start) = (Shard::new(), LeaseTimes::default(), Instant::now());
    for lease in 1..=25 {
        shard.grant(lease, S);
    }
    times.follow(Term(1), &shard.state, start);
    let mut ended = Vec::new();
    while times.next_end().is_some() {
        let due = times.propose_ends(&shard.state, start + S, 10, 100);
        assert!((1..=10).contains(&due.len()));
        shard.end(&due);
        times.proposed(&due, &shard.state);
        ended.extend(ids(&due));
    }
    assert_eq!(ended, (1..=25).collect::<Vec<_>>());
}

#[derive(Clone, Debug)]
enum Step {
    Grant(u64),
    Revoke(u64),
    KeepAlive(u64),
    Wait(u64),
    Expire { fails: bool },
    Elect,
    Stall,
}

fn step() -> impl Strategy<Value = Step> {
    let lease = || 1..4_u64;
    prop_oneof![
        3 => lease().prop_map(Step::Grant),
        1 => lease().prop_map(Step::Revoke),
        4 => lease().prop_map(Step::KeepAlive),
        4 => (1..2000_u64).prop_map(Step::Wait),
        4 => any::<bool>().prop_map(|fails| Step::Expire { fails }),
        1 => Just(Step::Elect),
        1 => Just(Step::Stall),
    ]
}

proptest! {
    /// No lease ends before its time has passed since it was granted or kept alive, or since the
    /// term began; and each that was not kept alive ends.
    #[test]
    fn no_lease_ends_early(steps in prop::collection::vec(step(), 1..80)) {
        let (mut shard, mut times, mut now) = (Shard::new(), LeaseTimes::default(), Instant::now());
        let mut term = Term(1);
        let mut promised: HashMap<u64, Instant> = HashMap::new();
        for step in &steps {
            prop_assert!(times.follow(term, &shard.state, now));
            match *step {
                Step::Grant(lease) => {
                    if shard.state.lease(LeaseId(lease)).is_none() {
                        promised.insert(lease, now + 3 * S);
                    }
                    shard.grant(lease, 3 * S);
                }
                Step::Revoke(lease) => {
                    promised.remove(&lease);
                    shard.change(lease, LeaseAction::Revoke);
                }
                Step::KeepAlive(lease) => match shard.state.lease(LeaseId(lease)) {
                    Some(found) if times.keep_alive(&found, now).is_ok() => {
                        promised.insert(lease, now + 3 * S);
                    }
                    Some(_) => {
                        let promise = promised[&lease];
                        prop_assert!(promise <= now, "it could have been kept alive");
                    }
                    None => prop_assert!(!promised.contains_key(&lease), "it is lost"),
                },
                Step::Wait(ms) => now += Duration::from_millis(ms),
                Step::Expire { fails } => {
                    let due = times.propose_ends(&shard.state, now, 2, 100);
                    if !fails {
                        shard.end(&due);
                    }
                    times.proposed(&due, &shard.state);
                    for lease in &due {
                        prop_assert!(promised[&lease.id.0] <= now, "{} ends early", lease.id);
                        if !fails {
                            promised.remove(&lease.id.0);
                        }
                    }
                }
                Step::Elect => {
                    term.0 += 1;
                    for promise in promised.values_mut() {
                        *promise = now + 3 * S;
                    }
                }
                Step::Stall => times.keep_all_alive(now),
            }
        }
        // All of them end at last.
        times.follow(term, &shard.state, now);
        for _ in 0..10 {
            now += 3 * S;
            let due = times.propose_ends(&shard.state, now, 2, 100);
            shard.end(&due);
            times.proposed(&due, &shard.state);
        }
        prop_assert_eq!(shard.state.leases_after(LeaseId(0)).count(), 0);
    }
}

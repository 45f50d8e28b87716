//! Random histories: every request ends once and in time, nothing is left behind, what is counted
//! twice agrees, and no write that may have been executed is called unavailable.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const REPLIES: [&[&str]; 12] = [
    &["notprimary", "nobody"],
    &["notprimary", "n2"],
    &["notprimary", "n1"],
    &["expired"],
    &["behind"],
    &["time", "5000"],
    &["overloaded", "3"],
    &["unavailable"],
    &["unknown"],
    &["invalid"],
    &["fitting"],
    &["fitting"],
];

#[derive(Clone, Debug)]
enum Step {
    Event(String),
    Pass(u64),
    Link(usize, bool),
    /// Answers one of the requests that were sent.
    Reply(usize, usize),
    Cancel(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (20..400_u64).prop_map(|ms| Step::Event(format!("write {ms}"))),
        2 => Just(Step::Event("deposit".into())),
        1 => Just(Step::Event("read strong".into())),
        1 => prop_oneof![Just("eventual"), Just("session"), Just("nearest")]
            .prop_map(|level| Step::Event(format!("read {level}"))),
        1 => (1..4_u64, 1..4_u64).prop_map(|(term, n)| {
            Step::Event(format!("view {term} n{n} n1,n2,n3"))
        }),
        2 => (1..60_u64).prop_map(Step::Pass),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(n, good)| Step::Link(n, good)),
        8 => (any::<usize>(), 0..REPLIES.len()).prop_map(|(n, with)| Step::Reply(n, with)),
        1 => any::<usize>().prop_map(Step::Cancel),
    ]
}

/// The driver and the network, as far as they matter here.
struct World {
    script: Script,
    next: usize,
    dialing: Vec<(NodeId, u64)>,
    connected: Vec<(NodeId, u64)>,
    sent: Vec<OutgoingRequest>,
    live: BTreeSet<String>,
    /// Writes with attempts that were neither answered nor refused without an effect.
    doubtful: BTreeMap<u64, usize>,
}

fn has_effect(payload: &Payload) -> bool {
    match payload {
        Payload::Write { .. } | Payload::Transact { .. } | Payload::Lease { .. } => true,
        // No node accepts a deposit without a stamp.
        Payload::Plain(RequestBody::Deposit { stamp, .. }) => *stamp != Stamp(0),
        Payload::Plain(_) => false,
    }
}

impl World {
    fn settle(&mut self) {
        while let Some(effect) = self.script.router.poll_effect() {
            match effect {
                Effect::Connect { node, generation, .. } => self.dialing.push((node, generation)),
                Effect::Disconnect { .. }
                | Effect::AskServer
                | Effect::SaveNodes(_)
                | Effect::LearnServers(_)
                | Effect::SetDelays { .. } => {}
                Effect::Send(outgoing) => {
                    assert!(self.connected.contains(&(outgoing.node, outgoing.generation)));
                    if has_effect(&outgoing.payload) {
                        *self.doubtful.entry(request_of(outgoing.id)).or_default() += 1;
                    }
                    self.sent.push(outgoing);
                }
                Effect::Finish { waiter, outcome } => {
                    assert!(self.live.remove(&waiter), "{waiter} ended twice");
                    let id = self.script.ids[&waiter];
                    let doubtful = self.doubtful.get(&id).copied().unwrap_or_default();
                    match outcome {
                        Err(Error::Unavailable(why)) => assert_eq!(doubtful, 0, "{why}"),
                        Err(Error::Unknown(why)) => assert!(doubtful > 0, "{why}"),
                        _ => {}
                    }
                }
            }
        }
        self.script.router.check();
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Event(text) => {
                let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
                if words[0] != "view" {
                    let who = format!("w{}", self.next);
                    self.next += 1;
                    self.script.ids.insert(who.clone(), self.script.router.next_id);
                    self.live.insert(who.clone());
                    words.insert(1, who);
                }
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                self.script.event(&words);
            }
            Step::Pass(ms) => {
                let until = self.script.now + Duration::from_millis(*ms);
                while self.script.now < until {
                    self.script.now += Duration::from_millis(5);
                    let now = self.script.now;
                    self.script.router.tick(now);
                    self.settle();
                }
            }
            Step::Link(pick, good) => {
                let now = self.script.now;
                if !self.dialing.is_empty() && (*good || self.connected.is_empty()) {
                    let (node, generation) = self.dialing.remove(pick % self.dialing.len());
                    let router = &mut self.script.router;
                    if !good {
                        router.connect_failed(now, node, generation, "no answer");
                    } else if router.connected(now, node, generation, Duration::ZERO) {
                        self.connected.retain(|(other, _)| *other != node);
                        self.connected.push((node, generation));
                    }
                } else if !self.connected.is_empty() && !good {
                    let (node, generation) = self.connected.remove(pick % self.connected.len());
                    self.script.router.connection_lost(now, node, generation, "gone", false);
                }
            }
            Step::Reply(pick, with) => {
                if self.sent.is_empty() {
                    return;
                }
                let outgoing = self.sent.remove(pick % self.sent.len());
                let (node, generation) = (outgoing.node, outgoing.generation);
                let is_write = has_effect(&outgoing.payload);
                let result = match (REPLIES[*with], outgoing.payload.body().0) {
                    (["fitting"], RequestBody::View) => {
                        result(node, &["view", "2", "n2", "n1,n2,n3"])
                    }
                    (["fitting"], RequestBody::Read { .. }) => result(node, &["value"]),
                    (["fitting"], RequestBody::Deposit { stamp: Stamp(0), .. }) => {
                        result(node, &["time", "5000"])
                    }
                    (["fitting"], _) if is_write => result(node, &["written"]),
                    (["fitting"], _) => result(node, &["done"]),
                    (words, _) => result(node, words),
                };
                // Only a reply over an established connection ends a doubt.
                let heard = self.connected.contains(&(node, generation));
                let no_effect = !matches!(result, Ok(_) | Err(Refusal::Unknown(_)));
                if let (true, Some(count)) = (
                    is_write && heard && no_effect,
                    self.doubtful.get_mut(&request_of(outgoing.id)),
                ) {
                    *count -= 1;
                }
                let reply = Reply { id: outgoing.id, result };
                let now = self.script.now;
                self.script.router.handle_reply(now, node, generation, reply);
            }
            Step::Cancel(pick) => {
                if let Some(who) = self.live.iter().nth(pick % self.live.len().max(1)).cloned() {
                    self.live.remove(&who);
                    let now = self.script.now;
                    self.script.router.cancel(now, self.script.ids[&who]);
                }
            }
        }
        self.settle();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_request_ends_once_and_rightly(steps in proptest::collection::vec(step(), 1..120)) {
        let first = SessionId(Uuid::from_u128(100));
        let script =
            Script { router: Router::new(first, None), now: Duration::ZERO, ids: BTreeMap::new() };
        let mut world = World {
            script,
            next: 0,
            dialing: Vec::new(),
            connected: Vec::new(),
            sent: Vec::new(),
            live: BTreeSet::new(),
            doubtful: BTreeMap::new(),
        };
        for step in &steps {
            world.step(step);
        }
        // Longer than any timeout.
        world.step(&Step::Pass(3000));
        prop_assert!(world.live.is_empty(), "never ended: {:?}", world.live);
        // Probes stop once no request waits.
        world.step(&Step::Pass(2000));
        prop_assert!(world.script.router.is_idle());
    }
}

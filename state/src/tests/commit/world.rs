//! Some shards, clients, drivers and messages between them, and what must be true of them.
//!
//! Each transaction appends its own token to several keys. So the values tell which transactions
//! took effect, how often, and in which order.

mod checks;
mod shards;

use std::collections::{BTreeMap, BTreeSet};

use dkv_base::id::{GroupId, Serial, SessionId, Stamp, Term};
use dkv_wire::message::{
    Attempt, AttemptId, Command, Commitment, Compare, Decide, Decision, Keys, PartReceipt, Prepare,
    PrepareHome, Relation, Resolution, Test, Transact, Transaction, TransactionOperation,
};
use uuid::Uuid;

use self::shards::{Dice, Shard, prepared, records};
use super::super::super::{CommandResult, HomeRecord};
use super::super::open;
use super::encode;
use dkv_wire::codec;

const SHARDS: u32 = 3;
const CLIENTS: u32 = 3;
const KEYS: u8 = 6;
/// Most transactions under way at once.
const UNDER_WAY_MAX: usize = 4;

fn shard_of(key: u8) -> u32 {
    1 + u32::from(key) % SHARDS
}

/// A transaction of a client.
struct Sent {
    client: u32,
    keys: Vec<u8>,
    home: u32,
    serial: u64,
    /// Its compare holds as long as the first key has fewer versions than this.
    versions: u64,
    unfit: bool,
    outcome: Option<Outcome>,
    given_up: bool,
    began: usize,
    ended: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Committed(bool),
    Nothing,
}

/// One attempt under way.
struct Driver {
    of: usize,
    id: AttemptId,
    answers: BTreeMap<u32, CommandResult>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Preparing,
    Deciding,
    Finishing(Option<Commitment>),
    Over,
}

enum Message {
    /// To a shard, from a driver.
    Ask(u32, Vec<u8>, usize),
    /// To a driver, from a shard; to what the driver did in this phase.
    Answer(usize, u32, Phase, CommandResult),
    /// To the home, from a shard in doubt.
    Doubt(AttemptId, u32),
    /// To the shard in doubt.
    Resolved(AttemptId, u32, Resolution),
}

pub(super) struct World {
    dice: Dice,
    shards: BTreeMap<u32, Shard>,
    sent: Vec<Sent>,
    drivers: Vec<Driver>,
    under_way: Vec<Message>,
    serials: BTreeMap<(u32, u32), u64>,
    attempts: u64,
    step: usize,
    singles: Vec<(String, u8)>,
}

fn session_of(client: u32, home: u32) -> SessionId {
    SessionId(Uuid::from_u128(u128::from(client) << 32 | u128::from(home)))
}

/// The part of a transaction in a shard.
fn part_of(sent: &Sent, of: usize, shard: u32) -> Vec<u8> {
    let (yes, no) = (format!("{of}+"), format!("{of}-"));
    let of_shard: Vec<[u8; 1]> =
        sent.keys.iter().filter(|key| shard_of(**key) == shard).map(|key| [*key]).collect();
    let mut part = Transaction::default();
    for key in &of_shard {
        part.then.push(TransactionOperation::Append { key, bytes: yes.as_bytes() });
        part.otherwise.push(TransactionOperation::Append { key, bytes: no.as_bytes() });
    }
    if sent.unfit {
        part.then.push(TransactionOperation::Increment { key: b"bad", by: 1 });
        part.otherwise.push(TransactionOperation::Increment { key: b"bad", by: 1 });
    }
    let first = [sent.keys[0]];
    if shard_of(first[0]) == shard {
        let test = Test::Version(Relation::Less, sent.versions);
        part.compares.push(Compare { keys: Keys::Key(&first), test });
    }
    codec::encode_vec(&part)
}

fn shards_of(sent: &Sent) -> BTreeSet<u32> {
    sent.keys.iter().map(|key| shard_of(*key)).collect()
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut shards: BTreeMap<u32, Shard> =
            (1..=SHARDS).map(|number| (number, Shard::new(number))).collect();
        for (number, shard) in &mut shards {
            for client in 0..CLIENTS {
                shard.apply(&open(session_of(client, *number)));
            }
            let bad = Transaction {
                then: vec![TransactionOperation::Put(b"bad", b"x")],
                ..Transaction::default()
            };
            let (serial, settled, after) = (Serial(1), Serial(1), Stamp(0));
            let session = session_of(77, *number);
            shard.apply(&open(session));
            let body = &codec::encode_vec(&bad);
            let put = Transact { session, serial, settled, after, body };
            shard.apply(&encode(&Command::Transact(put)));
        }
        Self {
            dice: Dice(seed),
            shards,
            sent: Vec::new(),
            drivers: Vec::new(),
            under_way: Vec::new(),
            serials: BTreeMap::new(),
            attempts: 0,
            step: 0,
            singles: Vec::new(),
        }
    }

    /// Takes random steps, and returns the number of transactions that were committed.
    pub(super) fn run(mut self, steps: usize) -> usize {
        for _ in 0..steps {
            self.step += 1;
            match self.dice.roll(100) {
                0..=4 => self.send(),
                5..=8 => self.retry(),
                9..=82 => self.deliver(),
                83..=84 => self.kill(),
                85 if self.dice.one_in(4) => self.fail_over(),
                85..=89 => self.doubt(),
                90 => self.take_up(),
                91..=92 => self.write(),
                93..=96 => self.look(),
                97..=98 => {
                    let reload = self.dice.one_in(2);
                    let shard = 1 + self.dice.roll(SHARDS as usize) as u32;
                    self.shards.get_mut(&shard).expect("a shard").store(reload);
                }
                _ => {
                    let forward = self.dice.roll(700) as u64;
                    let shard = 1 + self.dice.roll(SHARDS as usize) as u32;
                    self.shards.get_mut(&shard).expect("a shard").now += forward;
                }
            }
        }
        self.settle();
        self.check()
    }

    fn apply(&mut self, shard: u32, command: &[u8]) -> CommandResult {
        self.shards.get_mut(&shard).expect("a shard").apply(command)
    }

    /// A client sends a new transaction.
    fn send(&mut self) {
        let is_open = |sent: &&Sent| sent.outcome.is_none() && !sent.given_up;
        if self.sent.iter().filter(is_open).count() >= UNDER_WAY_MAX {
            return;
        }
        let mut keys: Vec<u8> = (0..KEYS).collect();
        for index in 0..keys.len() {
            let other = self.dice.roll(keys.len());
            keys.swap(index, other);
        }
        keys.truncate(2 + self.dice.roll(2));
        let home = shard_of(keys[0]);
        let client = self.dice.roll(CLIENTS as usize) as u32;
        let serial = self.serials.entry((client, home)).or_default();
        *serial += 1;
        let sent = Sent {
            client,
            home,
            serial: *serial,
            versions: self.dice.roll(20) as u64,
            unfit: self.dice.one_in(12),
            keys,
            outcome: None,
            given_up: false,
            began: self.step,
            ended: usize::MAX,
        };
        self.sent.push(sent);
        self.begin(self.sent.len() - 1);
    }

    /// A client sends a transaction again, or gives it up.
    fn retry(&mut self) {
        let open: Vec<usize> = (0..self.sent.len())
            .filter(|of| self.sent[*of].outcome.is_none() && !self.sent[*of].given_up)
            .filter(|of| !self.is_driven(*of))
            .collect();
        if open.is_empty() {
            return;
        }
        let of = open[self.dice.roll(open.len())];
        if self.dice.one_in(10) {
            self.sent[of].given_up = true;
        } else {
            self.begin(of);
        }
    }

    /// Whether the present primary of the home is at it.
    fn is_driven(&self, of: usize) -> bool {
        let term = self.shards[&self.sent[of].home].term;
        let mine = |driver: &&Driver| driver.of == of && driver.id.attempt.term.0 == term;
        self.drivers.iter().filter(mine).any(|driver| driver.phase != Phase::Over)
    }

    fn settled(&self, client: u32, home: u32) -> u64 {
        let mine = |sent: &&Sent| sent.client == client && sent.home == home;
        let open = self.sent.iter().filter(mine);
        let open = open.filter(|sent| sent.outcome.is_none() && !sent.given_up);
        let next = self.serials.get(&(client, home)).copied().unwrap_or_default() + 1;
        open.map(|sent| sent.serial).min().unwrap_or(next)
    }

    /// A driver begins an attempt.
    fn begin(&mut self, of: usize) {
        let sent = &self.sent[of];
        let (client, home, serial) = (sent.client, sent.home, sent.serial);
        self.attempts += 1;
        let term = Term(self.shards[&home].term);
        let attempt = Attempt { term, number: self.attempts };
        let session = session_of(client, home);
        let id = AttemptId { home: GroupId(home), session, serial: Serial(serial), attempt };
        let active = self.drivers.iter().filter(|driver| {
            driver.id.home.0 == home
                && driver.id.attempt.term == term
                && driver.phase == Phase::Preparing
        });
        let over = active.map(|driver| driver.id.attempt).min().unwrap_or(attempt);
        let settled = Serial(self.settled(client, home).min(serial));
        let shards = shards_of(sent);
        let driver = self.drivers.len();
        for shard in &shards {
            let participants = shards.iter().filter(|shard| **shard != home);
            let participants = participants.map(|shard| GroupId(*shard)).collect();
            let at_home = PrepareHome { settled, patience_ms: 1000, participants };
            let at_home = (*shard == home).then_some(at_home);
            let body = &part_of(&self.sent[of], of, *shard);
            let (after, patient) = (Stamp(0), false);
            let prepare = Prepare { id, over, after, patient, at_home, body };
            let command = encode(&Command::Prepare(prepare));
            self.under_way.push(Message::Ask(*shard, command, driver));
        }
        self.drivers.push(Driver { of, id, answers: BTreeMap::new(), phase: Phase::Preparing });
    }

    /// A message arrives, perhaps not for the last time, or is lost.
    fn deliver(&mut self) {
        if self.under_way.is_empty() {
            return;
        }
        let index = self.dice.roll(self.under_way.len());
        let message = self.under_way.swap_remove(index);
        if self.dice.one_in(40) {
            return;
        }
        if self.dice.one_in(20) {
            self.under_way.push(match &message {
                Message::Ask(shard, command, driver) => {
                    Message::Ask(*shard, command.clone(), *driver)
                }
                Message::Answer(driver, shard, phase, result) => {
                    Message::Answer(*driver, *shard, *phase, *result)
                }
                Message::Doubt(id, shard) => Message::Doubt(*id, *shard),
                Message::Resolved(id, shard, resolution) => {
                    Message::Resolved(*id, *shard, *resolution)
                }
            });
        }
        match message {
            Message::Ask(shard, command, driver) => {
                let phase = match codec::decode(&command).expect("a command") {
                    Command::Prepare(_) => Phase::Preparing,
                    Command::Decide(_) => Phase::Deciding,
                    Command::Finish { committed, .. } => Phase::Finishing(committed),
                    _ => Phase::Over,
                };
                let result = self.apply(shard, &command);
                self.under_way.push(Message::Answer(driver, shard, phase, result));
            }
            Message::Answer(driver, shard, phase, result) => {
                self.answered(driver, shard, phase, result);
            }
            Message::Doubt(id, shard) => {
                let result = self.apply(id.home.0, &encode(&Command::Resolve { id, abort: false }));
                let CommandResult::Resolved(resolution) = result else { panic!("{result:?}") };
                self.under_way.push(Message::Resolved(id, shard, resolution));
            }
            Message::Resolved(id, shard, resolution) => self.resolved(id, shard, resolution),
        }
    }

    fn resolved(&mut self, id: AttemptId, shard: u32, resolution: Resolution) {
        let committed = match resolution {
            Resolution::Pending => return,
            Resolution::Aborted => None,
            Resolution::Committed(commitment) => Some(commitment),
        };
        self.apply(shard, &encode(&Command::Finish { id, committed }));
    }

    fn answered(&mut self, number: usize, shard: u32, phase: Phase, result: CommandResult) {
        let driver = &mut self.drivers[number];
        if driver.phase != phase || driver.answers.contains_key(&shard) {
            return;
        }
        driver.answers.insert(shard, result);
        let (of, id) = (driver.of, driver.id);
        match phase {
            Phase::Preparing => self.prepared(number),
            Phase::Deciding => {
                driver.answers.clear();
                match result {
                    CommandResult::Decided { commitment, .. } => {
                        self.end(of, Outcome::Committed(commitment.succeeded));
                        self.finish(number, Some(commitment));
                    }
                    CommandResult::Unfit { .. } => {
                        self.end(of, Outcome::Nothing);
                        self.finish(number, None);
                    }
                    _ => {
                        self.finish(number, None);
                        self.drivers[number].phase = Phase::Over;
                    }
                }
            }
            Phase::Finishing(committed) => {
                let others = shards_of(&self.sent[of]).len() - 1;
                if self.drivers[number].answers.len() == others {
                    self.drivers[number].phase = Phase::Over;
                    if committed.is_some() {
                        let forget = encode(&Command::Forget(id));
                        self.under_way.push(Message::Ask(id.home.0, forget, number));
                    }
                }
            }
            Phase::Over => {}
        }
    }

    /// Every shard has answered, or one of them in a way that ends the attempt.
    fn prepared(&mut self, number: usize) {
        let Driver { of, id, ref answers, .. } = self.drivers[number];
        let home = id.home.0;
        match answers.get(&home) {
            Some(CommandResult::Transacted { succeeded, .. }) => {
                let succeeded = *succeeded;
                self.end(of, Outcome::Committed(succeeded));
                return self.finish(number, None);
            }
            Some(CommandResult::Unfit { .. }) => {
                self.end(of, Outcome::Nothing);
                return self.finish(number, None);
            }
            _ => {}
        }
        let (mut holds, mut unfit, mut parts) = (true, [false; 2], Vec::new());
        let mut after = Stamp(0);
        for (shard, answer) in answers {
            let CommandResult::Prepared { holds: here, revision, stamp, then, otherwise } = answer
            else {
                let abort = encode(&Command::Resolve { id, abort: true });
                self.under_way.push(Message::Ask(home, abort, number));
                return self.finish(number, None);
            };
            holds &= here;
            after = after.max(*stamp);
            unfit[0] |= then.unfit.is_some();
            unfit[1] |= otherwise.unfit.is_some();
            if *shard != home {
                parts.push(PartReceipt { shard: GroupId(*shard), not_before: *revision });
            }
        }
        if answers.len() < shards_of(&self.sent[of]).len() {
            return;
        }
        let decision = match unfit[usize::from(!holds)] {
            true => {
                let why = dkv_wire::message::Unfit::NotANumber;
                Decision::Unfit { operation: 1, why }
            }
            false => Decision::Commit { succeeded: holds, changed: true, after, parts },
        };
        let decide = encode(&Command::Decide(Decide { id, decision }));
        self.under_way.push(Message::Ask(home, decide, number));
        self.drivers[number].phase = Phase::Deciding;
        self.drivers[number].answers.clear();
    }

    fn finish(&mut self, number: usize, committed: Option<Commitment>) {
        let Driver { of, id, .. } = self.drivers[number];
        for shard in shards_of(&self.sent[of]) {
            if shard != id.home.0 {
                let finish = encode(&Command::Finish { id, committed });
                self.under_way.push(Message::Ask(shard, finish, number));
            }
        }
        self.drivers[number].answers.clear();
        self.drivers[number].phase = Phase::Finishing(committed);
    }

    fn end(&mut self, of: usize, outcome: Outcome) {
        let sent = &mut self.sent[of];
        assert!(sent.outcome.is_none_or(|before| before == outcome), "two outcomes of {of}");
        if sent.outcome.is_none() && !sent.given_up {
            sent.outcome = Some(outcome);
            sent.ended = self.step;
        }
    }

    /// A driver dies, wherever it is.
    fn kill(&mut self) {
        if !self.drivers.is_empty() {
            let number = self.dice.roll(self.drivers.len());
            self.drivers[number].phase = Phase::Over;
        }
    }

    /// A home has another primary, which aborts what is undecided. The drivers of the old one may
    /// not know it for a while.
    fn fail_over(&mut self) {
        let home = 1 + self.dice.roll(SHARDS as usize) as u32;
        let shard = self.shards.get_mut(&home).expect("a shard");
        shard.term += 1;
        for record in records(shard) {
            if let HomeRecord::Undecided { id, .. } = record {
                shard.apply(&encode(&Command::Resolve { id, abort: true }));
            }
        }
    }

    /// A shard asks what has become of a part that it has prepared.
    fn doubt(&mut self) {
        let number = 1 + self.dice.roll(SHARDS as usize) as u32;
        let prepared: Vec<_> = prepared(&self.shards[&number]);
        if !prepared.is_empty() {
            let id = prepared[self.dice.roll(prepared.len())];
            if id.home.0 != number {
                self.under_way.push(Message::Doubt(id, number));
            }
        }
    }

    /// A primary takes up what its predecessor has committed.
    fn take_up(&mut self) {
        let number = 1 + self.dice.roll(SHARDS as usize) as u32;
        for record in records(&self.shards[&number]) {
            if let HomeRecord::Unfinished { id, commitment, participants } = record {
                let Some(of) = self.drivers.iter().find(|driver| driver.id == id) else { continue };
                let (of, phase) = (of.of, Phase::Finishing(Some(commitment)));
                self.drivers.push(Driver { of, id, answers: BTreeMap::new(), phase });
                for shard in participants {
                    let finish = encode(&Command::Finish { id, committed: Some(commitment) });
                    let driver = self.drivers.len() - 1;
                    self.under_way.push(Message::Ask(shard.0, finish, driver));
                }
            }
        }
    }

    /// A transaction of one shard, unless its key is locked.
    fn write(&mut self) {
        let key = self.dice.roll(KEYS.into()) as u8;
        let home = shard_of(key);
        let token = format!("s{};", self.singles.len());
        let name = [key];
        let part = Transaction {
            then: vec![TransactionOperation::Append { key: &name, bytes: token.as_bytes() }],
            ..Transaction::default()
        };
        let serial = self.serials.entry((99, home)).or_insert(1);
        *serial += 1;
        let (serial, settled) = (Serial(*serial), Serial(*serial));
        let (session, after) = (session_of(77, home), Stamp(0));
        let body = &codec::encode_vec(&part);
        let command =
            encode(&Command::Transact(Transact { session, serial, settled, after, body }));
        match self.apply(home, &command) {
            CommandResult::Transacted { .. } => self.singles.push((token, key)),
            CommandResult::Locked => {
                assert!(self.shards[&home].state.as_shard().expect("one").is_locked(&[key]));
            }
            other => panic!("{other:?}"),
        }
    }
}

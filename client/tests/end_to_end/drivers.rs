//! Transactions over two shards whose driver dies at every step, together with a primary. The
//! driver dies by never having lived: the test proposes its commands itself, in a node's name.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dkv_api::{
    Client, GroupId, KeyspaceId, NodeId, Revision, Transaction as Call,
    TransactionOperation as CallOperation,
};
use dkv_base::id::{Serial, SessionId, Stamp, Term};
use dkv_test_support::{output, within};
use dkv_wire::certificate::Credentials;
use dkv_wire::codec::encode;
use dkv_wire::message::{
    Answer, Attempt, AttemptId, Command, Commitment, Decide, Decision, PartReceipt, Prepare,
    PrepareAnswer, PrepareHome, ReadMode, RequestBody, Transaction, TransactionOperation,
};
use serde_json::json;
use uuid::Uuid;

use crate::harness::direct::{Direct, ask};
use crate::harness::{Network, PATIENCE, eventually};

const HOME: GroupId = GroupId(1);
const OTHER: GroupId = GroupId(2);
/// Time in which what the driver left behind is ended once both shards have primaries: a part is in
/// doubt after a second.
const ENDED_WITHIN: Duration = Duration::from_secs(12);

/// How far the driver comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    PreparedAtHome,
    PreparedElsewhere,
    PreparedEverywhere,
    Decided,
    Finished,
}

/// Who dies with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Nobody,
    PrimaryOfHome,
    PrimaryOfOther,
}

/// A driver.
struct Driver {
    direct: Direct,
    client: Client,
    session: SessionId,
    serial: u64,
    /// A key of each shard.
    keys: [String; 2],
}

impl Driver {
    async fn start(network: &Network) -> Self {
        let client = network.client().await;
        let view = client.refresh().await.unwrap();
        let key = |shard: GroupId| {
            let mut keys = (0..).map(|number| format!("key-{number}"));
            let is_there = |key: &String| {
                view.shard_of(KeyspaceId::DEFAULT, key.as_bytes()).unwrap().group == shard
            };
            keys.find(is_there).unwrap()
        };
        let keys = [key(HOME), key(OTHER)];
        // Only nodes that the directory names agree on transactions: it speaks as one of them.
        let credentials = Credentials::load(&network.nodes[0].dir.join("credentials"));
        let direct = Direct::with(credentials.unwrap().unwrap());
        let session = SessionId(Uuid::from_u128(7));
        let driver = Self { direct, client, session, serial: 0, keys };
        driver.propose(HOME, &Command::OpenSession(session)).await;
        driver
    }

    /// Asks the primary of a shard until there is an answer.
    async fn ask(&self, shard: GroupId, body: RequestBody) -> Answer {
        eventually("the primary does not answer", async || {
            let view = self.client.refresh().await.map_err(|error| error.to_string())?;
            let led = view.shards.iter().find(|it| it.group == shard).and_then(|it| it.primary);
            let node = led.and_then(|led| view.nodes.iter().find(|node| node.id == led));
            let node = node.ok_or("there is no primary")?;
            let connection = self.direct.to_node(node.address).await;
            let connection = connection.map_err(|error| error.to_string())?;
            match ask(&connection, body.clone()).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(refusal)) => Err(refusal.to_string()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    async fn propose(&self, shard: GroupId, command: &Command<'_>) -> Answer {
        let command = encode(command);
        self.ask(shard, RequestBody::Propose { shard, everywhere: false, command }).await
    }

    async fn term(&self, shard: GroupId) -> Term {
        let key = self.keys[0].clone().into();
        match self.ask(shard, RequestBody::Read { shard, key, mode: ReadMode::Primary }).await {
            Answer::Value(receipt, _) => receipt.term,
            other => panic!("{other:?}"),
        }
    }

    async fn prepare(&self, id: AttemptId, shard: GroupId, value: &str) -> Stamp {
        let key = &self.keys[usize::from(shard == OTHER)];
        let then = vec![TransactionOperation::Put(key.as_bytes(), value.as_bytes())];
        let body = &encode(&Transaction { then, ..Transaction::default() });
        let (settled, participants) = (Serial(1), vec![OTHER]);
        let at_home = PrepareHome { settled, patience_ms: 3000, participants };
        let at_home = (shard == HOME).then_some(at_home);
        let (over, after, patient) = (Attempt::default(), Stamp(0), true);
        let prepare = Prepare { id, over, after, patient, at_home, body };
        match self.propose(shard, &Command::Prepare(prepare)).await {
            Answer::Prepared(PrepareAnswer::Prepared { stamp, .. }) => stamp,
            other => panic!("{other:?}"),
        }
    }

    /// Writes both keys, and comes as far as a step.
    async fn drive(&mut self, upto: Step, value: &str) {
        self.serial += 1;
        let attempt = Attempt { term: self.term(HOME).await, number: (1 << 40) + self.serial };
        let id =
            AttemptId { home: HOME, session: self.session, serial: Serial(self.serial), attempt };
        let mut latest = Stamp(0);
        if upto != Step::PreparedElsewhere {
            latest = self.prepare(id, HOME, value).await;
        }
        if upto == Step::PreparedAtHome {
            return;
        }
        latest = latest.max(self.prepare(id, OTHER, value).await);
        if upto < Step::Decided {
            return;
        }
        let parts = vec![PartReceipt { shard: OTHER, not_before: Revision(1) }];
        let decision = Decision::Commit { succeeded: true, changed: true, after: latest, parts };
        let stamp = match self.propose(HOME, &Command::Decide(Decide { id, decision })).await {
            Answer::Transacted { receipt, .. } => receipt.stamp,
            other => panic!("{other:?}"),
        };
        if upto == Step::Finished {
            let committed = Some(Commitment { succeeded: true, stamp });
            self.propose(OTHER, &Command::Finish { id, committed }).await;
        }
    }

    async fn write_both(&self, value: &str) {
        for key in &self.keys {
            self.client.write(key, value.to_owned()).await.unwrap();
        }
    }

    /// Returns both values, each by a strong read.
    async fn read_both(&self) -> [String; 2] {
        let read = async |key: &String| {
            let read = self.client.read(key).await;
            read.map(|read| output(&read.value).to_owned()).map_err(|error| error.to_string())
        };
        let [one, other] = &self.keys;
        let one = async { eventually("a lock stays", async || read(one).await).await };
        let other = async { eventually("a lock stays", async || read(other).await).await };
        let (one, other) = tokio::join!(one, other);
        [one, other]
    }
}

fn primary(network: &Network, view: &dkv_api::NetworkView, shard: GroupId) -> usize {
    let shard = view.shards.iter().find(|it| it.group == shard).unwrap();
    let primary: NodeId = shard.primary.unwrap();
    network.index_of(primary)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dies_at_any_step_nothing_stays_in_doubt() {
    let mut network = Network::with(json!({ "shards": 2 }), 3).await;
    network.settled().await;
    let mut driver = Driver::start(&network).await;
    let steps = [
        Step::PreparedAtHome,
        Step::PreparedElsewhere,
        Step::PreparedEverywhere,
        Step::Decided,
        Step::Finished,
    ];
    let mut killed = BTreeSet::new();
    for step in steps {
        for victim in [Victim::Nobody, Victim::PrimaryOfHome, Victim::PrimaryOfOther] {
            let (old, new) =
                (format!("old {step:?} {victim:?}"), format!("new {step:?} {victim:?}"));
            driver.write_both(&old).await;
            driver.drive(step, &new).await;
            let view = driver.client.refresh().await.unwrap();
            let index = match victim {
                Victim::Nobody => None,
                Victim::PrimaryOfHome => Some(primary(&network, &view, HOME)),
                Victim::PrimaryOfOther => Some(primary(&network, &view, OTHER)),
            };
            if let Some(index) = index {
                network.kill_node(index);
                killed.insert(index);
            }
            let began = Instant::now();
            // The shards have done what the home decided and nothing else. No read shows a half.
            let expected = if step >= Step::Decided { &new } else { &old };
            let both = within(PATIENCE, "reading both keys", driver.read_both()).await;
            assert_eq!(both, [expected.clone(), expected.clone()], "{step:?}, {victim:?}");
            // The keys can be locked again: by writes, and by another transaction over both.
            driver.write_both("later").await;
            let again = driver
                .keys
                .iter()
                .fold(Call::new(), |call, key| call.then(CallOperation::append(key, "!")));
            assert!(driver.client.transact(again).await.unwrap().succeeded);
            assert_eq!(driver.read_both().await, ["later!", "later!"]);
            assert!(began.elapsed() < ENDED_WITHIN, "{step:?}, {victim:?}: {:?}", began.elapsed());
            if let Some(index) = index {
                network.start_node(index).await;
                network.settled().await;
            }
        }
    }
    assert!(!killed.is_empty());
    network.same_state().await;
}

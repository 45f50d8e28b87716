//! Transactions over lists of elements, each recorded for the checker of transactions.
//!
//! Every value is a list: elements, each followed by a comma. The keys of one group are in one
//! shard, those of the other in as many as there are. Some callers do not wait for the end of what
//! they have begun: its outcome is unknown.
//!
//! The first key of a group is only appended to together with an increment of the group's counter,
//! so a read of both at one moment must show the length of the one in the other.

use std::collections::BTreeMap;
use std::time::Duration;

use dkv_api::{
    Compare, Error, Level, OperationResult, ReadOptions, Receipt, Relation, Revision, Transacted,
    Transaction, TransactionOperation,
};
use dkv_base::id::GroupId;
use dkv_check as check;
use dkv_check::{Fate, ListOperation, RevisionChanges};

use super::TICK_NS;
use super::caller::Caller;
use super::list_group::ListGroup;

/// How many of a thousand transactions a caller abandons, and after how long at most.
const ABANDONED_PER_MILLE: u64 = 100;
const ABANDONED_AFTER_MS_MAX: u64 = 300;

impl Caller {
    /// Executes one transaction, of any kind.
    pub(super) async fn transact(&mut self, patience: Duration) {
        let groups = self.workload.list_groups();
        let Some(group) = self.random.pick(&groups).cloned() else { return };
        let Some(another) = self.random.pick(&groups).cloned() else { return };
        let element = self.element();
        let [counted, one, other] = &group.lists;
        let get = TransactionOperation::get;
        let append = |key: &String| TransactionOperation::append(key, format!("{element},"));
        match self.random.below(12) {
            // Both groups take part, or one does twice.
            10 => {
                let operations = vec![append(one), get(&another.lists[2]), get(counted)];
                self.execute(operations, patience).await;
            }
            11 => self.replace(other, &another.lists[1], &element, patience).await,
            0..3 => {
                let mut operations = vec![append(one), get(other)];
                if self.random.per_mille(500) {
                    operations.push(append(other));
                    operations.push(get(one));
                }
                self.random.shuffle(&mut operations);
                self.execute(operations, patience).await;
            }
            3..6 => {
                let increment = TransactionOperation::increment(&group.counter, 1);
                let mut operations = vec![append(counted), increment, get(counted), get(other)];
                self.random.shuffle(&mut operations);
                self.execute(operations, patience).await;
            }
            6..8 => {
                let mut operations = vec![get(counted), get(&group.counter), get(one), get(other)];
                self.random.shuffle(&mut operations);
                self.execute(operations, patience).await;
            }
            _ => self.replace(one, other, &element, patience).await,
        }
    }

    /// Appends to one list, or reads one.
    pub(super) async fn use_list(&mut self, patience: Duration) {
        let groups = self.workload.list_groups();
        let Some(group) = self.random.pick(&groups).cloned() else { return };
        let [counted, one, other] = &group.lists;
        let key = self.random.pick(&[one, other]).map_or(one, |key| key);
        if self.random.per_mille(500) {
            let nearest = ReadOptions::from(Level::Strong).nearest(self.random.per_mille(500));
            let key = if self.random.per_mille(300) { counted } else { key };
            self.read_list(key, nearest.timeout(patience)).await;
            return;
        }
        let element = self.element();
        let append = TransactionOperation::append(key, format!("{element},"));
        self.execute(vec![append], patience).await;
    }

    /// Reads all lists until each read succeeds.
    pub(super) async fn read_all_lists(&mut self, patience: Duration) {
        for group in self.workload.list_groups() {
            for key in &group.lists {
                let options = ReadOptions::from(Level::Strong).timeout(patience);
                while self.read_list(key, options).await.is_none() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Returns an element that no other operation writes.
    fn element(&mut self) -> String {
        self.calls += 1;
        format!("{}-{}", self.id, self.calls)
    }

    /// Reads a list. Returns its revision and elements; `None` if there was no answer.
    async fn read_list(
        &mut self,
        key: &str,
        options: ReadOptions,
    ) -> Option<(Option<Revision>, Vec<String>)> {
        let start_ns = self.workload.now() * TICK_NS;
        let (revision, list) = match self.client.read_with(key, options).await {
            Ok(read) => (Some(read.receipt.revision), elements(&read.value)),
            Err(Error::NotFound { .. }) => (None, Vec::new()),
            Err(_) => return None,
        };
        let ops = vec![ListOperation::Read(key.to_owned(), Some(list.clone()))];
        self.record(start_ns, Fate::Ok, ops, None);
        Some((revision, list))
    }

    /// Replaces a list by itself and another element, unless it has changed since it was read.
    async fn replace(&mut self, key: &str, other: &str, element: &str, patience: Duration) {
        let options = ReadOptions::from(Level::Strong).timeout(patience);
        let Some((revision, list)) = self.read_list(key, options).await else { return };
        let unchanged = match revision {
            Some(revision) => Compare::revision(key, Relation::Equal, revision),
            None => Compare::absent(key),
        };
        let text: String = list.iter().map(|element| format!("{element},")).collect();
        let transaction = Transaction::new()
            .when(unchanged)
            .then(TransactionOperation::put(key, format!("{text}{element},")))
            .then(TransactionOperation::get(other))
            .otherwise(TransactionOperation::get(key))
            .otherwise(TransactionOperation::get(other));
        let start_ns = self.workload.now() * TICK_NS;
        let done = self.send(transaction.clone().timeout(patience)).await;
        let append = ListOperation::Append(key.to_owned(), element.to_owned());
        let mut ops = match &done {
            Ok(done) if done.succeeded => {
                vec![ListOperation::Read(key.to_owned(), Some(list)), append]
            }
            Ok(_) => Vec::new(),
            Err(_) => vec![append],
        };
        if let Ok(done) = &done {
            let groups = self.workload.list_groups();
            ops.extend(reads(transaction.operations(done.succeeded), done, &groups));
        }
        self.conclude(start_ns, &transaction, done, ops);
    }

    /// Executes operations without a compare.
    async fn execute(&mut self, operations: Vec<TransactionOperation>, patience: Duration) {
        let mut transaction = Transaction::new().timeout(patience);
        for operation in operations {
            transaction = transaction.then(operation);
        }
        let start_ns = self.workload.now() * TICK_NS;
        let done = self.send(transaction.clone()).await;
        let ops = match &done {
            Ok(done) => reads(transaction.operations(true), done, &self.workload.list_groups()),
            Err(_) => {
                let operations = transaction.operations(true).iter();
                operations.filter_map(written).collect()
            }
        };
        self.conclude(start_ns, &transaction, done, ops);
    }

    /// Sends a transaction. Sometimes it does not wait for the answer, as if the caller had died.
    async fn send(&mut self, transaction: Transaction) -> Result<Transacted, Error> {
        let done = self.client.transact(transaction);
        if !self.random.per_mille(ABANDONED_PER_MILLE) {
            return done.await;
        }
        let wait = Duration::from_millis(self.random.below(ABANDONED_AFTER_MS_MAX));
        let abandoned = |_| Err(Error::Unknown("the caller has not waited".into()));
        tokio::time::timeout(wait, done).await.unwrap_or_else(abandoned)
    }

    /// Records a transaction and checks its counter.
    fn conclude(
        &mut self,
        start_ns: u64,
        transaction: &Transaction,
        done: Result<Transacted, Error>,
        ops: Vec<ListOperation>,
    ) {
        let line = |what: &str| format!("{} transaction {ops:?} -> {what}", self.id);
        match done {
            Ok(done) => {
                let (shard, revision) = (done.receipt.shard, done.receipt.revision);
                self.workload.trace().line(line(&format!("done at {revision}")));
                let operations = transaction.operations(done.succeeded);
                if let Some(wrong) = miscounted(operations, &done, &self.workload.list_groups()) {
                    self.workload.note_wrong(format!("{} at {revision}: {wrong}", self.id));
                }
                self.note_changes(operations, &done);
                let is_here = |operation: &&TransactionOperation| {
                    !operation.is_read() && self.shard_of(operation) == shard
                };
                self.workload.service().wrote(&done.receipt, self.workload.now());
                let has_changed = done.changed && operations.iter().any(|it| is_here(&it));
                let receipt = has_changed.then_some(done.receipt);
                self.record(start_ns, Fate::Ok, ops, receipt);
            }
            Err(error) => {
                let fate = match &error {
                    Error::Unknown(_) => Fate::Unknown,
                    Error::Unavailable(_) => Fate::Failed,
                    error => {
                        self.workload.note_wrong(format!("{} transaction: {error}", self.id));
                        Fate::Failed
                    }
                };
                self.workload.trace().line(line(&error.to_string()));
                self.record(start_ns, fate, ops, None);
            }
        }
    }

    fn shard_of(&self, operation: &TransactionOperation) -> GroupId {
        self.workload.shard_of(&String::from_utf8_lossy(operation.first_key()))
    }

    fn record(
        &self,
        start_ns: u64,
        result: Fate,
        ops: Vec<ListOperation>,
        receipt: Option<Receipt>,
    ) {
        let end_ns = Some(self.workload.now() * TICK_NS + TICK_NS - 1);
        let end_ns = end_ns.filter(|_| result != Fate::Unknown);
        let revisions = receipt.map(|receipt| (receipt.shard.0, receipt.revision.0));
        let revisions = revisions.into_iter().collect();
        let client = self.id;
        let transaction = check::Transaction {
            client,
            start_ns,
            end_ns,
            result,
            ops,
            revisions,
            snapshot: false,
        };
        self.workload.recorder().add_transaction(transaction);
    }

    /// Notes all changes of the revision of a transaction, as far as its results tell. Those in
    /// other shards than that of the receipt have no revision yet.
    fn note_changes(&self, operations: &[TransactionOperation], done: &Transacted) {
        let (shard, revision) = (done.receipt.shard, done.receipt.revision);
        let (true, Some(results)) = (done.changed, &done.results) else { return };
        let mut keys = BTreeMap::new();
        let all = operations.iter().zip(results);
        for (operation, result) in all.filter(|(operation, _)| self.shard_of(operation) == shard) {
            let value = match (operation, result) {
                (TransactionOperation::Put(_, value), _) => value.clone(),
                (_, OperationResult::Changed(version)) => version.value.clone().unwrap_or_default(),
                _ => continue,
            };
            let key = String::from_utf8_lossy(operation.first_key()).into_owned();
            keys.insert(key, Some(super::name_of(&value)));
        }
        if keys.is_empty() {
            return;
        }
        self.workload.note_revision(shard, revision);
        let changes = RevisionChanges { shard: shard.0, revision: revision.0, keys };
        self.workload.recorder().note(|history| history.changes.push(changes));
    }
}

/// Returns the elements of a list.
pub(super) fn elements(value: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(value);
    text.split_terminator(',').map(str::to_owned).collect()
}

/// Returns what an operation writes to a list.
fn written(operation: &TransactionOperation) -> Option<ListOperation> {
    match operation {
        TransactionOperation::Append { key, bytes } => {
            let key = String::from_utf8_lossy(key).into_owned();
            Some(ListOperation::Append(key, elements(bytes).concat()))
        }
        _ => None,
    }
}

/// Returns what the operations wrote to lists and read of them. An append reads the whole list.
fn reads(
    operations: &[TransactionOperation],
    done: &Transacted,
    groups: &[ListGroup],
) -> Vec<ListOperation> {
    let mut found = Vec::new();
    for (at, operation) in operations.iter().enumerate() {
        let key = String::from_utf8_lossy(operation.first_key()).into_owned();
        if groups.iter().any(|group| group.counter == key) {
            continue;
        }
        let result = done.results.as_ref().and_then(|results| results.get(at));
        let list = match result {
            Some(OperationResult::Got(version)) => {
                let value = version.as_ref().and_then(|version| version.value.as_ref());
                Some(value.map_or_else(Vec::new, |value| elements(value)))
            }
            Some(OperationResult::Changed(version)) => {
                version.value.as_ref().map(|value| elements(value))
            }
            _ => None,
        };
        match operation {
            TransactionOperation::Get(_) => found.push(ListOperation::Read(key, list)),
            TransactionOperation::Append { .. } => {
                found.extend(written(operation));
                found.push(ListOperation::Read(key, list));
            }
            _ => {}
        }
    }
    found
}

/// Returns what is wrong if the results show a list and its counter that do not fit.
fn miscounted(
    operations: &[TransactionOperation],
    done: &Transacted,
    groups: &[ListGroup],
) -> Option<String> {
    let results = done.results.as_ref()?;
    // The last result of each key is that of the state after the transaction's own writes.
    let mut shown: BTreeMap<&[u8], Vec<u8>> = BTreeMap::new();
    for (operation, result) in operations.iter().zip(results) {
        let version = match result {
            OperationResult::Got(version) => version.as_ref(),
            OperationResult::Changed(version) => Some(version),
            _ => continue,
        };
        let value = version.and_then(|version| version.value.clone()).unwrap_or_default();
        let known = shown.entry(operation.first_key()).or_default();
        // A get before the append shows the list as it was.
        if value.len() >= known.len() {
            *known = value.to_vec();
        }
    }
    for group in groups {
        let list = shown.get(group.lists[0].as_bytes());
        let (Some(list), Some(count)) = (list, shown.get(group.counter.as_bytes())) else {
            continue;
        };
        let length = elements(list).len();
        let count: usize = String::from_utf8_lossy(count).parse().unwrap_or_default();
        if length != count {
            let key = &group.lists[0];
            return Some(format!("{key} has {length} elements, and its counter is {count}"));
        }
    }
    None
}

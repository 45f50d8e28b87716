//! Transactions: bankers move money between accounts, and write each transfer in a ledger.
//!
//! A transfer is one transaction: it takes from one account, gives to another, and appends its name
//! to a ledger, a list. A look at all accounts at once must find that they sum to nothing.
//! The ledgers are what the checker of transactions judges. A new one begins every so often, so
//! that none becomes long.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dkv_api::{
    Client, Error, KeyspaceId, OperationResult, Transacted, Transaction, TransactionOperation,
};
use dkv_check::{Fate, ListOperation, RevisionChanges};

use super::{Worker, recorded};

const ACCOUNTS: usize = 6;
/// Entries of a ledger, about.
const ENTRIES: u64 = 48;
/// Greatest sum of a transfer.
const SUM_MAX: u64 = 100;

/// The keys of the bank. All are in one shard.
pub(super) struct Bank {
    accounts: Vec<String>,
    names: Names,
}

/// Finds names of keys in one shard.
pub(super) struct Names {
    prefix: String,
    view: dkv_wire::network::NetworkView,
}

impl Names {
    pub(super) async fn find(client: &Client, prefix: &str) -> Result<Self, Error> {
        Ok(Self { prefix: prefix.to_owned(), view: client.refresh().await? })
    }

    /// Returns the names that begin so and are in the shard of another key.
    pub(super) fn beside(&self, other: &str, kind: &str) -> impl Iterator<Item = String> {
        let shard = |key: &str| {
            self.view.shard_of(KeyspaceId::DEFAULT, key.as_bytes()).map(|shard| shard.group)
        };
        let here = shard(&format!("{}{other}", self.prefix));
        let names = (0_u64..).map(move |number| format!("{}{kind}-{number}", self.prefix));
        names.filter(move |name| shard(name) == here)
    }
}

impl Bank {
    /// Opens the bank; every banker finds the same keys.
    pub(super) async fn open(client: &Client, prefix: &str) -> Result<Self, Error> {
        let names = Names::find(client, prefix).await?;
        let accounts = names.beside("bank", "account").take(ACCOUNTS).collect();
        Ok(Self { accounts, names })
    }

    /// Returns the ledger of that number.
    fn ledger(&self, number: u64) -> String {
        self.names.beside("bank", &format!("ledger-{number}")).next().unwrap_or_default()
    }
}

impl Worker {
    /// Moves money and audits the bank until the clients stop.
    pub(super) async fn transfer(mut self) {
        let Some(bank) = self.bank().await else { return };
        let mut serial = 0;
        while self.state.is_running() {
            serial += 1;
            let entries = self.state.entries.load(Ordering::Relaxed);
            let ledger = bank.ledger(entries / ENTRIES);
            match self.random.below(3) {
                0 => _ = self.audit(&bank, &ledger).await,
                _ => self.transfer_once(&bank, &ledger, serial).await,
            }
            tokio::time::sleep(self.state.plan.pause).await;
        }
    }

    async fn bank(&self) -> Option<Bank> {
        while self.state.is_running() {
            match Bank::open(&self.client, &self.state.plan.prefix).await {
                Ok(bank) => return Some(bank),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        None
    }

    async fn transfer_once(&mut self, bank: &Bank, ledger: &str, serial: u64) {
        let count = bank.accounts.len() as u64;
        let from = self.random.below(count);
        let to = (from + 1 + self.random.below(count - 1)) % count;
        let sum = 1 + self.random.below(SUM_MAX) as i64;
        self.state.entries.fetch_add(1, Ordering::Relaxed);
        let entry = format!("{}.{serial},", self.number);
        let operations = vec![
            TransactionOperation::increment(&bank.accounts[from as usize], -sum),
            TransactionOperation::increment(&bank.accounts[to as usize], sum),
            TransactionOperation::append(ledger, entry),
        ];
        self.execute(operations).await;
    }

    /// Looks at all accounts and a ledger at one moment. Returns whether there was an answer.
    async fn audit(&mut self, bank: &Bank, ledger: &str) -> bool {
        let accounts = bank.accounts.iter().map(TransactionOperation::get);
        let operations = accounts.chain([TransactionOperation::get(ledger)]).collect();
        let Some(done) = self.execute(operations).await else { return false };
        let balances = done.results.iter().flatten().take(bank.accounts.len());
        let sum: i64 = balances.map(balance).sum();
        if sum != 0 {
            let (client, revision) = (self.number, done.receipt.revision);
            self.state.note_problem(format!(
                "client {client} found accounts that sum to {sum}, not 0, at revision {revision}"
            ));
        }
        true
    }

    /// Audits the bank with every ledger until each audit has succeeded or it is too late.
    pub(super) async fn audit_all(&mut self, deadline: Instant) {
        if self.state.entries.load(Ordering::Relaxed) == 0 {
            return;
        }
        let Ok(bank) = Bank::open(&self.client, &self.state.plan.prefix).await else { return };
        for number in 0..=self.state.entries.load(Ordering::Relaxed) / ENTRIES {
            let ledger = bank.ledger(number);
            while !self.audit(&bank, &ledger).await && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    async fn execute(&mut self, operations: Vec<TransactionOperation>) -> Option<Transacted> {
        let mut transaction = Transaction::new().timeout(self.state.plan.timeout);
        for operation in &operations {
            transaction = transaction.then(operation.clone());
        }
        let start_ns = self.state.now_ns();
        let done = self.client.transact(transaction).await;
        let (result, revisions) = match &done {
            Ok(done) if done.changed => {
                (Fate::Ok, vec![(done.receipt.shard.0, done.receipt.revision.0)])
            }
            Ok(_) => (Fate::Ok, Vec::new()),
            Err(error) if error.may_have_had_effect() => (Fate::Unknown, Vec::new()),
            Err(_) => (Fate::Failed, Vec::new()),
        };
        let results = done.as_ref().ok().and_then(|done| done.results.as_ref());
        let mut ops = Vec::new();
        let mut changed = BTreeMap::new();
        for (at, operation) in operations.iter().enumerate() {
            let key = String::from_utf8_lossy(operation.first_key()).into_owned();
            let value = match results.and_then(|results| results.get(at)) {
                Some(OperationResult::Got(version)) => {
                    Some(version.as_ref().and_then(|version| version.value.clone()))
                }
                Some(OperationResult::Changed(version)) => {
                    let value = version.value.clone().unwrap_or_default();
                    changed.insert(key.clone(), Some(recorded(&value).to_string()));
                    Some(Some(value))
                }
                _ => None,
            };
            let list = value.map(|value| entries(&value.unwrap_or_default()));
            match operation {
                TransactionOperation::Append { bytes, .. } => {
                    ops.push(ListOperation::Append(key.clone(), entries(bytes).concat()));
                    ops.push(ListOperation::Read(key, list));
                }
                TransactionOperation::Get(_) if is_ledger(&key, &self.state.plan.prefix) => {
                    ops.push(ListOperation::Read(key, list));
                }
                _ => {}
            }
        }
        if let ([(shard, revision)], Some(_)) = (&revisions[..], results) {
            let (shard, revision, keys) = (*shard, *revision, changed);
            let changes = RevisionChanges { shard, revision, keys };
            self.state.recorder.note(|history| history.changes.push(changes));
        }
        let end_ns = Some(self.state.now_ns()).filter(|_| result != Fate::Unknown);
        let client = self.number;
        let transaction = dkv_check::Transaction {
            client,
            start_ns,
            end_ns,
            result,
            ops,
            revisions,
            snapshot: false,
        };
        self.state.recorder.add_transaction(transaction);
        done.ok()
    }
}

fn is_ledger(key: &str, prefix: &str) -> bool {
    key.strip_prefix(prefix).is_some_and(|key| key.starts_with("ledger-"))
}

/// Returns the entries of a ledger, each of which ends with a comma.
fn entries(value: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(value);
    text.split_terminator(',').map(str::to_owned).collect()
}

/// Returns the balance of an account; one that was never used has none.
fn balance(read: &OperationResult) -> i64 {
    let OperationResult::Got(Some(version)) = read else { return 0 };
    let text = version.value.as_ref().map(|value| String::from_utf8_lossy(value));
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

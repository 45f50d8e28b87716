//! What each subcommand needs.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::CommandFactory;
use dkv_api::{Revision, Role};

use super::{
    BackupAction, BackupArgs, Cli, Connect, ExportArgs, ExportFormat, ImportAction, ImportArgs,
    KeyspaceArgs, LeaseAction, LeaseArgs, Output, PolicyArgs, PutArgs, Subcommand, TokenAction,
    TokenArgs,
};
use crate::grammar::{self, Command, GrammarError, History, Scan};
use crate::input::is_stdin;

/// Subcommands that run processes or only print something, and so are not commands on a network.
const WITHOUT_NETWORK: &[&str] = &[
    "local",
    "lock",
    "drill",
    "rehearse",
    "recover",
    "server",
    "node",
    "gateway",
    "completions",
    "manual",
    "help",
];

/// Returns whether a word is a subcommand that acts on a network.
pub(crate) fn is_network_word(name: &str) -> bool {
    !WITHOUT_NETWORK.contains(&name) && Cli::command().find_subcommand(name).is_some()
}

impl Subcommand {
    /// Returns the command of the grammar that this is, if it is one.
    ///
    /// # Errors
    /// A mistake in its operands.
    pub(crate) fn command(&self) -> Result<Option<Command>, GrammarError> {
        let words = |word: &str, operands: &[&OsString], how: &[OsString]| {
            let operands = operands.iter().copied().chain(how);
            let operands = operands.map(|operand| operand.as_bytes().to_vec());
            let words: Vec<Vec<u8>> =
                [word.as_bytes().to_vec()].into_iter().chain(operands).collect();
            grammar::command(&words).map(Some).map_err(|error| error.within(&words.join(&b' ')))
        };
        let put = |word: &str, PutArgs { key, value, how, ttl, lease, .. }: &PutArgs| {
            let mut how = how.clone();
            for (name, given) in [("--ttl", ttl), ("--lease", lease)] {
                how.extend(given.iter().flat_map(|given| [name.into(), given.clone()]));
            }
            words(word, &[key, value], &how)
        };
        match self {
            Self::Get { key, how, revision, .. } => {
                let mut how = how.clone();
                if let Some(revision) = revision {
                    how.extend(["--revision".into(), revision.to_string().into()]);
                }
                words("get", &[key], &how)
            }
            Self::Put(args) => put("put", args),
            Self::Insert(args) => put("insert", args),
            Self::Update(args) => put("update", args),
            Self::Delete { key, how, .. } => words("delete", &[key], how),
            Self::Search { key, .. } => words("search", &[key], &[]),
            Self::ShowAll { node, .. } => words("show-all", &[node], &[]),
            Self::Wait { ms, .. } => words("wait", &[ms], &[]),
            Self::Nodes { .. } => Ok(Some(Command::Nodes)),
            Self::Status { json, .. } => Ok(Some(Command::Status { json: *json })),
            Self::History { key, limit, before, json, .. } => {
                let Some(Command::History(history)) = words("history", &[key], &[])? else {
                    return Ok(None);
                };
                let (before, limit, json) = (before.map(Revision), *limit, *json);
                Ok(Some(Command::History(History { before, limit, json, ..history })))
            }
            Self::Watch { keys, key, from, previous, json, .. } => {
                let mut how: Vec<OsString> = Vec::new();
                how.extend(key.then(|| "--key".into()));
                if let Some(from) = from {
                    how.extend(["--from".into(), from.into()]);
                }
                how.extend(previous.then(|| "--previous".into()));
                how.extend(json.then(|| "--json".into()));
                let dashes = OsString::from("--");
                match keys {
                    Some(keys) => words("watch", &[&dashes, keys], &how),
                    None => words("watch", &[], &how),
                }
            }
            Self::Export(ExportArgs { prefix, .. }) => {
                let prefix = prefix.clone().unwrap_or_default().into_vec();
                let scan = Scan { prefix, snapshot: true, ..Scan::default() };
                Ok(Some(Command::Scan(scan)))
            }
            Self::Scan { prefix, after, limit, keys, revision, snapshot, .. } => {
                let bytes = |text: &Option<OsString>| text.clone().unwrap_or_default().into_vec();
                let (prefix, after) = (bytes(prefix), bytes(after));
                let (limit, keys_only, revision) = (*limit, *keys, revision.map(Revision));
                let snapshot = *snapshot;
                let scan = Scan { prefix, after, limit, keys_only, revision, snapshot };
                Ok(Some(Command::Scan(scan)))
            }
            _ => Ok(None),
        }
    }

    /// Removes and returns the commands that follow in the same line.
    pub(crate) fn then(&mut self) -> Vec<OsString> {
        match self {
            Self::Nodes { then, .. } | Self::Status { then, .. } => std::mem::take(then),
            _ => Vec::new(),
        }
    }

    /// Returns its connection options; `None` if it has none.
    pub(crate) fn connect(&self) -> Option<Connect> {
        match self {
            Self::Get { connect, .. }
            | Self::Delete { connect, .. }
            | Self::Search { connect, .. }
            | Self::ShowAll { connect, .. }
            | Self::Wait { connect, .. }
            | Self::Nodes { connect, .. }
            | Self::Status { connect, .. }
            | Self::Scan { connect, .. }
            | Self::History { connect, .. }
            | Self::Watch { connect, .. }
            | Self::Increment { connect, .. }
            | Self::Append { connect, .. }
            | Self::Txn { connect, .. }
            | Self::Ttl { connect, .. }
            | Self::Compact { connect, .. }
            | Self::Drain { connect, .. }
            | Self::Rebalance { connect, .. }
            | Self::Remove { connect, .. }
            | Self::Keep { connect, .. }
            | Self::Whoami { connect }
            | Self::Holders { connect, .. }
            | Self::Revoke { connect, .. } => Some(connect.clone()),
            Self::Put(args) | Self::Insert(args) | Self::Update(args) => Some(args.connect.clone()),
            Self::Load(args) => Some(args.transfer.connect.clone()),
            Self::Verify(args) => Some(args.connect.clone()),
            Self::Token(TokenArgs { connect, action }) => {
                let inner = match action {
                    TokenAction::Create { connect, .. }
                    | TokenAction::List { connect }
                    | TokenAction::Revoke { connect, .. } => connect,
                };
                Some(inner.clone().or(connect.clone()))
            }
            Self::Keyspace(KeyspaceArgs { connect, action }) => {
                Some(action.connect().clone().or(connect.clone()))
            }
            Self::Policy(PolicyArgs { connect, action }) => {
                Some(action.connect().clone().or(connect.clone()))
            }
            Self::Can(args) => Some(args.connect.clone()),
            Self::Lease(LeaseArgs { connect, action }) => {
                Some(action.connect().clone().or(connect.clone()))
            }
            Self::Lock(args) => Some(args.connect.clone()),
            Self::Explain(args) => Some(args.connect.clone()),
            Self::Doctor(args) => Some(args.connect.clone()),
            Self::Debug(args) => Some(args.action.connect().clone().or(args.connect.clone())),
            Self::Log(args) => Some(args.connect.clone()),
            Self::Export(args) => {
                let mut connect = args.connect.clone();
                // Records of the format that was named, whatever the results of other commands are.
                let json = args.format == ExportFormat::Json;
                connect.output = Some(if json { Output::Json } else { Output::Text });
                Some(connect)
            }
            Self::Import(args) => Some(match args.of_etcd() {
                Some(etcd) => etcd.connect.clone().or(args.connect.clone()),
                None => args.connect.clone(),
            }),
            Self::Backup(BackupArgs { connect, action }) => {
                Some(action.connect().clone().or(connect.clone()))
            }
            Self::Restore(args) => Some(args.connect.clone()),
            Self::Local(args) => Some(args.connect.clone()),
            Self::Drill(args) => Some(args.connect.clone()),
            Self::Rehearse(args) => Some(args.connect.clone()),
            Self::Gateway(args) => Some(args.connect.clone()),
            Self::Server(_)
            | Self::Node(_)
            | Self::Recover(_)
            | Self::Completions { .. }
            | Self::Manual { .. }
            | Self::Help { .. } => None,
        }
    }

    /// Returns the role that it needs in the network.
    pub(crate) fn role(&self) -> Role {
        match self {
            // A dry run changes nothing.
            Self::Rebalance { dry_run: true, .. } => Role::Client,
            Self::Keyspace(args) if !args.action.writes() => Role::Client,
            Self::Token(_)
            | Self::Policy(_)
            | Self::Can(_)
            | Self::Keyspace(_)
            | Self::Restore(_)
            | Self::Drain { .. }
            | Self::Rebalance { .. }
            | Self::Remove { .. }
            | Self::Compact { .. }
            | Self::Keep { .. }
            | Self::Holders { .. }
            | Self::Log(_)
            | Self::Revoke { .. } => Role::Admin,
            _ => Role::Client,
        }
    }

    /// Returns whether it may have changed something when it is interrupted.
    pub(crate) fn writes(&self) -> bool {
        match self {
            Self::Load(_)
            | Self::Import(_)
            | Self::Increment { .. }
            | Self::Append { .. }
            | Self::Txn { .. }
            | Self::Put(_)
            | Self::Insert(_)
            | Self::Update(_)
            | Self::Lock(_)
            | Self::Delete { .. } => true,
            Self::Lease(args) => args.action.writes(),
            Self::Token(args) => !matches!(args.action, TokenAction::List { .. }),
            Self::Policy(args) => args.action.writes(),
            Self::Holders { .. } | Self::Can(_) => false,
            Self::Log(args) => args.filter.is_some(),
            other => other.role() == Role::Admin,
        }
    }

    /// Returns whether it is about keys, and so about those of one keyspace.
    pub(crate) fn is_on_keys(&self) -> bool {
        // Each variant is named, so that none reads another keyspace by oversight.
        match self {
            Self::Get { .. }
            | Self::Put(_)
            | Self::Insert(_)
            | Self::Update(_)
            | Self::Delete { .. }
            | Self::Increment { .. }
            | Self::Append { .. }
            | Self::Txn { .. }
            | Self::Ttl { .. }
            | Self::Lease(_)
            | Self::Lock(_)
            | Self::Search { .. }
            | Self::Explain(_)
            | Self::ShowAll { .. }
            | Self::Scan { .. }
            | Self::History { .. }
            | Self::Watch { .. }
            | Self::Compact { .. }
            | Self::Load(_)
            | Self::Export(_)
            // Their rules are about keys of a keyspace.
            | Self::Policy(_)
            | Self::Can(_)
            | Self::Verify(_) => true,
            // etcd's keys have a keyspace of their own.
            Self::Import(args) => args.of_etcd().is_none(),
            Self::Wait { .. }
            | Self::Nodes { .. }
            | Self::Status { .. }
            | Self::Doctor(_)
            | Self::Debug(_)
            | Self::Log(_)
            | Self::Keyspace(_)
            // They name the keyspace of a backup, or of all.
            | Self::Backup(_)
            | Self::Restore(_)
            | Self::Token(_)
            | Self::Whoami { .. }
            | Self::Drain { .. }
            | Self::Rebalance { .. }
            | Self::Remove { .. }
            | Self::Holders { .. }
            | Self::Keep { .. }
            | Self::Revoke { .. }
            | Self::Local(_)
            | Self::Drill(_)
            | Self::Rehearse(_)
            | Self::Recover(_)
            | Self::Server(_)
            | Self::Node(_)
            | Self::Gateway(_)
            | Self::Completions { .. }
            | Self::Manual { .. }
            | Self::Help { .. } => false,
        }
    }

    /// Returns whether it is about the keyspaces that `--keyspace` names, and about all without.
    pub(crate) fn takes_keyspace(&self) -> bool {
        match self {
            Self::Backup(_) | Self::Restore(_) => true,
            Self::Import(args) => args.of_etcd().is_some(),
            _ => false,
        }
    }

    /// Names the keyspace, unless it names one itself.
    pub(crate) fn set_keyspace(&mut self, name: Option<String>) {
        match self {
            Self::Backup(args) => {
                let own = args.action.connect().keyspace.clone();
                args.connect.keyspace = own.or(args.connect.keyspace.take()).or(name);
            }
            Self::Restore(args) => args.connect.keyspace = args.connect.keyspace.take().or(name),
            Self::Import(ImportArgs { action: Some(ImportAction::Etcd(args)), .. }) => {
                args.connect.keyspace = args.connect.keyspace.take().or(name);
            }
            _ => {}
        }
    }

    /// Returns whether it handles Ctrl-C itself.
    pub(crate) fn ends_at_interrupt(&self) -> bool {
        match self {
            Self::Lease(args) => matches!(args.action, LeaseAction::Keep { .. }),
            Self::Backup(args) => matches!(args.action, BackupAction::Follow { .. }),
            Self::Import(args) => args.of_etcd().is_some(),
            _ => false,
        }
    }

    /// Returns whether it prints a text that cannot be shown again.
    pub(crate) fn creates_token(&self) -> bool {
        matches!(self, Self::Token(TokenArgs { action: TokenAction::Create { .. }, .. }))
    }

    /// Returns whether it writes a bundle to standard output.
    pub(crate) fn is_bundle_for_output(&self) -> bool {
        let Self::Debug(args) = self else { return false };
        let super::DebugAction::Bundle { file, .. } = &args.action;
        file.as_deref() == Some(std::path::Path::new("-"))
    }

    /// Returns whether it reads standard input.
    pub(crate) fn reads_stdin(&self) -> bool {
        match self {
            Self::Load(args) => is_stdin(&args.transfer.file),
            Self::Verify(args) => is_stdin(&args.file),
            Self::Import(args) => args.file.as_deref().is_some_and(is_stdin),
            Self::Txn { file, .. } => is_stdin(file),
            _ => false,
        }
    }
}

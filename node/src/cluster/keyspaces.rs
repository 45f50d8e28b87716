//! The coordinator's part in keyspaces: where new shards begin, and the use of each keyspace.

use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::KeyspaceId;
use dkv_wire::message::{KeyspaceUse, Refusal};
use dkv_wire::network::KeyspaceSettings;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use crate::node::Node;
use dkv_state::placement::first_voters;
use dkv_state::{DirectoryCommand, DirectoryResult};

/// Interval at which the coordinator looks whether new shards have primaries.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A keyspace that an administrator asks for.
pub(crate) struct NewKeyspace {
    /// The request, by which its repetitions are recognised.
    pub(crate) creation: Uuid,
    pub(crate) name: String,
    pub(crate) settings: KeyspaceSettings,
}

/// Creates a keyspace and waits until its shards have primaries.
///
/// # Errors
/// [`Refusal::Invalid`] if it cannot be created; [`Refusal::Unknown`] if it may have been, or was
/// and does not serve yet.
pub(crate) async fn create(
    node: &Arc<Node>,
    new: NewKeyspace,
    until: Instant,
) -> Result<(), Refusal> {
    let NewKeyspace { creation, name, settings } = new;
    let not_coordinator = || Refusal::NotPrimary { primary: node.control().leader() };
    let since = node.coordination().leader_since().ok_or_else(not_coordinator)?;
    // Before anything depends on it: the number of shards decides how much is planned.
    settings.check().map_err(|error| Refusal::Invalid(error.to_string()))?;
    let measured = node.measured(since);
    let voters = node.replicas().with_directory(|directory| {
        let exists = directory.created_by(creation).is_some();
        (!exists).then(|| first_voters(directory, &measured, &settings))
    });
    match voters.ok_or_else(not_coordinator)? {
        None => {}
        Some(Err(no_place)) => return Err(Refusal::Unavailable(no_place.to_string())),
        Some(Ok(voters)) => {
            let name = name.clone();
            let command = DirectoryCommand::CreateKeyspace { creation, name, settings, voters };
            let changed = timeout_at(until, node.change_directory(command)).await;
            match changed {
                Ok(Ok(DirectoryResult::Done)) => {}
                Ok(Ok(DirectoryResult::Rejected(why))) => return Err(Refusal::Invalid(why)),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => {
                    return Err(Refusal::Unknown("no answer from a quorum in time".into()));
                }
            }
        }
    }
    wait_for_primaries(node, creation, &name, until).await
}

/// Returns the id of a keyspace that was created, from what the directory says of its creation:
/// `None` if this node has no directory any more.
fn created(found: Option<Option<KeyspaceId>>, name: &str) -> Result<KeyspaceId, Refusal> {
    match found {
        Some(Some(id)) => Ok(id),
        Some(None) => {
            Err(Refusal::Invalid(format!("the keyspace {name} was dropped by somebody else")))
        }
        None => Err(Refusal::Unknown(format!(
            "the keyspace {name} was created, and this node no longer knows what has become of it"
        ))),
    }
}

async fn wait_for_primaries(
    node: &Node,
    creation: Uuid,
    name: &str,
    until: Instant,
) -> Result<(), Refusal> {
    loop {
        let found = node.replicas().with_directory(|directory| directory.created_by(creation));
        let id = created(found, name)?;
        let used = use_of(node).into_iter().find(|used| used.keyspace.id == id);
        let Some(used) = used else { continue };
        let shards = used.keyspace.settings.shards;
        if used.shards_led >= shards {
            return Ok(());
        }
        if Instant::now() >= until {
            let missing = shards - used.shards_led;
            return Err(Refusal::Unknown(format!(
                "the keyspace {name} was created, but {missing} of its {shards} shards have no \
                 primary yet; it serves once most of the first replicas of each are running"
            )));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Lists the keyspaces and their use, as the coordinator knows it.
///
/// # Errors
/// If this node is not the coordinator, or cannot confirm that it is.
pub(crate) async fn list(node: &Node, until: Instant) -> Result<Vec<KeyspaceUse>, Refusal> {
    let confirmed = timeout_at(until, node.control().confirm_leadership()).await;
    confirmed.map_err(|_| Refusal::Unavailable("no quorum answers in time".into()))??;
    Ok(use_of(node))
}

fn use_of(node: &Node) -> Vec<KeyspaceUse> {
    let led = node.heard(|heard, now| heard.led(now));
    let used = node.replicas().with_directory(|directory| {
        let of = |id: KeyspaceId| {
            let shards = directory.shards_of(id).filter_map(|shard| led.get(&shard));
            shards.fold((0, 0_u64), |(count, bytes), (_, led)| {
                (count + 1, bytes.saturating_add(led.bytes))
            })
        };
        let used = directory.keyspaces().map(|keyspace| {
            let (shards_led, bytes) = of(keyspace.id);
            KeyspaceUse { keyspace, shards_led, bytes }
        });
        used.collect()
    });
    used.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_the_directory_does_not_say_that_a_keyspace_was_dropped() {
        assert_eq!(created(Some(Some(KeyspaceId(7))), "k"), Ok(KeyspaceId(7)));
        assert!(matches!(created(Some(None), "k"), Err(Refusal::Invalid(_))));
        assert!(matches!(created(None, "k"), Err(Refusal::Unknown(_))));
    }
}

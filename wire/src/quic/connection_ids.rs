//! Connection ids on simulated machines, where they come from the machine's random numbers.
//!
//! The content of a packet does not influence a run, with one exception. A packet of a handshake
//! may reach a process that was restarted meanwhile. The new process reads it with keys that derive
//! from the connection id in it, and what it makes of the garbage decides whether it answers. The
//! keys with which the packet was written derive from a connection id too, so both must repeat.

use std::time::Duration;

use dkv_base::platform;
use quinn::{ConnectionId, ConnectionIdGenerator};
use quinn_proto::InvalidCid;

/// Length of a connection id of ours, as on a real machine.
const BYTES: usize = 8;
/// Length of the part that tells ids of ours from others.
const CHECK_BYTES: usize = 4;
/// Length of the id that a client chooses for a server whose ids it does not know.
const FIRST_BYTES: usize = 20;

/// Generates the connection ids of a simulated endpoint. An endpoint recognizes the ids of all
/// generators with the same key, as one that was restarted at the same address must.
#[derive(Clone, Copy, Debug)]
pub(super) struct SimulatedIds {
    /// The key.
    pub(super) key: u32,
}

impl SimulatedIds {
    fn check(self, number: [u8; BYTES - CHECK_BYTES]) -> [u8; CHECK_BYTES] {
        (u32::from_le_bytes(number) ^ self.key).wrapping_mul(0x9e37_79b1).to_le_bytes()
    }
}

impl ConnectionIdGenerator for SimulatedIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let number = (platform::random_u64() as u32).to_le_bytes();
        ConnectionId::new(&[number, self.check(number)].concat())
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let (number, check) = id.split_first_chunk().ok_or(InvalidCid)?;
        if *check == self.check(*number) { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The id that a client on a simulated machine chooses for a server whose ids it does not know.
pub(super) fn first_id() -> ConnectionId {
    let mut id = [0; FIRST_BYTES];
    for part in id.chunks_mut(8) {
        part.copy_from_slice(&platform::random_u64().to_le_bytes()[..part.len()]);
    }
    ConnectionId::new(&id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_recognizes_the_ids_of_its_key() {
        let (mut one, other) = (SimulatedIds { key: 1 }, SimulatedIds { key: 2 });
        let id = one.generate_cid();
        assert_eq!(id.len(), one.cid_len());
        assert!(SimulatedIds { key: 1 }.validate(&id).is_ok());
        assert!(other.validate(&id).is_err());
        assert!(one.validate(&first_id()).is_err());
    }
}

//! Random histories of requests, with a crash at any point: one bootstrap, terms that never go
//! back, a deny list that never shrinks, no token used too often.

use std::collections::BTreeSet;
use std::path::Path;

use dkv_base::id::{HolderId, NetworkId, NodeId, Term};
use dkv_wire::message::{Confirmation, ControlGroup, CoordinatorReport};
use dkv_wire::network::{NetworkView, NodeInfo, NodeState, Settings};
use dkv_wire::token::SecretHash;
use proptest::prelude::*;
use uuid::Uuid;

use crate::registry::Registry;
use crate::registry_file;

const NODES: u8 = 4;
const USES: u32 = 3;

#[derive(Clone, Debug)]
enum Step {
    Register {
        node: u8,
        name: Option<u8>,
    },
    Report {
        node: u8,
        term: u64,
        members: u8,
        denied: u8,
    },
    Join,
    /// The write of this change fails: it must not have happened.
    Unwritten(Box<Step>),
    /// A node registers, and the server is killed after the write and before the answer.
    Unanswered {
        node: u8,
    },
    Restart,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let plain = prop_oneof![
        4 => (0..NODES, prop::option::of(0..3_u8))
            .prop_map(|(node, name)| Step::Register { node, name }),
        4 => (0..NODES, 1..6_u64, 0..16_u8, prop_oneof![3 => Just(0), 1 => 0..16_u8])
            .prop_map(|(node, term, members, denied)| Step::Report { node, term, members, denied }),
        1 => Just(Step::Join),
    ];
    prop_oneof![
        6 => plain.clone(),
        1 => plain.prop_map(|step| Step::Unwritten(Box::new(step))),
        1 => (0..NODES).prop_map(|node| Step::Unanswered { node }),
        1 => Just(Step::Restart),
        1 => (0..20_000_u64).prop_map(Step::Wait),
    ]
}

fn node(number: u8) -> NodeId {
    NodeId(Uuid::from_u128(u128::from(number) + 1))
}

fn chosen(bits: u8) -> impl Iterator<Item = u8> {
    (0..NODES).filter(move |number| bits & (1 << number) != 0)
}

fn report(network: NetworkId, sender: u8, term: u64, members: u8, denied: u8) -> CoordinatorReport {
    let info = |number: u8| NodeInfo {
        id: node(number),
        name: format!("n{}", number + 1),
        address: ([127, 0, 0, 1], 4400 + u16::from(number)).into(),
        region: None,
        state: if number.is_multiple_of(2) { NodeState::Live } else { NodeState::Down },
    };
    let view = NetworkView {
        network,
        term: Term(term),
        coordinator: Some(node(sender)),
        nodes: chosen(members).map(info).collect(),
        revision: Default::default(),
        keyspaces: Vec::new(),
        shards: Vec::new(),
        settings: Settings::default(),
        denied: chosen(denied).map(|number| node(number).into()).collect(),
        servers: Vec::new(),
    };
    // Any node may lead next.
    let voters = (0..NODES).map(node).collect();
    let control = ControlGroup { term: Term(term), leader: Some(node(sender)), index: 1, voters };
    CoordinatorReport { term: Term(term), view, control }
}

/// What the peers have been told so far.
#[derive(Clone, Default)]
struct Told {
    bootstrap: Option<NodeId>,
    confirmed: Option<(Term, NodeId)>,
    denied: BTreeSet<HolderId>,
    joined: u32,
}

struct World {
    /// The registry in memory.
    registry: Registry,
    /// The registry on disk.
    saved: Vec<u8>,
    told: Told,
    now_ms: u64,
}

impl World {
    fn new() -> Self {
        let mut registry = Registry::new(NetworkId(Uuid::nil()), Settings::default(), 0);
        let hash = SecretHash::of(&[7; 32]);
        let role = dkv_wire::identity::Role::Node;
        registry
            .handle_create_token(Uuid::nil(), hash, role, None, Some(USES), None, None, 0)
            .0
            .unwrap();
        let saved = registry_file::encode(&registry).unwrap();
        Self { registry, saved, told: Told::default(), now_ms: 0 }
    }

    fn run(&mut self, step: &Step, writable: bool) -> Result<(), TestCaseError> {
        let (mut next, mut told) = (self.registry.clone(), self.told.clone());
        let effects = match step {
            Step::Register { node: number, name } => {
                let id = node(*number);
                let name = name.map(|name| format!("n{}", name + 1));
                let address = ([127, 0, 0, 1], 4500 + u16::from(*number)).into();
                let (answer, effects) =
                    next.handle_register(id, name.as_deref(), address, None, self.now_ms);
                if let Ok(admission) = answer {
                    prop_assert!(!told.denied.contains(&id.into()), "a removed node registered");
                    if admission.bootstrap {
                        prop_assert!(told.confirmed.is_none(), "bootstrap of an existing network");
                        prop_assert_eq!(*told.bootstrap.get_or_insert(id), id, "two bootstraps");
                    }
                }
                effects
            }
            Step::Report { node: number, term, members, denied } => {
                let (id, term) = (node(*number), Term(*term));
                let report = report(next.network(), *number, term.0, *members, *denied);
                let is_trusted = next.trusted_reporters().contains(&id);
                let (answer, effects) = next.handle_report(id, &report, self.now_ms);
                match answer {
                    Ok(Confirmation::Confirmed) => {
                        prop_assert!(is_trusted, "a report of a node that does not vote");
                        if let Some((before, by)) = told.confirmed {
                            prop_assert!(before <= term, "back from {before} to {term}");
                            prop_assert!(before < term || by == id, "two coordinators in {term}");
                        }
                        prop_assert!(!told.denied.contains(&id.into()), "a removed node leads");
                        told.confirmed = Some((term, id));
                        told.denied.extend(&report.view.denied);
                        prop_assert_eq!(next.view(), Some(&report.view));
                    }
                    Ok(Confirmation::Outdated { confirmed }) => {
                        prop_assert_eq!(Some(confirmed), told.confirmed.map(|(term, _)| term));
                    }
                    Err(_) => prop_assert!(told.denied.contains(&id.into()) || !is_trusted),
                }
                effects
            }
            Step::Join => {
                let holder = HolderId(Uuid::from_u128(99));
                let (answer, effects) =
                    next.handle_join(Uuid::nil(), &[7; 32], holder, self.now_ms);
                told.joined += u32::from(answer.is_ok());
                prop_assert!(told.joined <= USES, "a token was used too often");
                effects
            }
            Step::Unwritten(step) => return self.run(step, false),
            Step::Unanswered { node: number } => {
                let address = ([127, 0, 0, 1], 4500 + u16::from(*number)).into();
                let (_, effects) =
                    next.handle_register(node(*number), None, address, None, self.now_ms);
                if effects.save {
                    self.saved = registry_file::encode(&next).unwrap();
                }
                return self.run(&Step::Restart, true);
            }
            Step::Restart => {
                self.registry =
                    registry_file::decode(Path::new("books.json"), &self.saved).unwrap();
                self.registry.resume(Settings::default(), self.now_ms);
                return Ok(());
            }
            Step::Wait(ms) => {
                self.now_ms += ms;
                return Ok(());
            }
        };
        if effects.save && !writable {
            return Ok(());
        }
        if effects.save {
            self.saved = registry_file::encode(&next).unwrap();
        }
        (self.registry, self.told) = (next, told);
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let denied: BTreeSet<HolderId> = self.registry.denied().collect();
        prop_assert_eq!(&denied, &self.told.denied);
        let status = self.registry.status("", 0, self.now_ms);
        prop_assert!(status.nodes.iter().all(|node| !denied.contains(&node.id.into())));
        prop_assert_eq!(status.coordinator.map(|(id, term)| (term, id)), self.told.confirmed);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_answer_is_ever_revoked(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step, true)?;
            world.check()?;
        }
    }
}

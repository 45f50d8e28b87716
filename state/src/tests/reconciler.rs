//! From any membership to any other: the reconciler gets there, and never violates its invariants.

use std::collections::{BTreeMap, BTreeSet};

use dkv_base::id::NodeId;
use proptest::prelude::*;

use super::super::reconciler::{Desired, Membership, Progress, Step, next_step};
use super::node;
use super::scripts::execute;

const NODES: [char; 7] = ['a', 'b', 'c', 'd', 'e', 'f', 'g'];

fn some_of(indices: &[usize]) -> BTreeSet<NodeId> {
    indices.iter().map(|index| node(NODES[*index])).collect()
}

#[derive(Clone, Debug)]
struct Case {
    desired: Desired,
    actual: Membership,
    /// The liveness and progress of each node in each round, before all nodes are well.
    weather: Vec<Vec<(bool, bool)>>,
    /// The rounds in which a change of voters is interrupted half-way by the death of its leader.
    cuts: Vec<bool>,
}

fn case() -> impl Strategy<Value = Case> {
    let voters = || prop::sample::subsequence((0..7).collect::<Vec<_>>(), 1..=5);
    let learners = || prop::sample::subsequence((0..7).collect::<Vec<_>>(), 0..=7);
    let weather = proptest::collection::vec(
        proptest::collection::vec(any::<(bool, bool)>(), NODES.len()),
        0..40,
    );
    let cuts = proptest::collection::vec(any::<bool>(), 0..40);
    (voters(), learners(), voters(), learners(), weather, cuts).prop_map(
        |(wanted, following, voting, learning, weather, cuts)| {
            let desired_voters = some_of(&wanted);
            let actual_voters = some_of(&voting);
            let desired_learners = &some_of(&following) - &desired_voters;
            let actual_learners = &some_of(&learning) - &actual_voters;
            Case {
                desired: Desired { voters: desired_voters, learners: desired_learners },
                actual: Membership {
                    voters: actual_voters,
                    learners: actual_learners,
                    is_joint: false,
                },
                weather,
                cuts,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn arrives_and_keeps_its_promises(case in case()) {
        let Case { desired, mut actual, weather, cuts } = case;
        let mut own = *actual.voters.first().expect("never empty");
        // In the worst case every round of bad weather is lost, and each node then takes a few
        // steps.
        for round in 0..weather.len() + 60 {
            let progress: BTreeMap<_, _> = NODES.iter().enumerate().map(|(index, letter)| {
                let (live, caught_up) = weather.get(round).map_or((true, true), |day| day[index]);
                (node(*letter), Progress { live, caught_up: live && caught_up })
            }).collect();
            let Some(step) = next_step(&desired, &actual, &progress, own) else { continue };
            let before = actual.clone();
            let transfers = matches!(step, Step::FinishJoint | Step::Transfer(_));
            prop_assert!(before.voters.contains(&own) || transfers, "who does not vote hands over");
            prop_assert!(!before.is_joint || step == Step::FinishJoint, "one change at a time");
            execute(&step, &mut actual, &mut own);
            if let Step::ChangeVoters(voters) = &step {
                let coming: Vec<_> = voters.difference(&before.voters).collect();
                let going: Vec<_> = before.voters.difference(voters).collect();
                prop_assert!(coming.len() <= 1 && going.len() <= 1, "one voter at a time");
                for node in coming {
                    prop_assert!(before.learners.contains(node) && progress[node].caught_up);
                    prop_assert!(desired.voters.contains(node));
                }
                for node in going {
                    prop_assert!(*node != own && !desired.voters.contains(node));
                }
                prop_assert!(voters.len() >= before.voters.len().min(desired.voters.len()));
                let live = voters.iter().filter(|node| **node == own || progress[node].live);
                prop_assert!(live.count() > voters.len() / 2, "the group could still commit");
                if cuts.get(round) == Some(&true) {
                    actual.is_joint = true;
                    // While the configuration is joint, a voter on its way out may still be
                    // elected.
                    let going = before.voters.difference(voters).filter(|_| round % 2 == 0);
                    let mut electable = going.chain(voters);
                    own = *electable.find(|node| progress[node].live).unwrap_or(&own);
                }
            }
            if let Step::Transfer(to) = &step {
                prop_assert!(before.voters.contains(to) && progress[to].caught_up);
            }
            if let Step::RemoveLearner(node) = &step {
                prop_assert!(!desired.voters.contains(node) && !desired.learners.contains(node));
            }
        }
        prop_assert_eq!(&actual.voters, &desired.voters);
        prop_assert_eq!(&actual.learners, &desired.learners);
        prop_assert!(!actual.is_joint);
    }
}

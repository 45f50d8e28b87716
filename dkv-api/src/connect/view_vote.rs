//! Which view to trust when the server does not answer.
//!
//! A returning client asks the nodes that it knew. One of them may have been removed from the
//! network since and still run, with a certificate that lives for days, and may answer what it
//! likes. The others expose it: their views do not name it. So each view is a vote for the nodes
//! that it names.

use dkv_base::id::NodeId;
use dkv_wire::network::NetworkView;

/// Returns whether a view names a node as one of the network.
fn names(view: &NetworkView, node: NodeId) -> bool {
    view.node(node).is_some() && !view.denied.contains(&node.into())
}

/// Returns the view of the node that most views name; among several such nodes the newest view
/// whose term does not leap ahead of the others.
///
/// # Errors
/// If no view is eligible: the reason, or `None` if no node answered.
pub(super) fn choose_view(
    views: Vec<(NodeId, NetworkView)>,
) -> Result<NetworkView, Option<String>> {
    if views.is_empty() {
        return Err(None);
    }
    let votes = |node: NodeId| views.iter().filter(|(_, view)| names(view, node)).count();
    // A node that does not name itself knows that it was removed.
    let eligible = views.iter().filter(|(node, view)| names(view, *node));
    let eligible: Vec<(usize, &NetworkView)> =
        eligible.map(|(node, view)| (votes(*node), view)).collect();
    let most = eligible.iter().map(|(votes, _)| *votes).max().unwrap_or_default();
    let elected = || eligible.iter().filter(|(votes, _)| *votes == most).map(|(_, view)| *view);
    let first = elected().map(|view| view.term).min();
    let newest = elected().filter(|view| view.term.may_follow(first)).max_by_key(|view| view.term);
    newest.cloned().ok_or_else(|| Some("none of the nodes that answer is in the network".into()))
}

#[cfg(test)]
mod tests {
    use dkv_base::id::{NetworkId, Term};
    use dkv_wire::network::{NodeInfo, NodeState, Settings};
    use uuid::Uuid;

    use super::*;

    fn node(number: u128) -> NodeId {
        NodeId(Uuid::from_u128(number))
    }

    fn view(term: u64, nodes: &[u128], denied: &[u128]) -> NetworkView {
        let info = |number: &u128| NodeInfo {
            id: node(*number),
            name: format!("n{number}"),
            address: ([127, 0, 0, 1], 4400).into(),
            region: None,
            state: NodeState::Live,
        };
        NetworkView {
            network: NetworkId(Uuid::nil()),
            term: Term(term),
            coordinator: None,
            nodes: nodes.iter().map(info).collect(),
            revision: Default::default(),
            keyspaces: Vec::new(),
            shards: Vec::new(),
            settings: Settings::default(),
            denied: denied.iter().map(|number| node(*number).into()).collect(),
            servers: Vec::new(),
        }
    }

    #[test]
    fn a_removed_node_is_outvoted_whatever_its_term() {
        for term in [1, 4, 900, u64::MAX] {
            let forged = view(term, &[9], &[1, 2, 3]);
            let views = vec![
                (node(9), forged.clone()),
                (node(1), view(3, &[1, 2, 3], &[9])),
                (node(2), view(4, &[1, 2, 3], &[9])),
            ];
            assert_eq!(choose_view(views).unwrap(), view(4, &[1, 2, 3], &[9]), "term {term}");
        }
    }

    #[test]
    fn the_newest_view_wins_unless_its_term_leaps() {
        let nodes: &[u128] = &[1, 2, 3];
        let views = |terms: &[u64]| {
            let each = terms.iter().zip(nodes);
            each.map(|(term, number)| (node(*number), view(*term, nodes, &[]))).collect()
        };
        assert_eq!(choose_view(views(&[5, 7, 6])).unwrap().term, Term(7));
        assert_eq!(choose_view(views(&[5, u64::MAX, 6])).unwrap().term, Term(6));
        assert_eq!(choose_view(views(&[5])).unwrap().term, Term(5));
    }

    #[test]
    fn a_node_that_no_view_names_has_no_vote() {
        assert!(choose_view(vec![(node(9), view(5, &[1, 2], &[]))]).unwrap_err().is_some());
        assert!(choose_view(vec![(node(9), view(5, &[1, 9], &[9]))]).unwrap_err().is_some());
        assert_eq!(choose_view(Vec::new()), Err(None));
    }
}

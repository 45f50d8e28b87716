//! Which view is believed when there is no server to say: nodes tell, and one of them may have been
//! removed.
//!
//! A client that was away asks the nodes that it knew. One of these may run on although the network
//! has removed it, with a certificate that lives for days yet, and may tell what it likes. It is
//! told from the others by them: a node of the network is named by the views of the others.

use dkv_base::id::NodeId;
use dkv_wire::network::NetworkView;

/// Whether a view names a node as one of the network.
fn names(view: &NetworkView, node: NodeId) -> bool {
    view.node(node).is_some() && !view.denied.contains(&node.into())
}

/// Of what nodes have told, the view of the one that most of them name; of several such, the newest
/// whose term does not leap from the others'.
///
/// # Errors
/// If there is none: why not, if anything was told.
pub(crate) fn choose(told: Vec<(NodeId, NetworkView)>) -> Result<NetworkView, Option<String>> {
    if told.is_empty() {
        return Err(None);
    }
    let named = |node: NodeId| told.iter().filter(|(_, view)| names(view, node)).count();
    // One that does not count itself in has heard that it was removed.
    let fit = told.iter().filter(|(node, view)| names(view, *node));
    let fit: Vec<(usize, &NetworkView)> = fit.map(|(node, view)| (named(*node), view)).collect();
    let most = fit.iter().map(|(named, _)| *named).max().unwrap_or_default();
    let fit = || fit.iter().filter(|(named, _)| *named == most).map(|(_, view)| *view);
    let first = fit().map(|view| view.term).min();
    let newest = fit().filter(|view| view.term.may_follow(first)).max_by_key(|view| view.term);
    newest.cloned().ok_or_else(|| Some("no node that answers is of the network any more".into()))
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
            shards: Vec::new(),
            settings: Settings::default(),
            denied: denied.iter().map(|number| node(*number).into()).collect(),
        }
    }

    #[test]
    fn a_removed_node_is_outvoted_whatever_its_term() {
        for term in [1, 4, 900, u64::MAX] {
            let forged = view(term, &[9], &[1, 2, 3]);
            let told = vec![
                (node(9), forged.clone()),
                (node(1), view(3, &[1, 2, 3], &[9])),
                (node(2), view(4, &[1, 2, 3], &[9])),
            ];
            assert_eq!(choose(told).unwrap(), view(4, &[1, 2, 3], &[9]), "term {term}");
        }
    }

    #[test]
    fn the_newest_stands_and_one_that_leaps_does_not() {
        let nodes: &[u128] = &[1, 2, 3];
        let told = |terms: &[u64]| {
            let each = terms.iter().zip(nodes);
            each.map(|(term, number)| (node(*number), view(*term, nodes, &[]))).collect()
        };
        assert_eq!(choose(told(&[5, 7, 6])).unwrap().term, Term(7));
        assert_eq!(choose(told(&[5, u64::MAX, 6])).unwrap().term, Term(6));
        assert_eq!(choose(told(&[5])).unwrap().term, Term(5));
    }

    #[test]
    fn one_that_is_in_no_view_is_not_believed() {
        assert!(choose(vec![(node(9), view(5, &[1, 2], &[]))]).unwrap_err().is_some());
        assert!(choose(vec![(node(9), view(5, &[1, 9], &[9]))]).unwrap_err().is_some());
        assert_eq!(choose(Vec::new()), Err(None));
    }
}

//! What callers learn, and what a session remembers.

use dkv_base::id::HolderId;

use super::*;

const LONG: Duration = Duration::from_secs(2);

/// Returns a client that is connected to both nodes of a network; the first leads everything.
fn script() -> Script {
    let first = SessionId(Uuid::from_u128(100));
    let router = Router::new(first, Some(home()));
    let mut script = Script { router, now: Duration::ZERO, ids: BTreeMap::new() };
    script.event(&["view", "1", "n1", "n1,n2"]);
    script.event(&["read", "first", "strong"]);
    script.event(&["up", "n1", "1"]);
    script.event(&["reply", "n1", "1", "first", "value"]);
    script.event(&["up", "n2", "1"]);
    while script.router.poll_effect().is_some() {}
    script
}

impl Script {
    fn submit(&mut self, kind: RequestKind) -> u64 {
        self.router.submit(self.now, kind, LONG, Some("a".to_owned()))
    }

    /// Returns the node that a request was last sent to, and its bounds.
    fn sent_to(&mut self) -> (NodeId, ReadBounds) {
        let mut last = None;
        while let Some(effect) = self.router.poll_effect() {
            if let Effect::Send(OutgoingRequest { node, payload, .. }) = effect {
                let bounds = match payload.body().0 {
                    RequestBody::Read { mode: ReadMode::Eventual(bounds), .. }
                    | RequestBody::Scan { mode: ReadMode::Eventual(bounds), .. } => bounds,
                    _ => ReadBounds::default(),
                };
                last = Some((node, bounds));
            }
        }
        last.expect("it is sent")
    }

    fn answer(&mut self, from: NodeId, id: u64, result: Result<Answer, Refusal>) {
        let id = self.router.requests[&id].kind.attempt(id);
        self.router.handle_reply(self.now, from, 1, Reply { id, result });
    }

    fn outcome(&mut self) -> Outcome {
        loop {
            let effect = self.router.poll_effect().expect("it is finished");
            if let Effect::Finish { outcome, .. } = effect {
                return outcome;
            }
        }
    }

    /// Returns the bounds of the next read at level session.
    fn session_bounds(&mut self) -> (NodeId, u64, ReadBounds) {
        let (key, level) = (Bytes::from_static(b"k"), Level::Session);
        let bounds = ReadBounds::default();
        let id = self.submit(RequestKind::Read { key, level, bounds, nearest: false });
        let (node, bounds) = self.sent_to();
        (node, id, bounds)
    }
}

#[test]
fn nobody_is_told_that_nothing_was_changed_by_what_may_have_been_done() {
    let node = node("n2");
    for body in [
        RequestBody::Drain { node, on: true },
        RequestBody::Drain { node, on: false },
        RequestBody::Rebalance,
        RequestBody::MovePrimary { shard: GroupId(3), to: NodeId::default() },
        RequestBody::RemoveNode(node),
        RequestBody::ExpelNode(node),
        RequestBody::Revoke(HolderId::from(node)),
        RequestBody::View,
        RequestBody::Placement { forecast: true },
    ] {
        let mut script = script();
        script.submit(RequestKind::Control(body.clone()));
        let (asked, _) = script.sent_to();
        assert_eq!(asked, self::node("n1"));
        script.event(&["at", "3000"]);
        let outcome = script.outcome();
        assert_eq!(matches!(outcome, Err(Error::Unknown(_))), body.has_effect(), "{body:?}");
        assert_eq!(matches!(outcome, Err(Error::Unavailable(_))), !body.has_effect(), "{body:?}");
    }
}

#[test]
fn a_primary_is_not_moved_again_by_itself() {
    let mut script = script();
    let body = RequestBody::MovePrimary { shard: GroupId(3), to: node("n2") };
    let id = script.submit(RequestKind::Control(body));
    let (asked, _) = script.sent_to();
    script.answer(asked, id, Err(Refusal::Unknown("not taken over in time".into())));
    assert!(matches!(script.outcome(), Err(Error::Unknown(_))));
}

#[test]
fn a_session_does_not_go_back_behind_anything_that_it_was_shown() {
    let stored = || Some(Stored { value: Bytes::from_static(b"v"), revision: Revision(30) });
    let (n1, n2) = (node("n1"), node("n2"));
    let later = Receipt { revision: Revision(30), stamp: Stamp(1 << 40), ..receipt(n2) };
    let span = || Span {
        prefix: Bytes::new(),
        after: Bytes::new(),
        keys_max: 9,
        bytes_max: 9,
        values: true,
    };
    let page = |receipt| Answer::Page(receipt, Page { pairs: Vec::new(), more: false });
    let key = || Bytes::from_static(b"k");
    let mode = ReadMode::Eventual(ReadBounds::default());
    let read = RequestBody::Read { shard: GroupId(1), key: key(), mode };
    let scan = RequestBody::Scan { shard: GroupId(1), span: span(), mode: ReadMode::Held };
    let works = [
        RequestKind::Read {
            key: key(),
            level: Level::Eventual,
            bounds: ReadBounds::default(),
            nearest: false,
        },
        RequestKind::Scan {
            shard: GroupId(1),
            span: span(),
            level: Level::Eventual,
            bounds: ReadBounds::default(),
        },
        RequestKind::Direct { node: n2, body: read },
        RequestKind::Direct { node: n2, body: scan },
    ];
    for kind in works {
        let is_page = matches!(kind, RequestKind::Scan { .. })
            || matches!(kind, RequestKind::Direct { body: RequestBody::Scan { .. }, .. });
        let mut script = script();
        let id = script.submit(kind.clone());
        let (asked, _) = script.sent_to();
        let shown = Receipt { pending: Some(Number(5)), node: asked, ..later };
        let answer = if is_page { page(shown) } else { Answer::Value(shown, stored()) };
        script.answer(asked, id, Ok(answer));
        while script.router.poll_effect().is_some() {}
        let (_, _, bounds) = script.session_bounds();
        assert_eq!(bounds.at_least, Revision(30), "{kind:?}");
        assert_eq!(bounds.deposits, [(asked, Number(5))], "{kind:?}");
        // The client's next write gets a later stamp, too.
        assert_eq!(script.router.clock.latest_eventual(), Stamp(1 << 40), "{kind:?}");
    }

    // A conflict shows a revision as well.
    let mut script = script();
    let (condition, write_id, after) = (Condition::Absent, None, Stamp(0));
    let (key, value) = (key(), None);
    let (everywhere, attach) = (false, None);
    let kind = RequestKind::Write { condition, everywhere, key, value, attach, write_id, after };
    let id = script.submit(kind);
    script.event(&["reply", "n1", "1", &(id + 1).to_string(), "done"]);
    script.sent_to();
    let current = Some(Revision(30));
    script.answer(n1, id, Err(Refusal::Conflict { receipt: later, current }));
    assert!(matches!(script.outcome(), Err(Error::Conflict { .. })));
    assert_eq!(script.session_bounds().2.at_least, Revision(30));
}

/// Returns a client to which n2 has shown a write that n2 has not delivered yet.
fn script_that_was_shown_a_pending_write() -> Script {
    let mut script = script();
    let id = script.submit(RequestKind::Direct {
        node: node("n2"),
        body: RequestBody::Read {
            shard: GroupId(1),
            key: Bytes::from_static(b"k"),
            mode: ReadMode::Eventual(ReadBounds::default()),
        },
    });
    let shown = Receipt { pending: Some(Number(5)), ..receipt(node("n2")) };
    script.answer(node("n2"), id, Ok(Answer::Value(shown, None)));
    script
}

#[test]
fn a_session_is_told_once_of_writes_that_were_lost_and_goes_on() {
    let mut script = script_that_was_shown_a_pending_write();
    while script.router.poll_effect().is_some() {}
    let (asked, id, bounds) = script.session_bounds();
    assert_eq!(bounds.deposits, [(node("n2"), Number(5))]);
    let lost = Refusal::Lost { node: node("n2"), number: Number(5) };
    script.answer(asked, id, Err(lost));
    let Err(Error::Unavailable(why)) = script.outcome() else { panic!("the loss goes unreported") };
    assert!(why.contains("were lost: n2 at 10.0.0.1:2 was removed"), "{why}");
    assert_eq!(script.session_bounds().2.deposits, []);
}

#[test]
fn a_session_that_waits_for_a_silent_node_names_it() {
    let mut script = script_that_was_shown_a_pending_write();
    script.event(&["lost", "n2", "1"]);
    while script.router.poll_effect().is_some() {}
    let (asked, id, _) = script.session_bounds();
    assert_eq!(asked, node("n1"));
    script.answer(asked, id, Err(Refusal::Behind { revision: Revision(9), staleness_ms: Some(1) }));
    script.event(&["at", "3000"]);
    let Err(Error::Unavailable(why)) = script.outcome() else { panic!("it ends") };
    assert!(why.contains("that n2 at 10.0.0.1:2 took and may not have delivered"), "{why}");
}

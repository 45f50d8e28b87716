//! Tests of progress on demand.

use dkv_api::Revision;
use futures::FutureExt;
use tokio::sync::{oneshot, watch};

use super::{Progress, Told, Waited, all_show};
use crate::proto::etcdserverpb::ResponseHeader;

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

/// Begins a wait that ends when the returned sender says.
fn begin(progress: &mut Progress) -> oneshot::Sender<i64> {
    let (sender, receiver) = oneshot::channel();
    progress.begin(async move { header(receiver.await.expect("an end")) });
    sender
}

#[test]
fn a_watch_that_begins_meanwhile_makes_the_wait_begin_anew() {
    let mut progress = Progress::default();
    progress.note_watch();
    assert!(progress.told().now_or_never().is_none(), "nobody has asked");
    assert!(progress.ask());
    let end = begin(&mut progress);
    assert!(progress.told().now_or_never().is_none());
    progress.note_watch();
    end.send(7).expect("a wait");
    assert_eq!(progress.told().now_or_never(), Some(Told { header: None, again: true }));
    let end = begin(&mut progress);
    end.send(9).expect("a wait");
    assert_eq!(progress.told().now_or_never(), Some(Told { header: header(9), again: false }));
    assert!(progress.told().now_or_never().is_none(), "it comes once");
}

#[test]
fn who_asks_again_gets_another_answer() {
    let mut progress = Progress::default();
    assert!(progress.ask());
    let end = begin(&mut progress);
    assert!(!progress.ask(), "the wait goes on");
    end.send(7).expect("a wait");
    assert_eq!(progress.told().now_or_never(), Some(Told { header: header(7), again: true }));
    assert!(progress.ask());
}

#[tokio::test]
async fn all_watches_have_to_show_everything() {
    let watched = |progress_from| {
        let (through, shown) = watch::channel(Revision(3));
        let (awaited, asked) = watch::channel(Revision(0));
        let progress_from = Revision(progress_from);
        (through, asked, Waited { through: shown, awaited, progress_from })
    };
    let ((one, asked, first), (other, _, second)) = (watched(0), watched(5));
    let mut all = Box::pin(all_show(vec![first, second], Revision(5)));
    assert!((&mut all).now_or_never().is_none());
    assert_eq!(*asked.borrow(), Revision(5), "a quiet watch learns what it is asked for");
    one.send_replace(Revision(6));
    assert!((&mut all).now_or_never().is_none(), "the other has a backlog");
    drop(other);
    assert_eq!(all.now_or_never(), Some(true), "one that has ended holds nothing back");
    // A watch of the future has no progress yet.
    let (_future, _, waited) = watched(9);
    _future.send_replace(Revision(5));
    assert_eq!(all_show(vec![waited], Revision(5)).now_or_never(), Some(false));
}

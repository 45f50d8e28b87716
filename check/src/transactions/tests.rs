use super::*;
use crate::finding::Kind;

mod twin;

/// A transaction in a line: `client start end result: op, op, …`. Operations are `a key element`,
/// `p key element`, `r key element …` and `r key ?`; an end of `-` stands for none. The result of a
/// snapshot is `snapshot`.
fn transaction(line: &str) -> Transaction {
    let (head, ops) = line.split_once(": ").unwrap();
    let head: Vec<&str> = head.split_whitespace().collect();
    let [client, start, end, result] = head[..] else { panic!("{line}") };
    let op = |op: &str| {
        let words: Vec<String> = op.split_whitespace().map(str::to_owned).collect();
        let [what, key, rest @ ..] = &words[..] else { panic!("{op}") };
        match &**what {
            "a" => crate::ListOperation::Append(key.clone(), rest[0].clone()),
            "p" => crate::ListOperation::Put(key.clone(), rest[0].clone()),
            _ if rest == ["?"] => crate::ListOperation::Read(key.clone(), None),
            _ => crate::ListOperation::Read(key.clone(), Some(rest.to_vec())),
        }
    };
    Transaction {
        client: client.parse().unwrap(),
        start_ns: start.parse().unwrap(),
        end_ns: end.parse().ok(),
        result: match result {
            "ok" | "snapshot" => Fate::Ok,
            "failed" => Fate::Failed,
            _ => Fate::Unknown,
        },
        ops: ops.split(", ").map(op).collect(),
        revisions: Default::default(),
        snapshot: result == "snapshot",
    }
}

fn findings(text: &str) -> Vec<Finding> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    check(&lines.map(transaction).collect::<Vec<_>>())
}

fn anomalies(text: &str) -> Vec<Anomaly> {
    let kinds = findings(text).into_iter().map(|finding| finding.kind);
    kinds.map(|kind| if let Kind::Anomaly(it) = kind { it } else { panic!("{kind:?}") }).collect()
}

#[test]
fn a_serializable_history_is_right() {
    let right = "
        1 0 9 ok: a x 1, r x 1, a y 1
        2 5 20 ok: r x, r y
        3 21 30 ok: r x 1, a x 2, a x 3, r x 1 2 3
        4 22 40 failed: a x 4
        5 22 - unknown: a x 5, a y 5
        6 22 - unknown: a x 6, r y ?
        7 50 60 ok: r y 1 5, r x 1 2 3 5
        8 61 70 ok: a x 7
        9 80 90 ok: r x 1 2 3 5 7, r z
    ";
    assert_eq!(anomalies(right), []);
}

#[test]
fn what_single_reads_show_is_judged() {
    assert_eq!(anomalies("1 0 9 ok: r x 1"), [Anomaly::Garbage]);
    assert_eq!(anomalies("1 0 9 failed: a x 1\n 2 0 9 ok: r x 1"), [Anomaly::G1a]);
    let within = "1 0 9 ok: a x 1, a x 2\n 2 0 9 ok: r x 1";
    assert_eq!(anomalies(within), [Anomaly::G1b, Anomaly::GSingle]);
    let turned = "1 0 9 ok: a x 1, a x 2\n 2 0 9 ok: r x 2 1";
    assert_eq!(anomalies(turned)[0], Anomaly::Internal);
    assert_eq!(anomalies("1 0 9 ok: a x 1\n 2 0 9 ok: r x 1 1"), [Anomaly::Duplicate]);
    assert_eq!(anomalies("1 0 9 ok: a x 1, a x 1"), [Anomaly::Ambiguous]);
    assert_eq!(anomalies("1 0 9 ok: a x 1, r x"), [Anomaly::Internal]);
    assert_eq!(anomalies("1 0 9 ok: a x 1\n 2 0 9 ok: r x, r x 1"), [Anomaly::Internal]);
    let orders = "
        1 0 99 ok: a x 1
        2 0 99 ok: a x 2
        3 0 99 ok: r x 1 2
        4 0 99 ok: r x 2 1
    ";
    assert_eq!(anomalies(orders), [Anomaly::Incompatible]);
}

#[test]
fn g0_is_found() {
    let dirty = "
        1 0 99 ok: a x 1, a y 1
        2 0 99 ok: a x 2, a y 2
        3 0 99 ok: r x 1 2
        4 0 99 ok: r y 2 1
    ";
    assert_eq!(anomalies(dirty), [Anomaly::G0]);
}

#[test]
fn g1c_is_found() {
    let circular = "
        1 0 99 ok: a x 1, r y 2
        2 0 99 ok: a y 2, r x 1
    ";
    assert_eq!(anomalies(circular), [Anomaly::G1c]);
}

#[test]
fn g_single_is_found() {
    let skew = "
        1 0 99 ok: a x 1, a y 1
        2 0 99 ok: r x 1, r y
    ";
    assert_eq!(anomalies(skew), [Anomaly::GSingle]);
}

#[test]
fn g2_is_found() {
    let skew = "
        1 0 99 ok: r x, a y 1
        2 0 99 ok: r y, a x 1
        3 0 99 ok: r x 1, r y 1
    ";
    assert_eq!(anomalies(skew), [Anomaly::G2]);
    let nobody_reads_them_again = "
        1 0 99 ok: r x, a y 1
        2 0 99 ok: r y, a x 1
    ";
    assert_eq!(anomalies(nobody_reads_them_again), [Anomaly::G2]);
}

#[test]
fn a_lost_update_is_found() {
    let lost = "
        1 0 99 ok: r x, a x 1
        2 0 99 ok: r x, a x 2
        3 0 99 ok: r x 1 2
    ";
    assert_eq!(anomalies(lost), [Anomaly::LostUpdate]);
    let unseen = "
        1 0 99 ok: r x, a x 1
        2 0 99 ok: r x, a x 2
    ";
    assert_eq!(anomalies(unseen), [Anomaly::LostUpdate]);
    let by_a_put = "
        1 0 99 ok: r x, a x 1
        2 0 99 ok: r x, p x 2
        3 0 99 ok: r x 2
        4 0 99 ok: r x 1
    ";
    assert_eq!(anomalies(by_a_put), [Anomaly::LostUpdate]);
}

#[test]
fn strict_violations_are_found() {
    let stale = "
        1 0 9 ok: a x 1
        2 10 19 ok: r x
    ";
    assert_eq!(anomalies(stale), [Anomaly::StrictGSingle]);
    let lost = "
        1 0 9 ok: a x 1
        2 0 9 ok: a x 2
        3 10 19 ok: r x 1
    ";
    assert_eq!(anomalies(lost), [Anomaly::StrictGSingle]);
    let backwards = "
        1 0 9 ok: a x 1
        2 10 19 ok: a x 2
        3 20 29 ok: r x 2 1
    ";
    assert_eq!(anomalies(backwards), [Anomaly::StrictG0]);
    let from_the_future = "
        1 0 9 ok: r x 1
        2 10 19 ok: a x 1
    ";
    assert_eq!(anomalies(from_the_future), [Anomaly::StrictG1c]);
    let both_stale = "
        1 0 9 ok: a x 1
        2 0 9 ok: a y 1
        3 10 19 ok: r x, a z 1
        4 10 19 ok: r y, r z
    ";
    assert!(!anomalies(both_stale).is_empty());
    // Answers of the same moment are not ordered.
    assert_eq!(anomalies("1 0 9 ok: a x 1\n 2 9 19 ok: r x"), []);
}

#[test]
fn unknown_outcomes_may_be_either_and_not_both() {
    let whole = "
        1 0 - unknown: a x 1, a y 1
        2 10 19 ok: r x, r y
        3 20 29 ok: r x 1, r y 1
    ";
    assert_eq!(anomalies(whole), []);
    let half = "
        1 0 - unknown: a x 1, a y 1
        2 10 19 ok: r x 1, r y
        3 20 29 ok: r x 1, r y 1
    ";
    assert_eq!(anomalies(half), [Anomaly::GSingle]);
    let early = "
        2 10 19 ok: r x 1
        1 20 - unknown: a x 1
    ";
    assert_eq!(anomalies(early), [Anomaly::StrictG1c]);
}

#[test]
fn revisions_are_an_order() {
    let mut both = [transaction("1 0 99 ok: a x 1"), transaction("2 0 99 ok: a x 2")];
    let read = transaction("3 0 99 ok: r x 1 2");
    both[0].revisions = vec![(1, 5)];
    both[1].revisions = vec![(1, 6)];
    let [one, two] = both.clone();
    assert_eq!(check(&[one, two, read.clone()]), []);
    both[1].revisions = vec![(1, 4)];
    let [one, two] = both.clone();
    let found = check(&[one, two, read.clone()]);
    assert_eq!(found[0].kind, Kind::Anomaly(Anomaly::StrictG0));
    both[1].revisions = vec![(1, 5)];
    let [one, two] = both;
    let text = check(&[one, two, read])[0].text.clone();
    assert_eq!(text, "strict G0: revision 5 of shard 1 was given to two transactions");
}

#[test]
fn a_cycle_is_explained_by_its_transactions() {
    let found = findings(
        "
        7 0 9000000 ok: a x 1, a y 1
        8 1000000 9000000 ok: r x 1, r y
    ",
    );
    let expected = "\
G-single (read skew): 2 transactions, each of which must come before the next, and the last before the first
  #1  1.000 ms to 9.000 ms  client 8  read x [1], read y [] -> done
      comes before #0, which wrote \"y\" after the version that it read
  #0  0.000 ms to 9.000 ms  client 7  append x 1, append y 1 -> done
      comes before #1, which read what it wrote to \"x\"
";
    assert_eq!(found[0].to_string(), expected);
}

#[test]
fn a_hundred_thousand_transactions_take_seconds() {
    // 64 clients append to and read 1,000 keys; each list has a hundred elements in the end.
    let mut lists: Vec<Vec<String>> = vec![Vec::new(); 1000];
    let mut all = Vec::new();
    for number in 0..100_000_u64 {
        let (one, two) = ((number * 7919 % 1000) as usize, (number * 104_729 % 997) as usize);
        let element = number.to_string();
        let read = crate::ListOperation::Read(two.to_string(), Some(lists[two].clone()));
        let append = crate::ListOperation::Append(one.to_string(), element.clone());
        lists[one].push(element);
        all.push(Transaction {
            client: number % 64,
            start_ns: number * 10,
            end_ns: Some(number * 10 + 640),
            result: Fate::Ok,
            ops: vec![read, append],
            revisions: Default::default(),
            snapshot: false,
        });
    }
    let begun = std::time::Instant::now();
    assert_eq!(check(&all), []);
    // In a debug build on a busy machine.
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}

#[test]
fn a_snapshot_is_of_one_moment_between_its_start_and_its_end() {
    let apart =
        |what: &str| format!("1 10 20 ok: a x 1\n 2 30 40 ok: a y 1\n 3 0 50 {what}: r x, r y 1");
    assert_eq!(anomalies(&apart("ok")), [Anomaly::StrictGSingle]);
    // Both were written while it was taken, and no transaction tells which of them came first.
    assert_eq!(anomalies(&apart("snapshot")), []);
    let told = format!("{}\n 4 21 29 ok: r x 1, r y", apart("snapshot"));
    assert_eq!(anomalies(&told), [Anomaly::G2]);
    let half = "1 10 20 ok: a x 1, a y 1\n 2 0 50 snapshot: r x, r y 1";
    assert_eq!(anomalies(half), [Anomaly::GSingle]);
    let two = "
        1 0 90 ok: a x 1
        2 0 90 ok: a y 1
        3 0 90 snapshot: r x 1, r y
        4 0 90 snapshot: r x, r y 1
    ";
    assert_eq!(anomalies(two), [Anomaly::G2]);
    let late = "1 10 20 ok: a x 1\n 2 30 40 snapshot: r x\n 3 50 60 ok: r x 1";
    assert_eq!(anomalies(late), [Anomaly::StrictGSingle]);
    let early = "1 10 20 snapshot: r x 1\n 2 30 40 ok: a x 1";
    assert_eq!(anomalies(early), [Anomaly::StrictG1c]);
    let again = "1 0 99 ok: a x 1\n 2 10 20 snapshot: r x 1\n 3 30 40 snapshot: r x";
    assert_eq!(anomalies(again), [Anomaly::StrictGSingle]);
}

use super::*;

/// `start end event` in a line, in milliseconds; an end of `-` for none.
fn kinds(lines: &str) -> Vec<Kind> {
    let mut history = History::default();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split(' ').collect();
        let ns = |word: &str| word.parse().ok().map(|ms: u64| ms * 1_000_000);
        let (start_ns, end_ns) = (ns(words[0]).unwrap(), ns(words[1]));
        let key = "k".to_owned();
        let event = match words[2..] {
            ["renewed", ms] => LeaseEvent::Renewed { ttl_ms: ms.parse().unwrap() },
            ["revoked"] => LeaseEvent::Revoked,
            ["present"] => LeaseEvent::Present { key },
            ["gone"] => LeaseEvent::Gone { key },
            ["down"] => {
                let end_ns = end_ns.unwrap();
                history.disruptions.push(Disruption { start_ns, end_ns });
                continue;
            }
            _ => panic!("{line}"),
        };
        history.leases.push(LeaseNote { lease: 1, start_ns, end_ns, event });
    }
    check(&history, Some(1_000_000_000)).into_iter().map(|finding| finding.kind).collect()
}

#[test]
fn a_lease_in_time_is_right() {
    assert_eq!(kinds("0 10 renewed 1000\n 990 999 present\n 995 1000 gone"), []);
    // The call may have been done at its end, and the end may be a second late.
    assert_eq!(kinds("0 10 renewed 1000\n 2010 2011 present"), []);
    assert_eq!(kinds("0 10 renewed 1000\n 500 - renewed 1000\n 1200 1201 gone"), []);
    assert_eq!(kinds("0 10 renewed 1000\n 500 - renewed 1000\n 9000 9001 present"), []);
    assert_eq!(kinds("0 10 renewed 1000\n 300 310 revoked\n 300 305 gone"), []);
    assert_eq!(kinds("0 10 renewed 1000\n 300 - revoked\n 400 405 gone"), []);
    assert_eq!(kinds("0 10 renewed 1000\n 900 2000 down\n 4000 4001 present"), []);
}

#[test]
fn a_lease_that_ends_early_is_found() {
    assert_eq!(kinds("0 10 renewed 1000\n 990 999 gone"), [Kind::LeaseEarly]);
    let renewed = "0 10 renewed 1000\n 500 510 renewed 1000\n 1400 1401 gone";
    assert_eq!(kinds(renewed), [Kind::LeaseEarly]);
    let revived = "0 10 renewed 1000\n 1400 1401 gone\n 1500 1501 renewed 1000";
    assert_eq!(kinds(revived), [Kind::LeaseRevived]);
    assert_eq!(kinds("0 10 renewed 1000\n 300 305 gone\n 400 410 revoked"), [Kind::LeaseEarly]);
}

#[test]
fn a_lease_that_stays_is_found() {
    assert_eq!(kinds("0 10 renewed 1000\n 2011 2012 present"), [Kind::LeaseLate]);
    let down = "0 10 renewed 1000\n 900 2000 down\n 4001 4002 present";
    assert_eq!(kinds(down), [Kind::LeaseLate]);
}

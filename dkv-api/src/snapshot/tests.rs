use super::*;

#[test]
fn a_token_survives_as_text() {
    let text = "7040:1=500,2=498-490,17=0";
    let token: SnapshotToken = text.parse().unwrap();
    assert_eq!(token.to_string(), text);
    let cut = |revision, base| Cut {
        revision: Revision(revision),
        base: Revision(base),
        moment: Stamp(7040),
    };
    let cuts: Vec<_> = token.cuts.iter().map(|(group, cut)| (group.0, *cut)).collect();
    assert_eq!(cuts, [(1, cut(500, 500)), (2, cut(498, 490)), (17, cut(0, 0))]);
}

#[test]
fn no_other_text_is_a_token() {
    let texts = [
        "",
        "7",
        "7:",
        ":1=5",
        "7:1",
        "7:1=",
        "7:=5",
        "7:1=5,",
        "7:1=5,1=6",
        "7:1=5-6",
        "7:1=5-",
        "x:1=5",
        "7:1=+5",
        "7:-1=5",
        "7: 1=5",
        "7:1=18446744073709551616",
    ];
    for text in texts {
        assert!(text.parse::<SnapshotToken>().is_err(), "{text:?}");
    }
}

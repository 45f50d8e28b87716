use super::*;

#[test]
fn fences_hide_headings_and_links() {
    let markdown =
        Markdown::new("# A\n```sh\n# not a heading [x](y)\n```\n[a](b.md#c \"title\")\n");
    assert_eq!(markdown.anchors, ["a"]);
    assert_eq!(markdown.links, [Link { line: 5, target: "b.md#c".into() }]);
    assert_eq!(markdown.lines[1..4], [Part::Fenced; 3]);
    assert_eq!(markdown.lines[4], Part::Prose);
}

#[test]
fn anchors_are_those_of_github() {
    let markdown = Markdown::new("## `put`: a write, once\n## Eventual\n### Eventual\n");
    assert_eq!(markdown.anchors, ["put-a-write-once", "eventual", "eventual-1"]);
}

#[test]
fn code_spans_hold_no_links() {
    let markdown = Markdown::new("see `a[b](c)` and [d](e)\n");
    assert_eq!(markdown.spans, [Span { line: 1, code: "a[b](c)".into() }]);
    assert_eq!(markdown.links, [Link { line: 1, target: "e".into() }]);
}

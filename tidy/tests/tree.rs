//! Every rule over the whole tree, each as a test of its own.

use std::fmt::Write;
use std::sync::LazyLock;

use tidy::rules::RULES;
use tidy::tree::Tree;

static TREE: LazyLock<Tree> =
    LazyLock::new(|| Tree::of_this_repository().expect("the files that git tracks"));

/// Checks the rule called `name`, and prints what it finds beyond what is tolerated.
fn check(name: &str) {
    let rule = RULES.iter().find(|rule| rule.name == name).expect("a rule of this name");
    let findings = (rule.check)(&TREE);
    let (found, tolerated) = (findings.len(), rule.tolerated());
    if found > tolerated {
        let mut list = String::new();
        for finding in &findings {
            let _ = writeln!(list, "{finding}");
        }
        panic!("{}\n{list}{found} findings, {tolerated} tolerated", rule.demand);
    }
    println!("{name}: {found} findings, {tolerated} tolerated");
}

macro_rules! rules {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name));
            }
        )*

        #[test]
        fn every_rule_has_a_test() {
            let tested = [$(stringify!($name)),*];
            let rules: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
            assert_eq!(rules, tested);
        }
    };
}

rules! {
    width length headers phrases module_files links figures crates lock_files homonyms old_names
    libraries circles pictures
}

//! Prints the findings of all rules, regenerates the pictures of the architecture, or lowers the
//! numbers of tolerated findings.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::{env, fs, io};

use tidy::graph::pictures;
use tidy::rules::{RULES, Rule, warnings};
use tidy::tree::Tree;

const USAGE: &str = "usage: tidy [RULE]   prints the findings of one rule, or of all, and warnings
       tidy graph    writes docs/modules.md and the diagram in docs/architecture.md
       tidy ratchet  lowers the numbers in tidy/tolerated.txt to what is found";

fn main() -> io::Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let tree = Tree::of_current_directory()?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["graph"] => {
            for (path, text) in pictures::generate(&tree) {
                fs::write(tree.root.join(path), text)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        ["ratchet"] => {
            let lower = |rule: &Rule| rule.tolerated().min((rule.check)(&tree).len());
            let left = RULES.iter().map(|rule| (rule.name, lower(rule)));
            let left = left.filter(|(_, number)| *number > 0);
            let lines: String = left.map(|(name, number)| format!("{name} {number}\n")).collect();
            fs::write(tree.root.join("tidy/tolerated.txt"), lines)?;
            Ok(ExitCode::SUCCESS)
        }
        [] => Ok(print(&tree, None)),
        [name] if RULES.iter().any(|rule| rule.name == name) => Ok(print(&tree, Some(name))),
        _ => {
            eprintln!("{USAGE}");
            Ok(ExitCode::from(2))
        }
    }
}

/// Prints the findings of the rule called `name`, or of all rules and the warnings.
fn print(tree: &Tree, name: Option<&str>) -> ExitCode {
    let mut status = ExitCode::SUCCESS;
    for rule in RULES.iter().filter(|rule| name.is_none_or(|name| name == rule.name)) {
        let findings = (rule.check)(tree);
        for finding in &findings {
            println!("{finding}");
        }
        let (found, tolerated) = (findings.len(), rule.tolerated());
        eprintln!("{}: {found} findings, {tolerated} tolerated. {}", rule.name, rule.demand);
        if found > tolerated {
            status = ExitCode::FAILURE;
        }
    }
    if name.is_none() {
        for warning in warnings(tree) {
            println!("{warning}");
        }
    }
    status
}

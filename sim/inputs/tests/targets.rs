//! Each target with a fixed number of inputs, the same at every run.

use dkv_inputs::targets::named;
use dkv_inputs::{TARGETS, attempt};

/// What the inputs follow from.
const SEED: u64 = 1;

macro_rules! targets {
    ($($name:ident),*) => {
        $(
            #[test]
            fn $name() {
                let target = named(stringify!($name));
                let tried = attempt(target, target.inputs, SEED);
                println!("{}: {} inputs, {} bytes", target.name, tried.inputs, tried.bytes);
                assert!(tried.inputs > target.inputs, "there are seeds too");
            }
        )*

        #[test]
        fn every_target_is_tried() {
            let names = [$(stringify!($name)),*];
            assert!(TARGETS.iter().map(|target| target.name).eq(names));
        }
    };
}

targets!(
    frames,
    messages,
    raft,
    entries,
    log,
    snapshots,
    tokens,
    certificates,
    files,
    commands,
    http,
    bolt
);

#[test]
fn the_page_names_the_targets_and_their_inputs() {
    let page = include_str!("../../../docs/reliability.md");
    let inputs: u64 = TARGETS.iter().map(|target| target.inputs).sum();
    let inputs = format!("{} 000 inputs", inputs / 1000);
    assert_eq!(page.matches(&inputs).count(), 2, "{inputs}");
    for target in TARGETS {
        assert!(page.contains(&format!("| `{}` | ", target.name)), "{}", target.name);
    }
}

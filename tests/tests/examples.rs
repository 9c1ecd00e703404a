//! The example programs do what their documentation says.

use std::process::Command;

use shepherd_tests::built;

#[test]
fn a_program_that_embeds_the_core_runs_jobs() {
    // Beside the program, where it looks for it.
    built("shepherd-runner");
    let output = Command::new(built("embed")).output().expect("the example can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text, "counting sheep -> COUNTING SHEEP\na flock of one -> A FLOCK OF ONE\n");
}

#[test]
fn the_program_that_embeds_the_core_is_short() {
    let source = include_str!("../../examples/src/bin/embed.rs");
    assert!(source.lines().count() <= 60);
}

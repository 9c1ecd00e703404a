//! What this machine cannot test.

/// Says that a test did not run because the machine lacks something.
///
/// # Panics
/// When `SHEPHERD_TEST_NO_SKIP` is 1: a machine that is meant to have everything
/// must not pass by testing less.
pub fn skip(reason: &str) {
    let forbidden = std::env::var("SHEPHERD_TEST_NO_SKIP").is_ok_and(|value| value == "1");
    assert!(!forbidden, "a test was to be skipped, and SHEPHERD_TEST_NO_SKIP forbids it: {reason}");
    println!("skipped: {reason}");
}

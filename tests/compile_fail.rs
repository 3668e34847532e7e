//! What is not possible in a state does not compile in it (the first promise).
#![expect(clippy::unwrap_used, reason = "a test may fail by a panic")]

use std::path::{Path, PathBuf};

/// The cases. With none of them the test would find nothing wrong.
fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile_fail");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|extension| extension == "rs")).collect()
}

#[test]
fn the_cases_are_there() {
    let cases = cases();
    assert!(!cases.is_empty());
    for case in cases {
        assert!(case.with_extension("stderr").exists(), "{}: what is refused?", case.display());
    }
}

#[test]
#[ignore = "builds the crate once more, with its dependencies; the gate runs it by name"]
fn illegal_transitions_do_not_compile() {
    assert!(!cases().is_empty());
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}

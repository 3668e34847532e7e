//! What is not possible in a state does not compile in it (the first promise).

#[test]
#[ignore = "builds the crate once more, with its dependencies; the gate runs it by name"]
fn illegal_transitions_do_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}

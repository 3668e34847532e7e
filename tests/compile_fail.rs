//! What is not possible in a state does not compile in it (the first promise).

#[test]
#[cfg_attr(
    any(loom_model, shuttle),
    ignore = "builds a crate of its own, without the model checker"
)]
fn illegal_transitions_do_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}

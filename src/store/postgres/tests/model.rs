//! Any operations: the store in memory and the one in a database give the same answers.

use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::store::Memory;
use crate::store::sqlite::tests::model::{ACCOUNTS, Operation, contents, operation, perform};

#[test]
fn roster_17_off_3_memory_and_postgres_agree() {
    let database = database!();
    let limits = OfflineLimits::new(4, 60);
    let open = || Stores::all_in(Arc::new(database.store().with_offline_limits(limits)));
    let mut postgres = open();
    let config = Config { cases: 12, failure_persistence: None, ..Config::default() };
    let operations = proptest::collection::vec(operation(), 1..60);
    let agree = |operations: Vec<Operation>| {
        database.execute(
            "TRUNCATE roster, roster_item, subscription_request, offline_message, blocked
             RESTART IDENTITY",
        );
        let memory = Stores::all_in(Arc::new(Memory::new().with_offline_limits(limits)));
        let mut seen = Vec::new();
        for operation in &operations {
            if matches!(operation, Operation::Reopen) {
                postgres = open();
            }
            let expected = perform(&memory, &seen, operation);
            assert_eq!(perform(&postgres, &seen, operation), expected, "{operation:?}");
            for n in 0..ACCOUNTS {
                let expected = contents(&memory, n);
                assert_eq!(contents(&postgres, n), expected, "{operation:?}");
                // The ids agree too: both count from one and never go back.
                let ids = expected.messages.iter().map(|(id, _)| *id);
                let new: Vec<_> = ids.filter(|id| !seen.contains(id)).collect();
                seen.extend(new);
            }
        }
        Ok(())
    };
    let agree = parking_lot::Mutex::new(agree);
    TestRunner::new(config).run(&operations, |operations| (agree.lock())(operations)).unwrap();
}

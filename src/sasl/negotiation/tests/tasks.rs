//! Tasks behind the proof (UPGRADE-1 to UPGRADE-3).

use super::*;
use crate::sasl::Establish;

/// A client of an account without keys for SHA-512, which has shown its password and is asked for them.
fn asked(change: impl FnOnce(&mut Context)) -> (World, Result<Step, Failure>) {
    let mut world = World::with(change);
    world.credentials.scram_sha_512 = None;
    let asked = Establish { upgrades: vec![ScramHash::Sha512], ..Establish::default() };
    let initial = Some(format!("\0juliet\0{PASSWORD}").into_bytes());
    let request = Request::Auth { mechanism: "PLAIN", initial };
    let step = world.negotiation.receive_2(Ok(request), Some(Box::new(asked)));
    assert!(matches!(step, Ok(Step::NeedCredentials { .. })));
    let Ok(Step::CheckKeys(check)) = world.negotiation.credentials(Some(world.credentials.clone()))
    else {
        panic!("no keys to check")
    };
    let step = world.negotiation.hashed(check());
    (world, step)
}

fn bring(world: &mut World) -> Result<Step, Failure> {
    let next = Request::Next("UPGR-SCRAM-SHA-512".to_owned());
    let Ok(Step::Salt { salt, iterations }) = world.negotiation.receive_2(Ok(next), None) else {
        panic!("no salt")
    };
    assert_eq!(iterations, FEW.get());
    let salted = pbkdf2_array::<Hmac<Sha512>, 64>(PASSWORD.as_bytes(), &salt, iterations).unwrap();
    world.negotiation.receive_2(Ok(Request::TaskData(salted.to_vec())), None)
}

#[test]
fn upgrade_2_the_keys_are_those_of_the_password() {
    let (mut world, step) = asked(|_| ());
    assert!(matches!(step, Ok(Step::Continue { task: ScramHash::Sha512, .. })));
    assert!(world.negotiation.is_continued());
    let Ok(Step::AddKeys { account, proved, added }) = bring(&mut world) else { panic!("no keys") };
    assert_eq!(account.as_str(), "juliet@im.example.com");
    assert_eq!(Some(&proved.1), world.credentials.keys(proved.0));
    assert!(added.0 == ScramHash::Sha512 && added.1.verify(PASSWORD, added.0));
    assert_success(world.negotiation.added(true), "juliet@im.example.com");
    assert!(!world.negotiation.is_continued());
}

#[test]
fn upgrade_3_a_store_that_fails_is_no_attempt() {
    let (mut world, _) = asked(|_| ());
    assert!(matches!(bring(&mut world), Ok(Step::AddKeys { .. })));
    let refused = world.negotiation.store_failed();
    assert_eq!((refused.error, refused.close), (SaslError::TemporaryAuthFailure, false));
    assert!(!world.negotiation.is_continued());
    assert_refused(world.negotiation.added(true), SaslError::MalformedRequest);
}

#[test]
fn upgrade_1_not_where_keys_cannot_be_kept() {
    for change in [(|context| context.adds_keys = false) as fn(&mut Context), |context| {
        context.policy = Arc::new(policy().upgrades(&[ScramHash::Sha256]))
    }] {
        assert_success(asked(change).1, "juliet@im.example.com");
    }
    // In SASL1 nothing can be asked for.
    let mut world = World::new();
    world.credentials.scram_sha_512 = None;
    assert_success(world.plain("", "juliet", PASSWORD), "juliet@im.example.com");
}
